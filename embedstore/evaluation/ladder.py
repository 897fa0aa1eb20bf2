"""A rung of the ladder that leads to a head: what was tried, what it was worth, whether it was kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from embedstore._core.typed import from_json
from embedstore.evaluation.bootstrap import Score

__all__ = ["Step"]


@dataclass(frozen=True)
class Step:
    """One thing that was tried on the way to a head.

    Parameters
    ----------
    name : str
    score : Score
        Out-of-fold accuracy.
    gain : Score or None
        Over the rung held when it was tried, paired by item; None for the first ones.
    seconds : float
    kept : bool
    note : str
        One line: why it was not tried to the end.
    """

    name: str
    score: Score
    gain: Score | None
    seconds: float
    kept: bool
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        gain = None if self.gain is None else self.gain.to_dict()
        return {**vars(self), "score": self.score.to_dict(), "gain": gain}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Step:
        gain = None if data["gain"] is None else Score.from_dict(data["gain"])
        return from_json(cls, {**data, "score": Score.from_dict(data["score"]), "gain": gain})
