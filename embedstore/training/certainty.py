"""How certain a saved head is: sets of classes and intervals with a coverage, calibrated on what is kept with the head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.errors import UsageError
from embedstore.evaluation.bootstrap import Bootstrap, Score
from embedstore.evaluation.conformal import class_sets, number_intervals
from embedstore.heads.held_out import OutOfFold
from embedstore.reports.data import Section

__all__ = ["Certainty", "intervals_of", "measured", "measured_across", "section", "sets_of"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Certainty:
    """How often sets or intervals hold the truth, on items that nothing was fitted or calibrated on.

    Parameters
    ----------
    target : float
        The coverage asked for.
    coverage : Score
        The share of the items whose set or interval holds the truth.
    size : Score
        The mean number of classes in a set, or the mean width of an interval.
    per_class : bool
        Whether each class was to be covered so often.
    classes : list of mapping
        Of each class that is there: ``class``, ``items``, ``coverage``, ``size``.
    """

    target: float
    coverage: Score
    size: Score
    per_class: bool = False
    classes: list[dict[str, Any]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "coverage": self.coverage.to_dict(), "size": self.size.to_dict()}


def sets_of(
    kept: OutOfFold, probabilities: Array, classes: Sequence[Any], coverage: float, *, per_class: bool = False
) -> npt.NDArray[np.bool_]:
    """Which of `classes` (c,) are in the set of each item (m, c), whose `probabilities` are (m, c)."""
    position = {label: k for k, label in enumerate(kept.classes.tolist())}
    at = [(i, position[label]) for i, label in enumerate(classes) if label in position]
    ours, theirs = (list(pair) for pair in zip(*at, strict=True))
    asked = np.zeros((len(probabilities), len(kept.classes)))
    asked[:, theirs] = probabilities[:, ours]
    known = kept.crossed
    found = class_sets(kept.probabilities[known], kept.codes[known], asked, coverage, by_class=per_class)
    sets = np.zeros(probabilities.shape, bool)
    sets[:, ours] = found[:, theirs]
    return sets


def intervals_of(kept: OutOfFold, predicted: Array, coverage: float, *, per_class: bool = False) -> npt.NDArray[np.float64]:
    """The interval (m, 2) around each predicted number (m,)."""
    if per_class:
        raise UsageError("per_class is for classes; this head predicts numbers.")
    known = kept.crossed
    return number_intervals(kept.predicted[known].astype(float), kept.target[known].astype(float), predicted, coverage)


def measured(
    kept: OutOfFold,
    outputs: Array,
    truth: Array,
    classes: Array,
    bootstrap: Bootstrap,
    *,
    coverage: float,
    per_class: bool,
) -> Certainty:
    """The coverage over items (m,) that the head did not see.

    Parameters
    ----------
    outputs : (m, c) or (m,)
        Log-probabilities of `classes` (c,), or numbers.
    truth : (m,)
        Positions in `classes`, or numbers.
    """
    if outputs.ndim == 1:
        low, high = intervals_of(kept, outputs, coverage, per_class=per_class).T
        return _scored(((low <= truth) & (truth <= high)), high - low, bootstrap, coverage)
    sets = sets_of(kept, np.exp(outputs), classes.tolist(), coverage, per_class=per_class)
    return _of_sets(sets, truth, classes, bootstrap, coverage, per_class)


def measured_across(kept: OutOfFold, bootstrap: Bootstrap, *, coverage: float, per_class: bool) -> Certainty:
    """The coverage over all items of a cross-validation: those of each fold by what was calibrated on the other folds."""
    numbers = not len(kept.classes)
    found = np.zeros((len(kept), 2 if numbers else len(kept.classes)))
    for fold in sorted(set(kept.fold.tolist())):
        mine = kept.fold == fold
        others = kept.take(~mine)
        if numbers:
            found[mine] = intervals_of(others, kept.predicted[mine], coverage, per_class=per_class)
        else:
            sets = sets_of(others, kept.probabilities[mine], kept.classes.tolist(), coverage, per_class=per_class)
            found[mine] = sets
    if numbers:
        truth, (low, high) = kept.target.astype(float), found.T
        return _scored((low <= truth) & (truth <= high), high - low, bootstrap, coverage)
    return _of_sets(found.astype(bool), kept.codes, kept.classes, bootstrap, coverage, per_class)


def section(found: Certainty) -> Section:
    """What the report shows of it."""
    every = ("all items", found.coverage, found.size)
    rows = [every, *((str(row["class"]), row["coverage"], row["size"]) for row in found.classes)]
    what = "classes in a set" if found.classes else "width"
    each = "of each class " if found.per_class else ""
    return Section(
        f"Certainty: a coverage of {found.target:g}",
        f"Sets or intervals that are to hold the truth of {found.target:.0%} of the items {each}(conformal prediction, "
        "calibrated on out-of-fold predictions), on items that nothing was calibrated on.",
        ("items", "coverage", what),
        rows,
    )


def _of_sets(
    sets: npt.NDArray[np.bool_], truth: Array, classes: Array, bootstrap: Bootstrap, coverage: float, per_class: bool
) -> Certainty:
    hit, size = sets[np.arange(len(truth)), truth], sets.sum(axis=1).astype(float)
    rows = [
        {
            "class": label,
            "items": int(mine.sum()),
            "coverage": float(hit[mine].mean()),
            "size": float(size[mine].mean()),
        }
        for k, label in enumerate(classes.tolist())
        if (mine := truth == k).any()
    ]
    return _scored(hit, size, bootstrap, coverage, per_class, rows)


def _scored(
    hit: Array,
    size: Array,
    bootstrap: Bootstrap,
    coverage: float,
    per_class: bool = False,
    classes: list[dict[str, Any]] | None = None,
) -> Certainty:
    return Certainty(coverage, bootstrap.mean(hit.astype(float)), bootstrap.mean(size), per_class, classes or [])
