"""`TargetScores`: how good a head for several targets is at one of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from embedstore.evaluation.metrics import Score, scores_to_dict

__all__ = ["TargetScores"]

Scores = dict[str, Score]


@dataclass(frozen=True)
class TargetScores:
    """How good a head for several targets is at one of them.

    Parameters
    ----------
    task : str
        What the target is: ``"classification"`` or ``"regression"``.
    items : int
        Judged ones that have the target.
    classes : int
    metrics : Scores
    baselines : dict of baseline to Scores
        ``"alone"`` is the head that the target would have alone; it is not there where the head shares nothing between targets.
    change : Scores
        How much metrics are above those of that head, paired by item.
    """

    task: str
    items: int
    classes: int
    metrics: Scores
    baselines: dict[str, Scores]
    change: Scores

    def to_dict(self) -> dict[str, Any]:
        scores = {"metrics": scores_to_dict(self.metrics), "change": scores_to_dict(self.change)}
        return {**vars(self), **scores, "baselines": {name: scores_to_dict(found) for name, found in self.baselines.items()}}
