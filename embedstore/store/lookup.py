"""A few items by row, over and over: row groups of Parquet columns, decoded once and kept up to a number of bytes."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from embedstore._core.column_values import as_stored
from embedstore.errors import StoreError
from embedstore.store.format import PartRef
from embedstore.store.part_files import PartFiles
from embedstore.store.parts import group_edges, read_table, row_numbers

if TYPE_CHECKING:
    import pyarrow as pa

Rows = npt.NDArray[np.int64]
Key = tuple[int, int, str]
Column: TypeAlias = "pa.Array | pa.ChunkedArray | None"

ROW, ID = "row", "id"
MANY = 32
"""More values of a column are taken at once; for fewer, Arrow's compute functions are not worth their import."""
KEPT_BYTES = 256 << 20
"""Of decoded columns; what was asked for longest ago goes first."""
EXPANDED = 4
"""So many times its bytes a Parquet file may have when it is decoded; what has more is noticed on the way."""


class Lookup:
    """Values of single items; threads may share it.

    A row group is decoded by one thread at a time: one that wants the same group waits for it and finds it decoded, others go
    on.

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
        self._first_rows = [part.first_row for part in parts]
        self._edges: dict[int, list[int]] = {}
        self._rows: dict[int, Rows | None] = {}
        self._kept: OrderedDict[Key, Column] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        """Of what is kept; held for no longer than a dictionary takes."""
        self._decoding: dict[tuple[int, int], threading.Lock] = {}
        """Of each row group that was ever decoded."""

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs; it reads for itself."""
        return {"_files": self._files, "_parts": self._parts, "_limit": self._limit}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["_files"], state["_parts"], state["_limit"])  # type: ignore[misc]

    def values(self, rows: Rows, columns: Sequence[str]) -> list[list[Any]]:
        """For each of `columns` its values at `rows` (n,), in any order; None where a part has no such column.

        Raises
        ------
        StoreError
            A row that is not in the store.
        """
        import pyarrow as pa

        found: list[list[Any]] = [[None] * len(rows) for _ in columns]
        wanted: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for place, row in enumerate(rows.tolist()):  # a few: NumPy's calls would cost more than they do
            part, group, at = self._located(row)
            wanted.setdefault((part, group), []).append((place, at))
        for (part, group), places in wanted.items():
            for values, column in zip(found, self._columns(part, group, columns), strict=True):
                if column is not None:
                    offsets = [at for _, at in places]
                    several = column.take(pa.array(offsets)).to_pylist() if len(offsets) > MANY else None
                    for i, (place, at) in enumerate(places):
                        values[place] = column[at].as_py() if several is None else several[i]
        return found

    def read_ahead(self, columns: Sequence[str]) -> None:
        """Decode columns of every item, if all that there is has room in what is kept, so that nobody who asks waits for it."""
        if sum(part.bytes for part in self._parts) > self._limit // EXPANDED:
            return
        for part in range(len(self._parts)):
            for group in range(len(self._edges_of(part)) - 1):
                if self._bytes > self._limit // 2:
                    return
                self._columns(part, group, columns)

    def ids(self) -> Iterator[tuple[Rows, list[str]]]:
        """Rows (n,) and ids of every row group, removed items included; what is decoded for it is not kept."""
        for part in range(len(self._parts)):
            edges = self._edges_of(part)
            rows = self._rows_of(part)
            rows = np.arange(edges[-1]) + self._parts[part].first_row if rows is None else rows
            for group, (lo, hi) in enumerate(pairwise(edges)):
                kept = self._kept_columns(part, group, [ID]) or self._read(part, group, [ID])
                yield rows[lo:hi], kept[ID].to_pylist()  # type: ignore[union-attr]

    def _located(self, row: int) -> tuple[int, int, int]:
        """Part, row group and place in it of a row."""
        part = bisect_right(self._first_rows, row) - 1
        if part >= 0:
            every, edges = self._rows_of(part), self._edges_of(part)
            at = row - self._parts[part].first_row if every is None else int(np.searchsorted(every, row))
            if at < edges[-1] and (every is None or every[at] == row):
                group = bisect_right(edges, at) - 1
                return part, group, at - edges[group]
        raise StoreError(f"Row {row} is not in the store.")

    def _edges_of(self, part: int) -> list[int]:
        """Offsets of the part's row groups, and its length."""
        if part not in self._edges:
            self._edges[part] = group_edges(self._files, self._parts[part]).tolist()
        return self._edges[part]

    def _rows_of(self, part: int) -> Rows | None:
        """The rows (n,) of a part; None where none is left out after its first one, which is how parts are written."""
        if part not in self._rows:
            ref = self._parts[part]
            rows = row_numbers(read_table(self._files, ref, "embedstore-items", [ROW]))
            dense = len(rows) == 0 or (rows[0] == ref.first_row and rows[-1] == ref.first_row + len(rows) - 1)
            self._rows[part] = None if dense else rows
        return self._rows[part]

    def _columns(self, part: int, group: int, names: Sequence[str]) -> list[Column]:
        """Columns of one row group; None for those that the part lacks."""
        found = self._kept_columns(part, group, names)
        if len(found) < len(names):
            with self._lock:
                decoding = self._decoding.setdefault((part, group), threading.Lock())
            with decoding:
                found |= self._kept_columns(part, group, [name for name in names if name not in found])  # by another thread
                if missing := [name for name in names if name not in found]:
                    read = self._read(part, group, missing)
                    self._keep(part, group, read)
                    found |= read
        return [found[name] for name in names]

    def _kept_columns(self, part: int, group: int, names: Sequence[str]) -> dict[str, Column]:
        """Those of the columns of one row group that are kept."""
        with self._lock:
            found = {name: self._kept[part, group, name] for name in names if (part, group, name) in self._kept}
            for name in found:
                self._kept.move_to_end((part, group, name))
            return found

    def _keep(self, part: int, group: int, read: Mapping[str, Column]) -> None:
        """Columns that were not kept; the ones that were asked for longest ago make room."""
        with self._lock:
            for name, column in read.items():
                self._kept[part, group, name] = column
                self._bytes += 0 if column is None else column.nbytes
            while self._bytes > self._limit:
                _, dropped = self._kept.popitem(last=False)
                self._bytes -= 0 if dropped is None else dropped.nbytes

    def _read(self, part: int, group: int, names: list[str]) -> dict[str, Column]:
        table = as_stored(read_table(self._files, self._parts[part], "embedstore-items", names, group=group))
        return {name: _one(table.column(name)) if name in table.column_names else None for name in names}


def _one(column: pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """The one array that a chunked one mostly is: its values are found sooner."""
    return column.chunk(0) if column.num_chunks == 1 else column
