"""What tuning tried and found: parameters, their scores inside the training split, the best so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Tried", "Tuned", "best_of"]


@dataclass(frozen=True)
class Tried:
    """One trial.

    Parameters
    ----------
    number : int
        0 is the head as it comes.
    params : mapping of parameter to value
        Empty where the head chooses them itself.
    value : float or None
        Its score; None where no head could be fitted with these parameters, or where its score is no finite number.
    best : float or None
        The best score so far; None where there is none yet.
    seconds : float
    """

    number: int
    params: Mapping[str, Any]
    value: float | None
    best: float | None
    seconds: float


def best_of(trials: Sequence[Tried]) -> Tried:
    """The first trial with the highest score."""
    return max(trials, key=lambda trial: float("-inf") if trial.value is None else trial.value)


@dataclass(frozen=True)
class Tuned:
    """All trials of a study.

    Parameters
    ----------
    part : str
        The items that were tuned on, in a word.
    by : str
        How parameters were proposed.
    asked : int
        How many trials there were to be; a grid may have fewer points.
    trials : sequence of Tried
    settings : mapping
        What the constructor of the best head takes; empty where that is the head as it comes.
    before : int
        How many of them an earlier run had made.
    note : str
        Why an earlier study was not gone on with; empty where there was none, or where it was.
    """

    part: str
    by: str
    asked: int
    trials: Sequence[Tried]
    settings: Mapping[str, Any]
    before: int = 0
    note: str = ""

    @property
    def best(self) -> Tried:
        """The first trial with the highest score."""
        return best_of(self.trials)

    @property
    def seconds(self) -> float:
        """All trials together."""
        return sum(trial.seconds for trial in self.trials)

    @property
    def notes(self) -> list[str]:
        """What people should know of how the study went."""
        failed, where = sum(trial.value is None for trial in self.trials), f"tuning on {self.part}"
        return [
            *([f"{where}: {self.note}"] if self.note else []),
            *([f"{where} went on after {self.before} trials of an earlier run"] if self.before else []),
            *([f"{where}: no head could be fitted, or scored, with the parameters of {failed} trials"] if failed else []),
            *([f"{where}: the grid has {len(self.trials)} points, all of which were tried"] if self._fewer else []),
        ]

    @property
    def _fewer(self) -> bool:
        return len(self.trials) < self.asked

    def to_dict(self) -> dict[str, Any]:
        return {
            "part": self.part,
            "by": self.by,
            "trials": len(self.trials),
            "before": self.before,
            "best": self.best.number,
            "params": dict(self.best.params),
            "value": self.best.value,
            "default_value": self.trials[0].value,
            "seconds": round(self.seconds, 3),
            "history": [
                {**vars(trial), "params": dict(trial.params), "seconds": round(trial.seconds, 3)} for trial in self.trials
            ],
        }
