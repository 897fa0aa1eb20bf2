"""Columns that hold several labels an item: lists, and text with a separator, which is never split unasked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore._core.arguments import shown
from embedstore.errors import HeadError, UsageError
from embedstore.store import View

SEPARATORS = (";", "|", ",")
MOST = 0.5
"""Share of the values beyond which a separator in them is asked about."""


def separated(view: View, separator: str) -> View:
    """The view with its target, text, split into lists of labels.

    Raises
    ------
    UsageError
        The target holds something else than text.
    """
    values = _values(view)
    if odd := next((value for value in values if not isinstance(value, str)), None):
        raise UsageError(
            f"separator splits text; target {view.target_name!r} holds {type(odd).__name__} values. Leave --separator out."
        )
    return replace(view, target=split_texts(view.target, separator))


def split_texts(target: Any, separator: str) -> npt.NDArray[Any]:
    """Values (n,) with text split into labels, blanks around them cut off and empty ones left out; others as they are."""
    parts = ([part.strip() for part in v.split(separator)] if isinstance(v, str) else v for v in target)
    kept = ([label for label in labels if label != ""] if isinstance(labels, list) else labels for labels in parts)
    return np.fromiter(kept, object, len(target))


def refuse_joined(view: View) -> None:
    """Raise `UsageError` where most values of a text target hold a separator: are they several labels or one?

    Of several targets each is looked at.
    """
    for name in view.target_names:
        _refuse_joined(view.of_target(name), "Several labels an item are a target of their own. ", "several")
    if not view.target_names:
        _refuse_joined(view, "For several labels an item: --separator '{mark}'. ", "classification")


def _refuse_joined(view: View, several: str, task: str) -> None:
    values = _values(view)
    if not values or not all(isinstance(value, str) for value in values):
        return
    counts = {mark: sum(mark in value for value in values) for mark in SEPARATORS}
    mark = max(counts, key=lambda mark: counts[mark])
    if counts[mark] > MOST * len(values):
        raise UsageError(
            f"{counts[mark]:,} of {len(values):,} values of target {view.target_name!r} hold {mark!r}, such as "
            f"{shown(next(value for value in values if mark in value))}. {several.format(mark=mark)}"
            f"For each value as one class: --task {task}."
        )


def sets_of(view: View) -> list[list[Any]]:
    """The labels of each item, or a `HeadError` that names the first item whose value is no list of texts or numbers."""
    sets = _values(view)
    for i, value in enumerate(sets):
        if isinstance(value, str):
            raise HeadError(
                f"Target {view.target_name!r} is the text {shown(value)} for item {view.ids[i]!r}; several labels need a list, "
                "or a separator: --separator ';'."
            )
        if not isinstance(value, list):
            raise HeadError(
                f"Target {view.target_name!r} is {shown(value)} for item {view.ids[i]!r}; expected a list of labels, or text "
                "with a separator (--separator ';')."
            )
        for label in value:
            if isinstance(label, float | bool) or not isinstance(label, str | int):
                raise HeadError(
                    f"Target {view.target_name!r} of item {view.ids[i]!r} holds {shown(label)}; labels are text or whole "
                    "numbers."
                )
    return sets


def with_frequent(view: View, least: int) -> tuple[View, list[str]]:
    """The view without labels of fewer than `least` items, and a note about them.

    Raises
    ------
    HeadError
        No label has as many.
    """
    sets = sets_of(view)
    counts = Counter(label for labels in sets for label in set(labels))
    rare = {label for label, items in counts.items() if items < least}
    if len(rare) == len(counts):
        most = max(counts.values(), default=0)
        raise HeadError(f"No label of target {view.target_name!r} has {least:,} items; the most frequent one has {most:,}.")
    kept = np.fromiter(([label for label in labels if label not in rare] for labels in sets), object, len(sets))
    note = f"{len(rare):,} of {len(counts):,} labels have fewer than {least:,} items and were left out"
    return replace(view, target=kept), [note] if rare else []


def repeated_note(sets: Iterable[Sequence[Any]]) -> list[str]:
    """A note about items that name a label twice."""
    items = sum(len(set(labels)) < len(labels) for labels in sets)
    return [f"{items:,} items name a label more than once; it counts once in each"] if items else []


def _values(view: View) -> list[Any]:
    return [] if view.target is None else list(view.target)
