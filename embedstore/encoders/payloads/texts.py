"""From a text payload's bytes to the text a model sees."""

from __future__ import annotations

from collections.abc import Sequence

from embedstore.errors import PayloadError

EXAMPLE_TEXTS = (
    "",
    "a",
    "Two dogs play in the snow.",
    "price: 12.50 EUR (incl. VAT), 3 pcs.",
    "Überraschung, naïve café, 東京の空, 🙂",
    "lib-perl5 bindings for the GNU readline library",
    "THE QUICK BROWN FOX JUMPS OVER THE LAZY DOG",
    "A longer description of an article, as shops and package lists have them. " * 3,
    "many words and then some more of them " * 40,
)
"""Texts like real ones, short and long, on which runtimes have to agree."""


def decode_text(payload: bytes) -> str:
    """UTF-8 text; `PayloadError` otherwise."""
    try:
        return payload.decode()
    except UnicodeDecodeError as error:
        raise PayloadError("decode", f"not UTF-8 text: {error.reason} at byte {error.start}") from error


def decode_texts(payloads: Sequence[bytes]) -> tuple[dict[int, str], dict[int, PayloadError]]:
    """Position → text, and position → error of the payloads that are none."""
    texts: dict[int, str] = {}
    errors: dict[int, PayloadError] = {}
    for i, payload in enumerate(payloads):
        try:
            texts[i] = decode_text(payload)
        except PayloadError as error:
            errors[i] = error
    return texts, errors
