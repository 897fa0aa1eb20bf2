"""What `find_duplicates` returns: clusters of copies around the item that is kept, as CSV or JSON."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedstore._core.atomic_files import write_bytes
from embedstore._core.result_files import write_tables, writing
from embedstore.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

FORMATS = (".csv", ".json")


@dataclass(frozen=True)
class Duplicate:
    """An item that could go.

    Parameters
    ----------
    id : str
    score : float
        Cosine to the representative, to five decimals; 1 for an exact copy.
    kind : str
        ``"exact"``: the payload is the representative's, byte for byte. ``"near"``: another payload with nearly the same
        pixels, frames or spectra or, where these were not compared, nearly the same vector.
    difference : float, optional
        Of the thumbnails, in units of their contrast: 0 for the same, at most 0.15 for a copy. Of sounds the share of the bits
        that differ, at most 0.35. None for an exact copy, and where vectors were compared.
    """

    id: str
    score: float
    kind: str
    difference: float | None = None


@dataclass(frozen=True)
class DuplicateCluster:
    """An item to keep, and its duplicates from the most to the least similar."""

    representative: str
    members: list[Duplicate]


@dataclass(frozen=True)
class DuplicateReport:
    """What `find_duplicates` returns.

    Parameters
    ----------
    store : Path
    generation : int
        Of the store, when it was searched.
    spaces : list of str
    threshold : float or None
        Cosine of near copies where vectors were compared. None where exact copies alone were looked for.
    items : int
        How many were compared: those with a vector in every one of `spaces` that match the filter.
    clusters : list of DuplicateCluster
        The largest first.
    approximate : bool
        Whether near copies may have been overlooked; `notes` says why.
    pixels : int or None
        How many distinct pictures, films or sounds were compared by themselves. None where that was not wanted.
    by : str or None
        What of them was compared: pixels, frames or spectra.
    """

    store: Path
    generation: int
    spaces: list[str]
    threshold: float | None
    items: int
    clusters: list[DuplicateCluster]
    approximate: bool = False
    pixels: int | None = None
    by: str | None = None
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    @property
    def ids(self) -> list[str]:
        """Items that `remove_duplicates` removes: every member, no representative."""
        return [member.id for cluster in self.clusters for member in cluster.members]

    @property
    def counts(self) -> dict[str, int]:
        """How many duplicates are ``exact`` and ``near``."""
        found = Counter(member.kind for cluster in self.clusters for member in cluster.members)
        return {"exact": found["exact"], "near": found["near"]}

    def to_dict(self) -> dict[str, Any]:
        """The document of ``embedstore dedup --json``."""
        return {
            "items": self.items,
            "spaces": self.spaces,
            "threshold": self.threshold,
            "pixels": self.pixels,
            "by": self.by,
            **self.counts,
            "clusters": [
                {
                    "representative": c.representative,
                    "members": [asdict(m) for m in c.members],
                }
                for c in self.clusters
            ],
            "approximate": self.approximate,
            "seconds": round(self.seconds, 3),
            "generation": self.generation,
            "notes": self.notes,
        }

    def save(self, path: str | Path) -> Path:
        """Write every duplicate to a ``.csv``, or the document of `to_dict` to a ``.json``.

        Columns of the ``.csv``, one row a duplicate: cluster (from 1), representative, id, score, kind, difference.

        Raises
        ------
        UsageError
            Another ending, or no such folder.
        OutputError
            The file cannot be written.
        """
        path = check_output(path)
        if path.suffix.lower() == ".csv":
            table = self._table()
            write_tables(path, table.schema, [table])
        else:
            with writing(path):
                write_bytes(path, (json.dumps(self.to_dict(), ensure_ascii=False, indent=1) + "\n").encode())
        return path

    def _table(self) -> pa.Table:
        import pyarrow as pa

        rows = [(n, c.representative, m) for n, c in enumerate(self.clusters, start=1) for m in c.members]
        return pa.table(
            {
                "cluster": pa.array([number for number, _, _ in rows], pa.int64()),
                "representative": pa.array([kept for _, kept, _ in rows], pa.string()),
                "id": pa.array([m.id for _, _, m in rows], pa.string()),
                "score": pa.array([m.score for _, _, m in rows], pa.float64()),
                "kind": pa.array([m.kind for _, _, m in rows], pa.string()),
                "difference": pa.array([m.difference for _, _, m in rows], pa.float64()),
            }
        )


def check_output(path: str | Path) -> Path:
    """`path` if a report can be saved there by its name; `UsageError` otherwise."""
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"{path} should end in one of {', '.join(FORMATS)}.")
    if not path.parent.is_dir():
        raise UsageError(f"{path} cannot be written: there is no folder {path.parent}.")
    return path
