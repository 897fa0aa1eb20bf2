"""What an export did, and what its closing check found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from embedstore.evaluation.bootstrap import Score
from embedstore.exporting.base import Changes


@dataclass(frozen=True)
class SpaceCounts:
    """Vectors of one space in the target, under the name `column`."""

    column: str
    vectors: int
    missing: int
    dim: int
    dtype: str
    fingerprint: str
    encoder: str


@dataclass(frozen=True)
class Recall:
    """Recall@k of the target against exact search here, with its interval.

    Parameters
    ----------
    exact : Score or None
        With the target's exact settings; None where it has none.
    default : Score or None
        As the target searches where nothing is said.
    """

    k: int
    queries: int
    exact: Score | None
    default: Score | None

    def to_dict(self) -> dict[str, Any]:
        scores = {name: getattr(self, name) for name in ("exact", "default")}
        return {"k": self.k, "queries": self.queries, **{name: s and s.to_dict() for name, s in scores.items()}}


@dataclass(frozen=True)
class Check:
    """What was compared: all counts, a sample of items in full, and searches.

    Parameters
    ----------
    items : int
        In the target, as it counts them.
    sampled : int
        Items read back and compared, all of them equal.
    equality : str
        Of their vectors: ``"bits"``, or ``"rounding"`` where the engine scales vectors to unit length.
    recall : mapping of space to Recall
    """

    items: int
    sampled: int
    equality: str
    recall: Mapping[str, Recall]

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "recall": {name: recall.to_dict() for name, recall in self.recall.items()}}


@dataclass(frozen=True)
class ExportReport:
    """What `export` returns.

    Parameters
    ----------
    out, name : str
        The target, and its table or collection.
    items : int
        Wanted in the target, and there.
    changes : Changes
        Items written, unchanged and removed by this run.
    seconds, check_seconds : float
        Of the export, and of the closing check.
    """

    to: str
    out: str
    name: str
    items: int
    changes: Changes
    spaces: Mapping[str, SpaceCounts]
    check: Check
    seconds: float
    check_seconds: float
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The document of ``embedstore export --json``."""
        return {
            "to": self.to,
            "out": self.out,
            "name": self.name,
            "items": self.items,
            **asdict(self.changes),
            "spaces": {name: asdict(counts) for name, counts in self.spaces.items()},
            "check": self.check.to_dict(),
            "seconds": round(self.seconds, 3),
            "check_seconds": round(self.check_seconds, 3),
            "items_per_s": round(self.items / self.seconds, 1) if self.seconds else None,
            "notes": self.notes,
        }
