"""Names of classes, inputs and steps as labels of a figure: on one line, not too long, and about how wide they are."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["ems", "short"]

LABEL_EMS = 12.0
TURNS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""What turns the direction of the text after it; cut in the middle, a name would turn its neighbours too."""


def ems(text: str) -> float:
    """About how wide `text` is, in multiples of its font size; rather too much than too little."""
    return sum(_width(character) for character in text)


def _width(character: str) -> float:
    if unicodedata.east_asian_width(character) in "WF":
        return 1.3 if unicodedata.category(character) == "So" else 1.0
    if character in "iljtfrI.,:;'|()[]! ":
        return 0.4
    return 0.8 if character.isupper() or character in "mw@%" else 0.62


def short(text: str, limit: float = LABEL_EMS) -> str:
    """`text` on one line of at most `limit` ems, cut in the middle: names of one family often differ at their end.

    Control characters and lone surrogates, which XML cannot hold, are gone, and so is what turns the direction of text.
    """
    text = TURNS.sub("", "".join(" " if unicodedata.category(c) in ("Cc", "Cs") else c for c in str(text)))
    text = " ".join(text.split())
    if ems(text) <= limit:
        return text or "–"
    half = (limit - 1) / 2
    end = _start(text[::-1], half)[::-1].lstrip()
    while (end and unicodedata.category(end[0])[0] == "M") or end[:1] == "\u200d":  # accents of a letter that was cut off
        end = end[1:].lstrip()
    return _start(text, half).rstrip(" \u200d") + "…" + end


def _start(text: str, limit: float) -> str:
    """The longest start of `text` that is at most `limit` ems wide."""
    wide = 0.0
    for i, character in enumerate(text):
        wide += _width(character)
        if wide > limit:
            return text[:i]
    return text
