"""Vectors in a table: a column of lists of floats (in CSV text like ``[0.1, -2]``), or columns of numbers with one prefix."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from embedstore._core.column_types import is_list
from embedstore._core.column_values import plain
from embedstore._core.sql import quoted
from embedstore.errors import SourceError, UsageError
from embedstore.sources.vectors.arrays import PREFERRED, Array, Block, Mask
from embedstore.sources.vectors.columns import Columns, ParquetColumns, TextColumns

if TYPE_CHECKING:
    import pyarrow as pa


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
    """A column of Parquet files that holds lists of floats, or of 8-bit whole numbers."""

    _table: ParquetColumns

    def __init__(self, table: ParquetColumns, column: str | None) -> None:
        lists = {f.name: f.type.value_type for f in table.schema if is_list(f.type)}
        floats = [name for name, kind in lists.items() if is_small_number(kind)]
        self.column = chosen_column(column, floats, table.schema.names, table.name)
        if self.column not in floats:
            kind = table.schema.field(self.column).type
            raise SourceError(
                f"{table.name}: column {self.column!r} is {kind}; expected lists of float16, float32, float64, int8 or uint8."
            )
        self.name = f"{table.name}:{self.column}"
        self._table = table
        self.itemsize = int(lists[self.column].bit_width // 8)
        self.shape = (sum(rows for _, rows in table.files), _width(self._arrays(1024), self.name))

    def _arrays(self, size: int) -> Iterator[Any]:
        for table in self._table.batches(size, [self.column]):
            yield plain(table.column(0)).combine_chunks()


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
        try:
            for table in self._table.select(size, [f"{self._expression} AS v"]):
                yield table.column(0).combine_chunks()
        except SourceError as error:
            if len(self.columns) > 1 or (cell := self._table.unconvertible(self.columns[0], "FLOAT[]")) is None:
                raise
            row, value = cell
            raise SourceError(f"{self.name}: row {row} (from 0) is {value[:80]!r}; expected a list of numbers.") from error


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


def is_small_number(kind: pa.DataType) -> bool:
    """Whether a vector's numbers may be of the Arrow type `kind`: floats, or whole numbers of 8 bits."""
    import pyarrow as pa

    return bool(pa.types.is_floating(kind) or pa.types.is_int8(kind) or pa.types.is_uint8(kind))


def chosen_column(wanted: str | None, fits: Sequence[str], names: Sequence[str], where: str) -> str:
    """The column that is `wanted`, or the one of `fits` that holds the vectors: the only one, or one of the usual names.

    Raises
    ------
    UsageError, SourceError
    """
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
    raise SourceError(
        f"{where} has no column with lists of numbers (float16, float32, float64, int8 or uint8). Columns: {', '.join(names)}."
    )


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
    column = chosen_column(wanted, fits, table.names, table.name)
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
