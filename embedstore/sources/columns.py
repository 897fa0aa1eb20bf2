"""Columns of tables beside, or with, vectors: Parquet, CSV, TSV and JSON lines, read in blocks of rows.

A column of vectors is a list of floats (in CSV: text such as ``[0.1, -2]``), or many columns of numbers that share a prefix.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from embedstore._sql import quoted
from embedstore.errors import SourceError, UsageError, one_line, reason_of
from embedstore.sources.matrices import PREFERRED, Array, Block, Mask
from embedstore.sources.tabular import READERS, Tabular

if TYPE_CHECKING:
    import pyarrow as pa

PARQUET = (".parquet", ".pq")
TEXT = tuple(ending for ending, kind in READERS.items() if kind != "parquet")


class Columns(Protocol):
    """Rows of a table in a fixed order."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def names(self) -> Sequence[str]: ...

    @property
    def files(self) -> Sequence[tuple[str, int]]:
        """Name and rows of each file."""

    def blocks(self, size: int, names: Sequence[str]) -> Iterator[pa.Table]:
        """The columns `names`, in tables of `size` rows; the last may be shorter.

        Raises
        ------
        SourceError
        """


class MemoryColumns:
    """A table in memory."""

    def __init__(self, table: pa.Table, name: str) -> None:
        self.name = name
        self._table = table
        self.names: Sequence[str] = table.column_names
        self.files: Sequence[tuple[str, int]] = [(name, table.num_rows)]

    def blocks(self, size: int, names: Sequence[str]) -> Iterator[pa.Table]:
        table = self._table.select(list(names))
        for lo in range(0, table.num_rows, size):
            yield table.slice(lo, size)


class ParquetColumns:
    """Parquet files one after the other; a column that a file lacks is null there."""

    def __init__(self, name: str, paths: Sequence[Path]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.name = name
        self._paths = paths
        schemas, self.files = [], []
        for path in paths:
            try:
                with pq.ParquetFile(path) as file:
                    schemas.append(file.schema_arrow.remove_metadata())
                    self.files.append((str(path), file.metadata.num_rows))
            except (pa.ArrowException, OSError) as error:
                raise _unreadable(path, error) from error
        try:
            self.schema = pa.unify_schemas(schemas, promote_options="permissive")
        except pa.ArrowException as error:
            raise SourceError(f"{name}: its files disagree about a column ({one_line(error, 160)}).") from error

    @property
    def names(self) -> Sequence[str]:
        """All but pandas' index, and columns that hold nothing."""
        import pyarrow as pa

        return [f.name for f in self.schema if not f.name.startswith("__index_level_") and not pa.types.is_null(f.type)]

    def blocks(self, size: int, names: Sequence[str]) -> Iterator[pa.Table]:
        import pyarrow as pa

        schema = pa.schema([self.schema.field(name) for name in names])
        for table in regrouped(self.batches(size, names), size, schema):
            try:
                yield table.cast(schema)
            except pa.ArrowException as error:
                raise SourceError(
                    f"{self.name}: a column changes its type from file to file ({one_line(error, 160)})."
                ) from error

    def batches(self, size: int, names: Sequence[str]) -> Iterator[pa.Table]:
        """Tables of at most `size` rows with those of the columns that each file has."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        for path in self._paths:
            try:
                with pq.ParquetFile(path) as file:
                    present = [name for name in names if name in file.schema_arrow.names]
                    if not present:
                        yield pa.table({"": pa.nulls(file.metadata.num_rows)})
                        continue
                    for batch in file.iter_batches(size, columns=present):
                        yield pa.Table.from_batches([batch]).replace_schema_metadata(None)
            except (pa.ArrowException, OSError) as error:
                raise _unreadable(path, error) from error


class TextColumns:
    """A CSV, TSV or JSON lines file, read by DuckDB as a stream.

    Parameters
    ----------
    path : Path
    text : sequence of str
        Columns that are text whatever they look like, such as ids.
    """

    def __init__(self, path: Path, text: Sequence[str] = ()) -> None:
        self._table = Tabular(path, text)
        self.path = path
        self.name = str(path)

    @property
    def names(self) -> Sequence[str]:
        return list(self._table.types)

    @property
    def types(self) -> Mapping[str, str]:
        """Column → type, in DuckDB's words."""
        return self._table.types

    @cached_property
    def files(self) -> Sequence[tuple[str, int]]:
        return [(self.name, int(self.row("count(*)")[0]))]

    def blocks(self, size: int, names: Sequence[str]) -> Iterator[pa.Table]:
        return self.select(size, [quoted(name) for name in names])

    def select(self, size: int, expressions: Sequence[str]) -> Iterator[pa.Table]:
        """Tables of `size` rows of SQL expressions over the columns."""
        import pyarrow as pa

        batches = self._table.batches(", ".join(expressions), 8192)
        return regrouped((pa.Table.from_batches([batch]) for batch in batches), size)

    def row(self, expressions: str) -> tuple[Any, ...]:
        """SQL aggregates of the columns."""
        return self._table.fetched(self._table.query(expressions))[0]


def open_columns(path: Path, text: Sequence[str] = ()) -> ParquetColumns | TextColumns:
    """The table at `path`, or the Parquet files in that folder."""
    if path.is_dir():
        if not (found := natural([*path.rglob("*.parquet")])):
            raise SourceError(f"{path} holds no .parquet file.")
        return ParquetColumns(str(path), found)
    if path.suffix.lower() in PARQUET:
        return ParquetColumns(str(path), [path])
    if path.suffix.lower() in TEXT:
        return TextColumns(path, text)
    raise SourceError(f"{path}: expected a table (.parquet, {', '.join(TEXT)}) or a folder of .parquet files.")


class _ListVectors:
    """Lists of floats in a table, as a matrix of `shape` (n, dim)."""

    name: str
    shape: tuple[int, int]
    _table: Columns

    @property
    def files(self) -> Sequence[tuple[str, int]]:
        return self._table.files

    def blocks(self, size: int) -> Iterator[Block]:
        return _as_blocks(self._arrays(size), size, self.shape[1], self.name)

    def _arrays(self, size: int) -> Iterator[Any]:
        """Arrow arrays of lists, about `size` rows each."""
        raise NotImplementedError


class ParquetVectors(_ListVectors):
    """A column of Parquet files that holds lists of floats."""

    _table: ParquetColumns

    def __init__(self, table: ParquetColumns, column: str | None) -> None:
        import pyarrow as pa

        lists = {
            f.name: f.type.value_type
            for f in table.schema
            if pa.types.is_list(f.type) or pa.types.is_large_list(f.type) or pa.types.is_fixed_size_list(f.type)
        }
        floats = [name for name, kind in lists.items() if pa.types.is_floating(kind)]
        self.column = _chosen_column(column, floats, table.schema.names, table.name)
        if self.column not in floats:
            kind = table.schema.field(self.column).type
            raise SourceError(f"{table.name}: column {self.column!r} is {kind}; expected lists of float16, float32 or float64.")
        self.name = f"{table.name}:{self.column}"
        self._table = table
        self.itemsize = int(lists[self.column].bit_width // 8)
        self.shape = (sum(rows for _, rows in table.files), _width(self._arrays(1024), self.name))

    def _arrays(self, size: int) -> Iterator[Any]:
        for table in self._table.batches(size, [self.column]):
            yield table.column(0).combine_chunks()


class TextVectors(_ListVectors):
    """Vectors in a CSV, TSV or JSON lines file: one column of lists, or many columns of numbers with one prefix."""

    _table: TextColumns

    def __init__(self, table: TextColumns, column: str | None) -> None:
        self._table = table
        self.columns, self._expression = _list_column(table, column) or _wide_columns(table, column)
        self.itemsize = 4
        first = self.columns[0]
        self.name = f"{table.name}:{first}" if len(self.columns) == 1 else f"{table.name}:{first}…{self.columns[-1]}"
        self.shape = (table.files[0][1], _width(self._arrays(1024), self.name))

    def _arrays(self, size: int) -> Iterator[Any]:
        for table in self._table.select(size, [f"{self._expression} AS v"]):
            yield table.column(0).combine_chunks()


def natural(paths: Sequence[Path]) -> list[Path]:
    """Paths with the numbers in their names in numerical order: ``emb_2`` before ``emb_10``."""
    return sorted(paths, key=lambda p: [(int(w), w) if w.isdigit() else (-1, w) for w in re.split(r"(\d+)", str(p))])


def regrouped(tables: Iterator[pa.Table], size: int, schema: pa.Schema | None = None) -> Iterator[pa.Table]:
    """The rows of `tables` in tables of `size` rows; columns of `schema` that a table lacks are null."""
    import pyarrow as pa

    held: list[pa.Table] = []
    rows = 0
    for table in tables:
        whole = table if schema is None else _completed(table, schema)
        held.append(whole)
        rows += whole.num_rows
        if rows >= size:
            joined = pa.concat_tables(held, promote_options="permissive")
            yield from (joined.slice(lo, size) for lo in range(0, rows - rows % size, size))
            held, rows = [joined.slice(rows - rows % size)], rows % size
    if rows:
        yield pa.concat_tables(held, promote_options="permissive")


def _completed(table: pa.Table, schema: pa.Schema) -> pa.Table:
    import pyarrow as pa

    present = set(table.column_names)
    columns = [table.column(f.name) if f.name in present else pa.nulls(table.num_rows, f.type) for f in schema]
    return pa.table(columns, names=schema.names)


def _as_blocks(arrays: Iterator[Any], size: int, dim: int, where: str) -> Iterator[Block]:
    """List arrays as matrices of `size` rows."""
    held: list[tuple[Array, Mask | None]] = []
    start = rows = 0
    for array in arrays:
        lo = 0
        while lo < len(array):
            taken = array.slice(lo, size - rows)
            held.append(_as_matrix(taken, dim, where, start + rows))
            rows += len(taken)
            lo += len(taken)
            if rows == size:
                yield _stacked(held)
                start, rows, held = start + rows, 0, []
    if held:
        yield _stacked(held)


def _stacked(held: Sequence[tuple[Array, Mask | None]]) -> Block:
    masks = [np.ones(len(rows), bool) if mask is None else mask for rows, mask in held]
    mask = np.concatenate(masks) if any(mask is not None for _, mask in held) else None
    return [rows for rows, _ in held], mask


def _as_matrix(array: Any, dim: int, where: str, start: int) -> tuple[Array, Mask | None]:
    """Lists of `dim` floats as rows; a null list is a row that is not there, a null number is NaN."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_null(array.type):
        return np.zeros((len(array), dim), np.float32), np.zeros(len(array), bool)
    lengths = np.asarray(pc.fill_null(pc.list_value_length(array), dim))
    if len(wrong := np.flatnonzero(lengths != dim)):
        row = int(wrong[0])
        raise SourceError(
            f"{where}: the vector of row {start + row} (from 0) has {lengths[row]} numbers, the first has {dim}. "
            "All should be of one length."
        )
    values = np.asarray(array.flatten().to_numpy(zero_copy_only=False)).reshape(-1, dim)
    if not array.null_count:
        return values, None
    present = np.asarray(array.is_valid())
    rows = np.zeros((len(array), dim), values.dtype)
    rows[present] = values
    return rows, present


def _width(arrays: Iterator[Any], where: str) -> int:
    """Numbers in the first vector that is there."""
    for array in arrays:
        valid = array.drop_null()
        if len(valid) and len(valid[0]):
            return len(valid[0])
    raise SourceError(f"{where} holds no vector.")


def _chosen_column(wanted: str | None, fits: Sequence[str], names: Sequence[str], where: str) -> str:
    if wanted is not None:
        if wanted not in names:
            raise UsageError(f"{where} has no column {wanted!r}. Columns: {', '.join(names)}.")
        return wanted
    by_lower = {name.lower(): name for name in fits}
    if len(fits) > 1 and (preferred := [by_lower[known] for known in PREFERRED if known in by_lower]):
        return preferred[0]
    if len(fits) == 1:
        return fits[0]
    if fits:
        raise UsageError(f"{where} has several columns of vectors: {', '.join(fits)}. Name one: --vector-column NAME.")
    raise SourceError(f"{where} has no column with lists of floats. Columns: {', '.join(names)}.")


def _list_column(table: TextColumns, wanted: str | None) -> tuple[list[str], str] | None:
    fits = [name for name, kind in table.types.items() if kind.endswith("]") and _is_number(kind.partition("[")[0])]
    texts = [name for name, kind in table.types.items() if kind in ("VARCHAR", "JSON")]
    if texts and not fits:
        first = ", ".join(f"first({quoted(t)}::VARCHAR) FILTER ({quoted(t)} IS NOT NULL)" for t in texts)
        values = table.row(first)
        fits = [name for name, value in zip(texts, values, strict=True) if value is not None and value.lstrip().startswith("[")]
    if wanted is not None and wanted not in table.types:
        return None
    if wanted is None and not fits:
        return None
    column = _chosen_column(wanted, fits, table.names, table.name)
    if column not in [*fits, *texts]:
        return None
    return [column], f"CAST({quoted(column)} AS FLOAT[])"


def _wide_columns(table: TextColumns, wanted: str | None) -> tuple[list[str], str]:
    """The largest set of columns of numbers called PREFIX0, PREFIX1, …"""
    groups: dict[str, dict[int, str]] = {}
    for name, kind in table.types.items():
        if (match := re.fullmatch(r"(.*?)(\d+)", name)) and _is_number(kind):
            groups.setdefault(match[1], {})[int(match[2])] = name
    prefix = wanted.rstrip("*") if wanted is not None else None
    if prefix is not None and prefix not in groups:
        found = f"{', '.join(table.names[:8])}{', …' if len(table.names) > 8 else ''}"
        raise UsageError(
            f"{table.name} has no column {wanted!r}, nor columns of numbers {prefix}0, {prefix}1, … It has {found}."
        )
    if prefix is None:
        sizes = sorted(groups, key=lambda p: len(groups[p]), reverse=True)
        if not sizes or len(groups[sizes[0]]) < 2:
            raise SourceError(
                f"{table.name} has neither a column of lists such as [0.1, -2] nor columns of numbers with one prefix, such as "
                f"e0, e1, … Columns: {', '.join(table.names[:8])}."
            )
        prefix = sizes[0]
    numbers = sorted(groups[prefix])
    if missing := set(range(numbers[0], numbers[-1] + 1)) - set(numbers):
        raise SourceError(
            f"{table.name} has columns {prefix}{numbers[0]} to {prefix}{numbers[-1]}, but no {prefix}{min(missing)}."
        )
    columns = [groups[prefix][number] for number in numbers]
    return columns, f"[{', '.join(f'CAST({quoted(c)} AS FLOAT)' for c in columns)}]"


def _is_number(kind: str) -> bool:
    return kind.startswith(("DOUBLE", "FLOAT", "DECIMAL", "BIGINT", "INTEGER", "HUGEINT", "SMALLINT", "TINYINT", "UBIGINT"))


def _unreadable(path: Path, error: Exception) -> SourceError:
    reason = reason_of(error) if isinstance(error, OSError) else one_line(error, 160)
    return SourceError(f"{path} cannot be read as Parquet: {reason}")
