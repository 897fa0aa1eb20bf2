"""What is known of an index: its type, what was measured, and what it cost to build."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from embedstore._core.typed import from_json
from embedstore.indexing.tune import Level


@dataclass(frozen=True)
class IndexReport:
    """What was built and measured.

    Parameters
    ----------
    type : str
        Such as ``"HNSW32,RaBitQ2"``; ``"flat"`` where search is exact.
    n, dim, at : int
        Vectors, numbers a vector, and the k of recall@k.
    target : float
    levels : list of Level
        Operating points; the one of `target` is what a search uses.
    why : str
        Why this type.
    qps, batch_qps : float
        Queries a second on the target's setting: one by one on one thread, and in a batch on `threads`.
    bytes_per_vector : float
        Of the index in memory, beside the stored vectors.
    exact_ms : float
        What exact search of one query takes, for comparison.
    """

    type: str
    n: int
    dim: int
    at: int
    target: float
    why: str
    levels: list[Level] = field(default_factory=list)
    qps: float = 0.0
    batch_qps: float = 0.0
    threads: int = 1
    bytes_per_vector: float = 0.0
    build_seconds: float = 0.0
    tune_seconds: float = 0.0
    exact_ms: float = 0.0
    notes: list[str] = field(default_factory=list)

    @property
    def exact(self) -> bool:
        return not self.levels

    def level(self, target: float | None = None) -> Level:
        """The operating point for `target` (default: the one tuned for), or the strongest there is below it."""
        wanted = self.target if target is None else target
        return next((level for level in self.levels if level.target >= wanted - 1e-9), self.levels[-1])

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "levels": [level.to_dict() for level in self.levels], "exact": self.exact}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> IndexReport:
        values = {key: value for key, value in data.items() if key != "exact"}
        report = from_json(cls, {**values, "levels": [Level.from_dict(level) for level in data["levels"]]})
        if not 0 < report.target <= 1 or min(report.n, report.dim, report.at) < 0 or report.at < 1:
            raise ValueError(f"an index of {report.n} vectors of {report.dim} numbers for {report.at} results")
        return report
