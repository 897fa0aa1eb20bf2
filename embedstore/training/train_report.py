"""What `train` returns, and the document of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from embedstore.evaluation.ladder import Step
from embedstore.evaluation.metrics import Score, scores_to_dict
from embedstore.evaluation.target_scores import TargetScores
from embedstore.training.certainty import Certainty
from embedstore.training.shots import ShotCurve
from embedstore.training.tasks.base import Scores

__all__ = ["TrainReport"]


@dataclass(frozen=True)
class TrainReport:
    """What `train` returns.

    Parameters
    ----------
    head : str
        The name under which it is saved.
    metrics : mapping of metric to Score
        On items that took no part in fitting or choosing anything.
    baselines : mapping of baseline to metrics
        The majority class, a plain kNN, and a linear head on each input alone.
    gain : (str, Score)
        The best baseline, and the paired gain in accuracy (for numbers: in mean absolute error) over it.
    evaluation : str
        What the scores were measured on.
    learned : mapping
        What the head chose: its penalty, the weights of modalities or members.
    ladder : list of Step
        How ``auto`` came to its choice.
    seeds : list of float
        The first metric with each seed, of a head that depends on one.
    copies : mapping
        How many test items have an exact copy, or a near one, among the training items.
    without_copies : Score or None
        Accuracy over the test items that have none.
    seconds : float
        Fitting and judging, baselines included, the report not.
    fit_seconds : float
        The head alone, once.
    report : str
        The HTML file, if one was written.
    out_of_fold : mapping
        How many items have a prediction of a model that did not see them (``items``), by how many folds, and what that cost in
        seconds beside the rest; empty where none are kept. See `embedstore.out_of_fold`.
    certainty : Certainty, optional
        How often sets or intervals hold the truth on the test items, where a coverage was asked for.
    separator : str or None
        What stood between labels in a target of text.
    least_items : int
        Labels of fewer items were left out.
    balance : mapping or None
        How rare classes were helped, and what that changed of accuracy, balanced accuracy, macro F1 and the recall of each
        class: without, with, and the paired change.
    targets : mapping of target to TargetScores
        The scores of each of several targets, beside those of the head that it would have alone.
    weights : sequence of float or None
        What each target's loss counted.
    tuning : mapping or None
        The trials of other parameters, the best of them, and what they gained over the head as it comes on the test items.
    shots : ShotCurve, optional
        How good the head and others are with few items a class, where it was asked.
    """

    head: str
    task: str
    kind: str
    target: str
    inputs: list[str]
    classes: int
    items: dict[str, int]
    metrics: Scores
    baselines: dict[str, Scores]
    gain: tuple[str, Score]
    evaluation: str
    learned: dict[str, Any]
    seconds: float
    fit_seconds: float
    ladder: list[Step] = field(default_factory=list)
    seeds: list[float] = field(default_factory=list)
    copies: Mapping[str, Any] = field(default_factory=dict)
    without_copies: Score | None = None
    notes: list[str] = field(default_factory=list)
    report: str = ""
    out_of_fold: dict[str, Any] = field(default_factory=dict)
    certainty: Certainty | None = None
    separator: str | None = None
    least_items: int = 1
    balance: Mapping[str, Any] | None = None
    targets: Mapping[str, TargetScores] = field(default_factory=dict)
    weights: Sequence[float] | None = None
    tuning: Mapping[str, Any] | None = None
    shots: ShotCurve | None = None

    def to_dict(self) -> dict[str, Any]:
        """The document of ``embedstore train --json``."""
        certainty = {} if self.certainty is None else {"certainty": self.certainty.to_dict()}
        targets = {"targets": {name: found.to_dict() for name, found in self.targets.items()}, "weights": self.weights}
        shots = {} if self.shots is None else {"shots": self.shots.to_dict()}
        return {
            **{name: value for name, value in vars(self).items() if name not in ("certainty", "shots", *targets)},
            **certainty,
            **shots,
            **(targets if self.targets else {}),
            "metrics": scores_to_dict(self.metrics),
            "baselines": {name: scores_to_dict(scores) for name, scores in self.baselines.items()},
            "gain": {"over": self.gain[0], **self.gain[1].to_dict()},
            "ladder": [step.to_dict() for step in self.ladder],
            "without_copies": None if self.without_copies is None else self.without_copies.to_dict(),
        }
