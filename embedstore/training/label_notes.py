"""What people should know about the labels or numbers that a head learns from, before they believe its scores."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.store import View

__all__ = ["group_notes", "imbalance_note", "label_notes", "left_out_notes", "number_notes"]

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]

FEW = 5
NEARLY_ALL = 0.99
SHOWN = 5
FEW_GROUPS = 5
RARE = 0.05
"""Share of the training items below which a class is rare, where an equal share would be twice as much."""


def label_notes(
    labels: Array, train: Mask, val: Mask, *, few: int = FEW, words: tuple[str, str] = ("class has", "classes have")
) -> list[str]:
    """Notes about classes (n,), learned from the items `train` (n,) and chosen by the items `val` (n,).

    `words` are what one of them, and several, are called.
    """
    counts = Counter(labels.tolist())
    learned, chosen = (set(labels[mask].tolist()) for mask in (train, val))
    notes = []
    if unknown := [label for label in counts if label not in learned | chosen]:
        n = sum(counts[label] for label in unknown)
        notes.append(
            f"{_number(unknown, *words)} no training item and can never be predicted "
            f"({n:,} items to be judged): {_listed(unknown, counts)}"
        )
    if unlearned := [label for label in counts if label in chosen - learned]:
        notes.append(
            f"{_number(unlearned, *words)} items for validation but none for training, "
            f"and can hardly be learned: "
            f"{_listed(unlearned, counts)}"
        )
    alike = _alike(counts)
    for group in alike[:SHOWN]:
        notes.append(f"labels that differ only by blanks, case or Unicode form stay apart: {_listed(group, counts)}")
    if len(alike) > SHOWN:
        notes.append(f"so do {len(alike) - SHOWN} more groups of labels")
    label, most = counts.most_common(1)[0]
    if most >= NEARLY_ALL * len(labels):
        notes.append(f"{_share(most, len(labels))} of the items are {label!r}: go by balanced accuracy and macro F1")
    if rare := [label for label in sorted(counts, key=str) if counts[label] < few]:
        notes.append(f"{_number(rare, *words)} fewer than {few} items: {_listed(rare, counts)}")
    return notes


def imbalance_note(labels: Array) -> list[str]:
    """A note where a class has few of the items (n,) that a head was fitted on, by itself and beside an equal share."""
    counts = Counter(labels.tolist())
    least = min(RARE, 0.5 / max(len(counts), 1)) * len(labels)
    rare = [label for label, _ in sorted(counts.items(), key=lambda entry: (entry[1], str(entry[0]))) if counts[label] < least]
    if not rare:
        return []
    few, least_share = _number(rare, "class has", "classes have"), f"{100 * least / len(labels):.3g} %"
    return [
        f"{few} under {least_share} of the training items ({rare[0]!r}: {_share(counts[rare[0]], len(labels))}): --balance may "
        "help, with weights for example, and shows what it changes"
    ]


def left_out_notes(view: View) -> list[str]:
    """Notes about items that a view could not take."""
    left = {f"no {view.target_name}": view.dropped, f"no vector in {', '.join(view.spaces)}": view.without_input}
    return [
        f"{n:,} {'item has' if n == 1 else 'items have'} {what} and {'was' if n == 1 else 'were'} left out"
        for what, n in left.items()
        if n
    ]


def group_notes(view: View, test: npt.NDArray[np.int64]) -> list[str]:
    """A note where the items judged, at positions `test`, are of few groups: intervals are drawn from these."""
    count = FEW_GROUPS if view.groups is None else len(set(view.groups[test].tolist()))
    if count >= FEW_GROUPS:
        return []
    if count == 1:
        one = f"all {view.unit} that were judged have one value of {view.group_name!r}"
        return [f"{one}: there are no intervals, and no gain is certain"]
    return [f"the {view.unit} that were judged have {count} values of {view.group_name!r}: intervals rest on these few"]


def number_notes(values: Array) -> list[str]:
    """Notes about numbers (n,) to be predicted."""
    value, most = Counter(values.tolist()).most_common(1)[0]
    if most >= NEARLY_ALL * len(values):
        return [f"{_share(most, len(values))} of the items are {value:g}: the mean is hard to beat, and R² rests on the others"]
    deviation, mean = float(np.std(values)), float(np.mean(values))
    if deviation < 1e-6 * abs(mean):
        return [f"the numbers hardly differ: their mean is {mean:g}, their standard deviation {deviation:g}"]
    return []


def _alike(labels: Iterable[Any]) -> list[list[str]]:
    """Groups of texts that differ only by blanks, case or Unicode form."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for label in labels:
        if isinstance(label, str):
            folded = unicodedata.normalize("NFKC", label).casefold()
            groups[" ".join(unicodedata.normalize("NFKC", folded).split())].append(label)
    return [sorted(group) for group in groups.values() if len(group) > 1]


def _listed(labels: Sequence[Any], counts: Counter[Any]) -> str:
    """The first labels with their numbers of items; escaped where they would look the same."""
    plain = len({unicodedata.normalize("NFC", str(label)) for label in labels}) == len(labels)
    shown = [f"{repr(label) if plain else ascii(label)} ({counts[label]:,})" for label in labels[:SHOWN]]
    return ", ".join(shown) + (", …" if len(labels) > SHOWN else "")


def _number(labels: Sequence[Any], one: str, several: str) -> str:
    return f"{len(labels):,} {one if len(labels) == 1 else several}"


def _share(part: int, whole: int) -> str:
    """Never "100.0 %" of what is not all."""
    return f"{min(100 * part / whole, 99.99 if part < whole else 100):.4g} %"
