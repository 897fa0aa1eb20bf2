"""A few items by row, over and over: row groups of Parquet columns, decoded once and kept up to a number of bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from embedstore._core.column_values import as_stored
from embedstore._core.distinct import distinct
from embedstore.errors import StoreError
from embedstore.store.format import PartRef
from embedstore.store.part_files import PartFiles
from embedstore.store.parts import group_edges, read_table, row_numbers

if TYPE_CHECKING:
    import pyarrow as pa

Rows = npt.NDArray[np.int64]
Key = tuple[int, int, str]

ROW, ID = "row", "id"
KEPT_BYTES = 256 << 20
"""Of decoded columns; what was asked for longest ago goes first."""


class Lookup:
    """Values of single items; threads may share it.

    Parameters
    ----------
    files : PartFiles
    parts : sequence of PartRef
        Of items, by ascending `first_row`.
    limit : int
        Bytes of decoded columns that are kept.
    """

    def __init__(self, files: PartFiles, parts: Sequence[PartRef], limit: int = KEPT_BYTES) -> None:
        self._files = files
        self._parts = parts
        self._limit = limit
        self._first_rows = np.asarray([part.first_row for part in parts], np.int64)
        self._edges: dict[int, Rows] = {}
        self._rows: dict[int, Rows | None] = {}
        self._kept: OrderedDict[Key, pa.Array | pa.ChunkedArray | None] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def values(self, rows: Rows, columns: Sequence[str]) -> list[list[Any]]:
        """For each of `columns` its values at `rows` (n,), in any order; None where a part has no such column.

        Raises
        ------
        StoreError
            A row that is not in the store.
        """
        found: list[list[Any]] = [[None] * len(rows) for _ in columns]
        part_of = np.searchsorted(self._first_rows, rows, side="right") - 1
        for part in distinct(part_of).tolist():
            places = np.flatnonzero(part_of == part)
            offsets = self._offsets(part, rows[places])
            edges = self._edges_of(part)
            group_of = np.searchsorted(edges, offsets, side="right") - 1
            for group in distinct(group_of).tolist():
                mine = group_of == group
                at, to = (offsets[mine] - edges[group]).tolist(), places[mine].tolist()
                for values, column in zip(found, self._columns(part, group, columns), strict=True):
                    if column is not None:
                        for i, place in zip(at, to, strict=True):
                            values[place] = column[i].as_py()
        return found

    def ids(self) -> Iterator[tuple[Rows, list[str]]]:
        """Rows (n,) and ids of every row group, removed items included."""
        for part in range(len(self._parts)):
            edges = self._edges_of(part)
            rows = self._rows_of(part)
            rows = np.arange(edges[-1]) + self._parts[part].first_row if rows is None else rows
            for group, (lo, hi) in enumerate(pairwise(edges)):
                (names,) = self._columns(part, group, [ID])
                yield rows[lo:hi], names.to_pylist()  # type: ignore[union-attr]

    def _offsets(self, part: int, rows: Rows) -> Rows:
        """Where `rows` are in a part."""
        every = self._rows_of(part) if part >= 0 else np.empty(0, np.int64)
        if every is None:
            offsets = rows - self._parts[part].first_row
            inside = offsets < self._edges_of(part)[-1]
        else:
            offsets = np.searchsorted(every, rows)
            inside = offsets < len(every)
            inside[inside] = every[offsets[inside]] == rows[inside]
        if not inside.all():
            raise StoreError(f"Row {rows[~inside][0]} is not in the store.")
        return offsets

    def _edges_of(self, part: int) -> Rows:
        """Offsets (g + 1,) of the part's row groups, and its length."""
        if part not in self._edges:
            self._edges[part] = group_edges(self._files, self._parts[part])
        return self._edges[part]

    def _rows_of(self, part: int) -> Rows | None:
        """The rows (n,) of a part; None where none is left out after its first one, which is how parts are written."""
        if part not in self._rows:
            ref = self._parts[part]
            rows = row_numbers(read_table(self._files, ref, "embedstore-items", [ROW]))
            dense = len(rows) == 0 or (rows[0] == ref.first_row and rows[-1] == ref.first_row + len(rows) - 1)
            self._rows[part] = None if dense else rows
        return self._rows[part]

    def _columns(self, part: int, group: int, names: Sequence[str]) -> list[pa.Array | pa.ChunkedArray | None]:
        """Columns of one row group; None for those that the part lacks."""
        with self._lock:
            keys = [(part, group, name) for name in names]
            missing = [key[2] for key in keys if key not in self._kept]
            read = self._read(part, group, missing) if missing else {}
            columns = [read[key[2]] if key[2] in read else self._kept[key] for key in keys]
            for key in keys:
                if key[2] not in read:
                    self._kept.move_to_end(key)
            for name, column in read.items():
                self._kept[part, group, name] = column
                self._bytes += 0 if column is None else column.nbytes
            while self._bytes > self._limit:
                _, dropped = self._kept.popitem(last=False)
                self._bytes -= 0 if dropped is None else dropped.nbytes
            return columns

    def _read(self, part: int, group: int, names: list[str]) -> dict[str, pa.Array | pa.ChunkedArray | None]:
        table = as_stored(read_table(self._files, self._parts[part], "embedstore-items", names, group=group))
        return {name: _one(table.column(name)) if name in table.column_names else None for name in names}


def _one(column: pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """The one array that a chunked one mostly is: its values are found sooner."""
    return column.chunk(0) if column.num_chunks == 1 else column
