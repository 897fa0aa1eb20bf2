"""What a run did: counts that add up, seconds, and what it was bound by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from embedstore.ingest.stages import STAGES

WORTH_ADVICE = 10.0
"""Seconds."""
ADVICE = {
    "read": "more --workers, or a faster disk or network, would help",
    "compare": "a source of no more than what is new or changed would help",
    "decode": "more --workers would help, up to one a CPU",
    "encode": "a GPU (--device cuda) or a smaller model would help",
    "write": "a faster disk under the store would help",
}


@dataclass
class SpaceReport:
    """Counts of one space; embedded + unchanged + missing + failed = items of the source.

    Parameters
    ----------
    embedded : int
        Items that got a vector in this run.
    distinct : int
        Payloads that went through the encoder for them; identical ones go once.
    unchanged : int
        Items that had their vector already.
    missing : int
        Items without a payload.
    failed : int
        Items whose payload could not be embedded, in this run or before.
    kept : int
        Those of them that keep the vector that they had, because their file could not be read this time.
    truncated : int
        Texts cut to the encoder's maximum length in this run.
    cut : mapping, optional
        Of vectors that were cut: ``of`` and ``kept`` numbers, and of ``sample`` vectors of this run the share of the ten
        nearest neighbours that the shortened ones still find, ``recall_at_10`` with ``value``, ``low`` and ``high`` (null: too
        few).
    """

    encoder: str
    embedded: int = 0
    distinct: int = 0
    unchanged: int = 0
    missing: int = 0
    failed: int = 0
    kept: int = 0
    truncated: int = 0
    cut: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "cut" or value is not None}


def kept_note(space: str, kept: int) -> list[str]:
    """A sentence about failures that cost no vector, which ``info --failures`` does not list; none where there are none."""
    if not kept:
        return []
    return [f"{kept:,} of the failures in space {space!r} keep the vector that they had; info --failures does not list them."]


@dataclass
class EmbedReport:
    """What `embed` returns.

    Parameters
    ----------
    items : int
        Items in the source.
    added, updated : int
        Items that are new in the store, and that replaced an older version of themselves.
    absent, removed : int
        Items that the store held before and the source does not have: those that stay, and those that were pruned.
    spaces : mapping of space name to SpaceReport
    seconds : float
    shares : mapping of stage to float
        Fraction of the time that each stage was busy: ``read``, ``compare`` (with what the store holds), ``decode``,
        ``encode`` and ``write``.
    failures : list of (space, id, stage, reason)
        The first few: of this run, and known ones of payloads that have not changed.
    types : mapping of metadata column to type
        In the words of `embedstore._core.column_types.WORDS`, where there is one.
    notes : list of str
        What was left out or renamed, for people.
    """

    items: int = 0
    added: int = 0
    updated: int = 0
    absent: int = 0
    removed: int = 0
    spaces: dict[str, SpaceReport] = field(default_factory=dict)
    seconds: float = 0.0
    shares: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    failures: list[tuple[str, str, str, str]] = field(default_factory=list)
    types: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def items_per_s(self) -> float:
        return self.items / self.seconds if self.seconds else 0.0

    @property
    def bound_by(self) -> str:
        """The stage that was busy for the largest share of the time; ``"start-up"`` where none was for a tenth of it."""
        busiest = max(STAGES, key=lambda stage: self.shares[stage])
        return busiest if self.shares[busiest] >= 0.1 else "start-up"

    @property
    def advice(self) -> str:
        """What would make such a run faster; nothing where it was fast enough."""
        return "" if self.seconds < WORTH_ADVICE else ADVICE.get(self.bound_by, "")

    def to_dict(self) -> dict[str, Any]:
        """The document of ``embedstore embed --json``."""
        timing = {
            "seconds": round(self.seconds, 3),
            "items_per_s": round(self.items_per_s, 1),
            "bound_by": self.bound_by,
            "shares": {stage: round(share, 3) for stage, share in self.shares.items()},
        }
        return {
            "items": self.items,
            "added": self.added,
            "updated": self.updated,
            "absent": self.absent,
            "removed": self.removed,
            "columns": dict(self.types),
            "notes": list(self.notes),
            "spaces": {name: {**space.to_dict(), **timing} for name, space in self.spaces.items()},
        }


@dataclass(frozen=True)
class Progress:
    """Where a run is: `done` of `total` items (None where unknown), `encoded` payloads so far."""

    done: int
    total: int | None
    encoded: int


ProgressCallback = Callable[[Progress], None]
