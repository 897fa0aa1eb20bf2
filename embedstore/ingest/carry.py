"""What items keep of what a space has: in one that a run does not embed into, and of copies."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from embedstore._core.pieces import Pieces
from embedstore.ingest.claims import SpaceState
from embedstore.store.space import Failure, Space, failures_table
from embedstore.store.writer import NewVectors

Rows = npt.NDArray[np.int64]


def carried(space: Space, old_row: Rows, keep: npt.NDArray[np.bool_], row: Rows) -> NewVectors:
    """Vectors and failures of `space` under new rows.

    Parameters
    ----------
    old_row : (n,) int64
    keep : (n,) bool
        Items that have an old row and take along what it has.
    row : (n,) int64
        Their new rows.
    """
    at = np.flatnonzero(keep)
    has = at[space.has(old_row[at])]
    before = recorded_failures(space, np.where(keep, old_row, -1))
    failures = [failure._replace(row=int(row[i])) for i, failure in before.items()]
    pieces = None if space.pieces is None else space.pieces.of(old_row[has])
    return NewVectors(row[has], space.take(old_row[has]), space.hash_of(old_row[has]), failures_table(failures), pieces)


def recorded_failures(space: Space, rows: Rows) -> dict[int, Failure]:
    """Position in `rows` (n,) → failure, of those with a recorded one."""
    recorded = space.failures_by_row
    if not recorded:
        return {}
    return {i: recorded[row] for i, row in enumerate(rows.tolist()) if row in recorded}


def pieces_kept(state: SpaceState, claim: Rows, copy: Rows) -> Pieces | None:
    """The pieces of items, by their claim, or by the row that has them where the claim is -1; None in a space without."""
    if state.space.pieces is None:
        return None
    fresh, old = np.flatnonzero(claim >= 0), np.flatnonzero(claim < 0)
    both = Pieces.joined([state.take_pieces(claim[fresh]), state.space.pieces.of(copy[old])])
    return both.take(np.argsort(np.concatenate([fresh, old]), kind="stable"))


def recorded_hashes(spaces: Iterable[Space], rows: Rows) -> npt.NDArray[np.uint64]:
    """Content hash (n, 2) that one of `spaces` recorded for the payloads of `rows`; zeros where none did."""
    out = np.zeros((len(rows), 2), np.uint64)
    for space in spaces:
        unknown = np.flatnonzero(~out.any(axis=1))
        out[unknown] = space.hash_of(rows[unknown])
        known = recorded_failures(space, rows[unknown])
        for position, failure in known.items():
            if failure.hash:
                out[unknown[position]] = np.frombuffer(failure.hash, "<u8")
    return out
