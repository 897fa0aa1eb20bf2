"""The items of a store: Parquet parts joined into tables, looked up by row, filtered by SQL.

Columns: ``row`` (int64), ``id`` (string), for each modality ``M`` its payload ``M`` (a text, or the uri of a file) and for
files ``M.size`` and ``M.mtime_ns`` as last seen; every other column is the user's metadata.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from embedstore._core.arguments import strings
from embedstore._core.column_types import stored_type, word_of
from embedstore._core.column_values import as_stored
from embedstore._core.distinct import distinct
from embedstore._core.keys import KeyTable, hash_strings
from embedstore._core.sql import FILTER_BYTES, bounded, connect, literal, within
from embedstore.errors import CorruptStoreError, StoreError, UsageError, one_line
from embedstore.sources.base import RESERVED, glob_escape
from embedstore.spec import MODALITIES
from embedstore.store.access import WHERE_TIMEOUT
from embedstore.store.format import PartRef
from embedstore.store.lookup import Lookup
from embedstore.store.part_files import PartFiles
from embedstore.store.parts import read_table, row_numbers

if TYPE_CHECKING:
    import pyarrow as pa

Rows = npt.NDArray[np.int64]

ROW, ID = "row", "id"
SIZE, MTIME = ".size", ".mtime_ns"
FEW = 32
SCANS = 3
"""So many times a few ids are looked for among all; who asks more often is worth a table of them."""
SEE_VERIFY = "'embedstore verify' shows the whole damage."


class Items:
    """Read access to the items of one generation."""

    def __init__(self, files: PartFiles, parts: Sequence[PartRef], dead: Rows) -> None:
        self._files = files
        self._parts = list(parts)
        self._dead = dead
        self._cache: OrderedDict[int, pa.Table] = OrderedDict()
        self._scans = 0

    @cached_property
    def rows(self) -> Rows:
        """Live rows (n,) int64, ascending."""
        if not self._parts:
            return np.empty(0, dtype=np.int64)
        every = np.concatenate([row_numbers(self._part(i, [ROW])) for i in range(len(self._parts))])
        if not (every[1:] > every[:-1]).all():
            at = int(np.argmax(every[1:] <= every[:-1]))
            raise CorruptStoreError(f"{self.root}: row {every[at]} is followed by row {every[at + 1]}.", SEE_VERIFY)
        return np.setdiff1d(every, self._dead, assume_unique=True)

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def _first_rows(self) -> Rows:
        return np.asarray([part.first_row for part in self._parts], dtype=np.int64)

    @property
    def root(self) -> Path:
        """The store's folder."""
        return self._files.root

    @cached_property
    def id_table(self) -> KeyTable:
        """Key of every live id → row."""
        table = KeyTable(self.root)
        for i in range(len(self._parts)):
            part = self._part(i, [ROW, ID])
            rows = row_numbers(part)
            live = np.isin(rows, self._dead, invert=True)
            keys = hash_strings(part.column(ID).to_pylist())
            table.insert(keys[live], rows[live])
        return table

    @cached_property
    def lookup(self) -> Lookup:
        """For a few items, over and over."""
        return Lookup(self._files, self._parts)

    def longest_id(self) -> int:
        """Bytes in UTF-8 of the longest id of a live item; at least 1."""
        import pyarrow as pa
        import pyarrow.compute as pc

        longest = 1
        for i in range(len(self._parts)):
            part = self._part(i, [ROW, ID])
            lengths = pc.binary_length(part.column(ID))
            if len(self._dead):
                lengths = lengths.filter(pa.array(np.isin(row_numbers(part), self._dead, invert=True)))
            longest = max(longest, pc.max(lengths).as_py() or 0)
        return longest

    def rows_of(self, ids: Sequence[str]) -> Rows:
        """Rows (n,) of `ids`; `UsageError` names the first one that is not there."""
        ids = strings(ids, "ids")
        rows = self.known_rows(ids)
        if len(missing := np.flatnonzero(rows < 0)):
            raise UsageError(f"No item has the id {ids[missing[0]]!r}. 'embedstore info' shows what the store holds.")
        return rows

    def known_rows(self, ids: Sequence[str]) -> Rows:
        """Rows (n,) of `ids`; -1 for those that are not there."""
        if len(ids) <= FEW and "id_table" not in vars(self) and self._scans < SCANS:
            self._scans += 1
            return self._few_rows(ids)
        return self.id_table.lookup(hash_strings(ids))

    def _few_rows(self, ids: Sequence[str]) -> Rows:
        """Rows of a few ids without a table of all; -1 where an id is not there."""
        found = dict.fromkeys(ids, -1)
        for rows, names in self.lookup.ids():
            if not found.keys().isdisjoint(names):
                live = np.isin(rows, self._dead, invert=True)
                found.update((name, int(rows[at])) for at, name in enumerate(names) if name in found and live[at])
        return np.asarray([found[name] for name in ids], np.int64)

    def column_types(self) -> dict[str, pa.DataType]:
        """Name → Arrow type of every column, in order of first appearance."""
        return self._types

    @cached_property
    def _types(self) -> dict[str, pa.DataType]:
        import pyarrow.parquet as pq

        types: dict[str, pa.DataType] = {}
        for part in self._parts:
            for column in pq.read_schema(self._files.whole(part)):
                types.setdefault(column.name, stored_type(column.type))
        return types

    def metadata_columns(self) -> list[str]:
        return list(self._metadata)

    @cached_property
    def _metadata(self) -> list[str]:
        return [name for name in self.column_types() if name not in RESERVED]

    def column_words(self) -> dict[str, str]:
        """Metadata column → its type for people, such as ``"text"``."""
        return {name: word_of(self._types[name]) for name in self.metadata_columns()}

    def take(self, rows: Rows, columns: Sequence[str] | None = None) -> pa.Table:
        """The items at `rows` (any order, repeats allowed), as a table aligned with them."""
        import pyarrow as pa

        if not len(rows):
            return self._empty(columns)
        at = np.searchsorted(self._first_rows, rows, side="right") - 1
        pieces: list[pa.Table] = []
        positions: list[npt.NDArray[np.intp]] = []
        for i in distinct(at):
            where = np.flatnonzero(at == i)
            part = self._part(int(i), None if columns is None else [ROW, *columns])
            part_rows = row_numbers(part)
            offsets = np.searchsorted(part_rows, rows[where])
            found = offsets < len(part_rows)
            found[found] = part_rows[offsets[found]] == rows[where][found]
            if not found.all():
                raise StoreError(f"Row {rows[where][~found][0]} is not in the store.")
            pieces.append(_picked(part, offsets))
            positions.append(where)
        joined = pa.concat_tables(pieces, promote_options="permissive")
        table = _picked(joined, np.argsort(np.concatenate(positions), kind="stable"))
        types = self.column_types()
        for name in columns if columns is not None else types:
            if name in types and name not in table.column_names:
                table = table.append_column(name, pa.nulls(table.num_rows, types[name]))
        return table if columns is None else table.select([c for c in columns if c in table.column_names])

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Every live item."""
        return self.take(self.rows, columns)

    def where(self, expression: str, *, timeout: float = WHERE_TIMEOUT) -> Rows:
        """Live rows (n,) ascending for which the SQL `expression` holds (DuckDB, over the Parquet parts).

        The connection can read the store's item parts and nothing else, and is bounded in memory.

        Parameters
        ----------
        timeout : float
            Seconds that it may take.

        Raises
        ------
        UsageError
            With DuckDB's reason and the columns there are; or it took longer.
        """
        import duckdb
        import pyarrow as pa

        if not self._parts:
            return np.empty(0, dtype=np.int64)
        if not expression.strip():
            raise UsageError("--where is empty; give an SQL condition such as \"label = 'food'\".")
        folder = str((self.root / "items").resolve())
        files = ", ".join(literal(glob_escape(str(self._files.whole(part).resolve()))) for part in self._parts)
        connection = connect()
        connection.register("removed", pa.table({ROW: pa.array(self._dead, pa.int64())}))
        bounded(connection)
        connection.execute(f"SET allowed_directories=[{literal(folder + '/')}]")
        connection.execute("SET enable_external_access=false")
        connection.execute("SET lock_configuration=true")
        parts = f"SELECT * FROM read_parquet([{files}], union_by_name=true, hive_partitioning=false)"
        try:
            connection.execute(f"CREATE VIEW items AS {parts} ANTI JOIN removed USING ({ROW})")
        except duckdb.Error as error:
            raise CorruptStoreError(f"{folder} cannot be read ({one_line(error)}).", "Restore it from a backup.") from error
        try:
            found = within(timeout, connection, lambda: connection.view("items").filter(expression).project(ROW).fetchnumpy())
        except TimeoutError:
            raise UsageError(
                f"--where {expression!r}: not done in {timeout:g} s. Ask for less, or raise the limit: --where-timeout SECONDS."
            ) from None
        except duckdb.OutOfMemoryException as error:
            raise UsageError(
                f"--where {expression!r}: it needs more than {FILTER_BYTES >> 30} GB of memory. Ask for less."
            ) from error
        except duckdb.Error as error:
            raise UsageError(self._filter_fault(expression, error)) from error
        return np.sort(np.asarray(found[ROW], dtype=np.int64))

    def _filter_fault(self, expression: str, error: Exception) -> str:
        """What DuckDB says of a filter, the types of the columns, and what may have been meant."""
        reason = one_line(error).split(" LINE ")[0].split(" Candidate bindings")[0]
        stop = "" if reason.endswith((".", "!", "?")) else "."
        hint = ""
        if (absent := re.search(r'Referenced column "([^"]*)" not found', reason)) and absent[1] not in self._types:
            hint = f" If {absent[1]} is a text to compare with, put it in single quotes: {literal(absent[1])}."
        elif "Could not convert" in reason or "Conversion Error" in reason:
            hint = " Compare text with text in single quotes, numbers with numbers."
        words = {
            ROW: "integer",
            ID: "text",
            **{name: word_of(kind) for name, kind in self._types.items() if name in MODALITIES},
        }
        columns = ", ".join(f"{name} ({kind})" for name, kind in (words | self.column_words()).items())
        return f"--where {expression!r}: {reason}{stop}{hint} Columns: {columns}."

    def _part(self, index: int, columns: list[str] | None) -> pa.Table:
        if columns is not None and index not in self._cache:
            return as_stored(read_table(self._files, self._parts[index], "embedstore-items", columns))
        if index not in self._cache:
            self._cache[index] = as_stored(read_table(self._files, self._parts[index], "embedstore-items"))
            while len(self._cache) > 4:
                self._cache.popitem(last=False)
        self._cache.move_to_end(index)
        whole = self._cache[index]
        return whole if columns is None else whole.select([c for c in columns if c in whole.column_names])

    def _empty(self, columns: Sequence[str] | None) -> pa.Table:
        import pyarrow as pa

        types = self.column_types()
        names = list(types) if columns is None else [c for c in columns if c in types]
        return pa.table({name: pa.array([], type=types[name]) for name in names})


def _picked(table: pa.Table, at: npt.NDArray[Any]) -> pa.Table:
    """Rows of `table` at `at`. A run is sliced; so are a few, which spares a search the import of Arrow's compute functions."""
    import pyarrow as pa

    if len(at) and (np.diff(at) == 1).all():
        return table.slice(int(at[0]), len(at))
    if len(at) > FEW:
        return table.take(pa.array(at))
    return pa.concat_tables([table.slice(0, 0), *(table.slice(int(i), 1) for i in at)])
