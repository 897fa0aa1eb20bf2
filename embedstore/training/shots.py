"""How good heads are with few items a class: over draws of them, each judged on the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embedstore.errors import HeadError
from embedstore.evaluation.bootstrap import Bootstrap, Score
from embedstore.evaluation.metrics import scores_to_dict
from embedstore.heads import Head
from embedstore.reports.data import Section
from embedstore.store import View
from embedstore.training.tasks.base import HEAD, Codes, Float, Labels, Task

__all__ = ["DRAWS", "ZERO_SHOT", "ShotCurve", "Shots", "shot_curve", "shots_section"]

DRAWS = 20
MOST_JUDGED = 5000
"""Items on which a draw is judged at most, drawn at random."""
ZERO_SHOT = "zeroshot"


@dataclass(frozen=True)
class Shots:
    """Accuracy with a number of items a class.

    Parameters
    ----------
    shots : int
        Items of each class that heads are fitted on; 0: none, which only zero-shot can do.
    items : int
        Fitted on, in a draw. Of a class of few items half are, so that the others judge.
    accuracy : mapping of head to Score
        The mean over draws and its interval over them; with none, over items.
    gain : mapping of head to Score
        How much more accurate the head is than each of the others, paired by draw.
    """

    shots: int
    items: int
    accuracy: dict[str, Score]
    gain: dict[str, Score]

    @property
    def lead(self) -> Score | None:
        """The gain over the best of the others; None where the head was not fitted."""
        best = max(self.gain, key=lambda name: self.accuracy[name].value, default=None)
        return None if best is None else self.gain[best]

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "accuracy": scores_to_dict(self.accuracy), "gain": scores_to_dict(self.gain)}


@dataclass(frozen=True)
class ShotCurve:
    """Accuracy over numbers of items a class.

    Parameters
    ----------
    points : list of Shots
    draws : int
        How often the items were drawn.
    judged : int
        Items that a draw is judged on, about.
    """

    points: list[Shots]
    draws: int
    judged: int

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "points": [point.to_dict() for point in self.points]}


def shot_curve(
    task: Task,
    view: View,
    labels: Labels,
    heads: Mapping[str, Callable[[], Head]],
    counts: Sequence[int],
    *,
    zero_shot: Head | None = None,
    same: Codes,
    judged: np.ndarray[Any, Any],
    seed: int = 0,
    draws: int = DRAWS,
    say: Callable[[str], None] = lambda message: None,
) -> ShotCurve:
    """Fit heads on few items a class, over and over, and judge them on others.

    Parameters
    ----------
    heads : mapping of name to maker
        `HEAD`, and what it is compared with.
    counts : sequence of int
    zero_shot : Head, optional
        What needs no items, to be judged beside the others.
    same : (n,)
        Items of one value, copies or a group, are never on both sides.
    judged : (n,) bool
        The items that may be judged on.

    Raises
    ------
    HeadError
        No class has two items, or no item may be judged on.
    """
    points, asked = [], 0
    for count in sorted(set(counts)):
        say(f"{count} shots")
        if count == 0 and zero_shot is None:
            continue
        if count == 0:  # there is nothing to draw
            _, test = _drawn(labels.truth, 0, same, judged, np.random.default_rng(seed))
            known = _hits(task, view, labels, {}, zero_shot, test[:0], test)
            asked = max(asked, len(test))
            over = Bootstrap.of(len(test), groups=None if view.groups is None else np.asarray(view.groups)[test], seed=seed)
            points.append(Shots(0, 0, {name: over.mean(values) for name, values in known.items()}, {}))
            continue
        found: dict[str, list[float]] = {}
        fitted: list[int] = []
        for draw in range(draws):
            rng = np.random.default_rng([seed, draw])
            fit, test = _drawn(labels.truth, count, same, judged, rng)
            fitted.append(len(fit))
            asked = max(asked, len(test))
            for name, hits in _hits(task, view, labels, heads, zero_shot, fit, test).items():
                found.setdefault(name, []).append(float(hits.mean()))
        bootstrap = Bootstrap.of(len(fitted), seed=seed)
        accuracy = {name: bootstrap.mean(np.array(values)) for name, values in found.items()}
        mine = np.array(found[HEAD])
        gain = {name: bootstrap.mean(mine - np.array(values)) for name, values in found.items() if name != HEAD}
        points.append(Shots(count, round(float(np.mean(fitted))), accuracy, gain))
    return ShotCurve(points, draws, asked)


def _drawn(
    truth: Codes, count: int, same: Codes, judged: np.ndarray[Any, Any], rng: np.random.Generator
) -> tuple[Codes, Codes]:
    """Items to fit on, `count` of each class, half of one that has not twice as many; and items to judge on."""
    order = rng.permutation(len(truth))
    chosen = []
    for code in np.unique(truth):
        of_class = order[truth[order] == code]
        chosen.append(of_class[: min(count, len(of_class) // 2)])
    fit = np.sort(np.concatenate(chosen))
    test = np.flatnonzero(judged & ~np.isin(same, same[fit]))
    if len(test) > MOST_JUDGED:
        test = np.sort(rng.permutation(test)[:MOST_JUDGED])
    if not len(test) or (count and len(set(truth[fit].tolist())) < 2):
        raise HeadError(f"There are too few items for {count} of each class, and others to judge on; leave shots out.")
    return fit, test


def _hits(
    task: Task,
    view: View,
    labels: Labels,
    heads: Mapping[str, Callable[[], Head]],
    zero_shot: Head | None,
    fit: Codes,
    test: Codes,
) -> dict[str, Float]:
    """What each head is worth on each item of `test` (t,)."""

    def of(items: Codes) -> tuple[dict[str, Any], dict[str, Any]]:
        return {n: view.inputs[n][items] for n in view.names}, {n: view.present[n][items] for n in view.names}

    X, present = of(test)
    found = {}
    if zero_shot is not None:
        begun = zero_shot.begin()  # type: ignore[attr-defined]
        found[ZERO_SHOT] = task.worth(labels.truth[test], task.outputs(begun, X, present, labels))
    for name, make in heads.items() if len(fit) else ():
        known, there = of(fit)
        head = make().fit(known, labels.values[fit], present=there)
        found[name] = task.worth(labels.truth[test], task.outputs(head, X, present, labels))
    return found


def shots_section(curve: ShotCurve) -> Section:
    """The curve as a table of the report."""
    names = list(dict.fromkeys(name for point in curve.points for name in point.accuracy))
    rows = [[f"{p.shots}", *(p.accuracy.get(name, "") for name in names), p.lead or ""] for p in curve.points]
    note = (
        f"Accuracy with so many items of each class to fit on: the mean over {curve.draws} draws of them, and its interval "
        "over the draws; the gain is over the best of the others, paired by draw."
    )
    return Section("Few shots", note, ["items a class", *names, "gain over the best other"], rows)
