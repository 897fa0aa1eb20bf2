"""Every confident mistake by what was taken for what, and the items whose inputs say different things.

They are those of the out-of-fold predictions that are kept with a head, or else of the items that it was judged on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.reports.data import Confusion, Mistake, Section
from embedstore.store import View
from embedstore.training.item_cards import small_cards
from embedstore.training.tasks.base import HEAD, Array, Judged

__all__ = ["joined", "mistakes_by_confusion"]

WORST = 200
"""Mistakes on a page: about 3 kB each with a picture."""
DISAGREEMENTS = 24
PAIRS = 20
"""Rows of the table of what inputs say against one another."""


@dataclass(frozen=True)
class _Said:
    """What was said of m items by heads that did not see them.

    Parameters
    ----------
    at : (m,) positions in the view
    true, predicted : (m,) labels
    sure : (m,) float64
        The probability of what is predicted.
    alone : mapping of input to (m,) labels, or None where an item lacks it
    note : str
        Which items these are.
    """

    at: npt.NDArray[np.int64]
    true: Array
    predicted: Array
    sure: npt.NDArray[np.float64]
    alone: Mapping[str, Array]
    note: str

    @property
    def wrong(self) -> npt.NDArray[np.bool_]:
        return np.asarray(self.true != self.predicted, bool)

    @property
    def disagree(self) -> npt.NDArray[np.bool_]:
        """Which items (m,) have inputs that alone say different classes."""
        if len(self.alone) < 2:
            return np.zeros(len(self.at), bool)
        said = zip(*(labels.tolist() for labels in self.alone.values()), strict=True)
        return np.array([len({label for label in row if label is not None}) > 1 for row in said], bool)


def mistakes_by_confusion(view: View, judged: Judged) -> dict[str, Any]:
    """What a report of a classifier shows of all its mistakes: fields of `ReportData`."""
    said = _said(judged)
    wrong = _surest(said, said.wrong)
    disagree = np.flatnonzero(said.disagree)
    order = np.lexsort((-said.sure[disagree], ~said.wrong[disagree]))
    shown = disagree[order][:DISAGREEMENTS]
    table = _table(said, disagree)
    return {
        "confusions": _grouped(said, wrong[:WORST], _cards(view, said, wrong[:WORST])),
        "confusions_note": _counted(said, len(wrong)),
        "disagreements": _cards(view, said, shown),
        **({"sections": [table]} if table else {}),
    }


def joined(*parts: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a report from several hands; what each adds under ``sections`` comes one after another."""
    sections = [section for part in parts for section in part.get("sections", ())]
    return {name: value for part in parts for name, value in part.items()} | ({"sections": sections} if sections else {})


def _said(judged: Judged) -> _Said:
    kept = judged.out_of_fold
    if kept is not None:
        note = "Of all labelled items, each predicted by a head that did not see it."
        sure = kept.probabilities.max(axis=1).astype(np.float64)
        return _Said(np.arange(len(kept)), kept.target, kept.predicted, sure, kept.alone, note)
    log_p, classes = judged.outputs[HEAD], judged.labels.classes
    sure = np.exp(log_p.max(axis=1))
    return _Said(judged.test, classes[judged.truth], classes[log_p.argmax(axis=1)], sure, {}, "Of the items judged.")


def _surest(said: _Said, chosen: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    at = np.flatnonzero(chosen)
    return at[np.argsort(-said.sure[at], kind="stable")]


def _counted(said: _Said, wrong: int) -> str:
    shown = f"{wrong:,} mistakes" if wrong <= WORST else f"The {WORST} surest of {wrong:,} mistakes"
    return f"{said.note} {shown}, the most frequent confusion first. Where a group looks alike, look at its labels."


def _cards(view: View, said: _Said, at: npt.NDArray[np.int64]) -> list[Mistake]:
    return small_cards(
        view.select(said.at[at]),
        labelled=said.true[at].tolist(),
        predicted=said.predicted[at].tolist(),
        probability=said.sure[at],
        alone={name: labels[at].tolist() for name, labels in said.alone.items()},
    )


def _grouped(said: _Said, at: npt.NDArray[np.int64], cards: list[Mistake]) -> list[Confusion]:
    """The shown mistakes by (truth, prediction), the most frequent first."""
    wrong = said.wrong
    counts = Counter(zip(said.true[wrong].tolist(), said.predicted[wrong].tolist(), strict=True))
    groups: dict[tuple[Any, Any], list[Mistake]] = {}
    for pair, card in zip(zip(said.true[at].tolist(), said.predicted[at].tolist(), strict=True), cards, strict=True):
        groups.setdefault(pair, []).append(card)
    found = [Confusion(str(pair[0]), str(pair[1]), counts[pair], group) for pair, group in groups.items()]
    return sorted(found, key=lambda one: -one.items)


def _table(said: _Said, disagree: npt.NDArray[np.int64]) -> Section | None:
    """How often one input says this and another that, and how often each and the head are right; None where they agree."""
    if not len(disagree):
        return None
    names = list(said.alone)
    told = list(zip(*(said.alone[name][disagree].tolist() for name in names), strict=True))
    common = Counter(told).most_common(PAIRS)
    rows = []
    for labels, items in common:
        at = disagree[[row == labels for row in told]]
        right = [int((said.alone[name][at] == said.true[at]).sum()) for name in names]
        words = ", ".join(f"{name}: {label}" for name, label in zip(names, labels, strict=True) if label is not None)
        rows.append((words, items, *right, int((~said.wrong[at]).sum())))
    note = (
        f"{len(disagree):,} of {len(said.at):,} items have inputs that, each alone, say different classes. The last columns "
        "count the items in which each input, and the head, are right. An item whose inputs do not belong together shows here."
    )
    return Section(
        "Inputs that disagree", note, ("each alone says", "items", *(f"{n} right" for n in names), "head right"), rows
    )
