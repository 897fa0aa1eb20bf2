"""What an updated item keeps in a space that a run does not embed into."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

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
