"""Several vectors an item in Parquet: a column of lists of vectors, and one beside it of where each begins and ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from embedstore._core.column_types import is_list
from embedstore._core.column_values import plain
from embedstore.errors import SourceError
from embedstore.sources.vectors.arrays import Array, Mask
from embedstore.sources.vectors.columns import ParquetColumns
from embedstore.sources.vectors.tables import chosen_column, is_small_number

if TYPE_CHECKING:
    import pyarrow as pa

Int = npt.NDArray[np.int64]

PIECES, PLACES, MEAN = ".pieces", ".places", "_vector"
"""How the columns of the space NAME end where it is exported to Parquet."""
PROBED = 64
"""Rows that are looked at together for the length of a vector."""


class PieceRows(NamedTuple):
    """The pieces of n rows, m in all: vectors (m, dim), how many each row has (n,), and their places (m, 2) in seconds."""

    vectors: Array
    counts: Int
    places: npt.NDArray[np.float64]


class PieceVectors:
    """A column of Parquet files that holds lists of vectors; `shape` is (rows, dim).

    A null list is a row without vectors, a null vector or number is NaN.

    Parameters
    ----------
    table : ParquetColumns
    column : str
        ``NAME.pieces`` or ``NAME``; the places are in ``NAME.places``, if there is such a column.
    """

    def __init__(self, table: ParquetColumns, column: str) -> None:
        self.column = column
        self.name = f"{table.name}:{column}"
        self._table = table
        places = stem(column) + PLACES
        self._places = places if places in table.names else None
        if self._places is not None and not _is_lists_of_numbers(kind := table.schema.field(places).type):
            raise SourceError(
                f"{table.name}: column {places!r} is {kind}; expected, for each vector in {column!r}, a list of two numbers: "
                "from and to, in seconds."
            )
        self.itemsize = int(table.schema.field(column).type.value_type.value_type.bit_width // 8)
        self.shape = (sum(rows for _, rows in table.files), self._width())
        self.pieces = table.numbers(column) // self.shape[1]

    @property
    def files(self) -> Sequence[tuple[str, int]]:
        return self._table.files

    def blocks(self, size: int) -> Iterator[tuple[PieceRows, Mask]]:
        """Every row, in blocks of `size`, and which of them have a list of vectors (n,).

        Raises
        ------
        SourceError
            Vectors of different lengths, or places that do not go with them.
        """
        names = [self.column] if self._places is None else [self.column, self._places]
        start = 0
        for table in self._table.blocks(size, names):
            lists = plain(table.column(0)).combine_chunks()
            vectors, counts = _numbers(lists, self.shape[1], self.name, start, "vector")
            if self._places is None:
                places = np.full((len(vectors), 2), np.nan)
            else:
                places = self._placed(plain(table.column(1)).combine_chunks(), counts, start)
            yield PieceRows(vectors, counts, places), np.asarray(lists.is_valid())
            start += table.num_rows

    def _placed(self, lists: pa.ListArray, counts: Int, start: int) -> npt.NDArray[np.float64]:
        """The places (m, 2) of rows that have `counts` (n,) vectors; NaN in a row without a list."""
        where = f"{self._table.name}:{self._places}"
        given, held = _numbers(lists, 2, where, start, "place")
        told = np.asarray(lists.is_valid())
        if len(wrong := np.flatnonzero(told & (held != counts))):
            row = int(wrong[0])
            raise SourceError(
                f"{where}: row {start + row} (from 0) has {held[row]} places, but {counts[row]} vectors in {self.column!r}. "
                "Give one place a vector, or null for all."
            )
        places = np.full((int(counts.sum()), 2), np.nan)
        places[np.repeat(told, counts)] = given
        return places

    def _width(self) -> int:
        """Numbers in the first vector that is there."""
        for table in self._table.batches(PROBED, [self.column]):
            vectors = plain(table.column(0)).combine_chunks()
            vectors = vectors.flatten().drop_null() if is_list(vectors.type) else []
            if len(vectors) and len(vectors[0]):
                return len(vectors[0])
        raise SourceError(f"{self.name} holds no vector.")


def piece_column(table: ParquetColumns, wanted: str | None) -> str | None:
    """The column of lists of vectors that is to be imported: the one `wanted`, or the only candidate; else None.

    The mean of such a column, as an export writes it beside, is none; other columns of vectors go before it.

    Raises
    ------
    UsageError
        It cannot be told which of several columns is meant.
    """
    several = _piece_columns(table)
    if wanted is not None or not several:
        return wanted if wanted in several else None
    beside = {name for column in several for name in companions(table, column)}
    single = [f.name for f in table.schema if is_list(f.type) and is_small_number(f.type.value_type) and f.name not in beside]
    if single and not beside:
        return None
    found = chosen_column(None, [*single, *several], table.schema.names, table.name)
    return found if found in several else None


def companions(table: ParquetColumns, column: str) -> list[str]:
    """Columns that an export writes with `column`: of pieces their places and mean, of a mean its pieces and their places."""
    several = _piece_columns(table)
    name = column.removesuffix(MEAN)
    if column in several:
        name = stem(column)
        others = [name + PLACES, name + MEAN] if column.endswith(PIECES) else [name + PLACES]
    else:
        others = [name + PIECES, name + PLACES] if column == name + MEAN and name + PIECES in several else []
    return [other for other in others if other in table.names]


def stem(column: str) -> str:
    """NAME of a column NAME or NAME.pieces."""
    return column.removesuffix(PIECES)


def _piece_columns(table: ParquetColumns) -> list[str]:
    """Columns of lists of vectors that are not the places of another."""
    lists = {f.name: f.type.value_type for f in table.schema if is_list(f.type) and is_list(f.type.value_type)}
    vectors = [name for name, kind in lists.items() if is_small_number(kind.value_type)]
    places = {stem(name) + PLACES for name in vectors}
    return [name for name in vectors if name not in places]


def _is_lists_of_numbers(kind: pa.DataType) -> bool:
    import pyarrow as pa

    if not (is_list(kind) and is_list(kind.value_type)):
        return False
    inner = kind.value_type.value_type
    return bool(pa.types.is_floating(inner) or pa.types.is_integer(inner))


def _numbers(lists: pa.ListArray, width: int, where: str, start: int, what: str) -> tuple[Array, Int]:
    """Lists of lists of `width` numbers as an array (m, width), and how many lists each row has (n,)."""
    import pyarrow.compute as pc

    counts = np.asarray(pc.fill_null(pc.list_value_length(lists), 0), np.int64)
    inner = lists.flatten()
    lengths = np.asarray(pc.fill_null(pc.list_value_length(inner), width))
    if len(wrong := np.flatnonzero(lengths != width)):
        at = int(wrong[0])
        row = int(np.searchsorted(np.cumsum(counts), at, side="right"))
        number = at - int(counts[:row].sum())
        expected = "expected two: from and to, in seconds"
        if what == "vector":
            expected = f"the first vector has {width}. All should be of one length"
        raise SourceError(f"{where}: {what} {number} of row {start + row} (both from 0) has {lengths[at]} numbers; {expected}.")
    values = np.asarray(inner.flatten().to_numpy(zero_copy_only=False)).reshape(-1, width)
    if not inner.null_count:
        return values, counts
    out = np.full((len(inner), width), np.nan, values.dtype if values.dtype.kind == "f" else np.float32)
    out[np.asarray(inner.is_valid())] = values
    return out, counts
