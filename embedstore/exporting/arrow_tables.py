"""Slices as Arrow tables: id, metadata, and vectors as lists of a fixed size."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedstore._core.atomic_files import completing
from embedstore._core.pieces import Pieces
from embedstore.exporting.base import ID, Array, Found, Int, Mask, PieceColumns, Plan, Slice, VectorColumn

if TYPE_CHECKING:
    import pyarrow as pa

GROUP_BYTES = 32 << 20
LEAST_ROWS, MOST_ROWS = 1024, 122_880
"""Of a row group: DuckDB reads groups of 122,880 rows in parallel, and Milvus takes them whole."""


def arrow_schema(plan: Plan) -> pa.Schema:
    """Id, metadata, then for each space a column of lists of `dim` numbers, null where an item has none, and its pieces'."""
    import pyarrow as pa

    fields = [pa.field(ID, pa.string(), nullable=False), *plan.metadata]
    for column in plan.vectors:
        vector = pa.list_(pa.from_numpy_dtype(column.dtype), column.dim)
        fields.append(pa.field(column.column, vector))
        kinds = [pa.list_(vector), pa.list_(pa.list_(pa.float64(), 2))]
        fields += [pa.field(name, kind) for name, kind in zip(column.names[1:], kinds, strict=False)]
    return pa.schema(fields)


def arrow_table(plan: Plan, items: Slice) -> pa.Table:
    """The slice as `arrow_schema` says."""
    import pyarrow as pa

    vectors = [array for column in plan.vectors for array in _arrays(column, items)]
    arrays = [pa.array(items.ids, pa.string()), *items.metadata.columns, *vectors]
    return pa.Table.from_arrays(arrays, schema=arrow_schema(plan))


def _arrays(column: VectorColumn, items: Slice) -> list[pa.Array]:
    """The columns that `arrow_schema` has of a space."""
    present = items.present[column.column]
    arrays = [list_array(items.vectors[column.column], present)]
    if column.pieces is not None:
        pieces = items.pieces[column.column]
        arrays.append(_lists_of_lists(pieces.vectors, pieces.counts, present))
        if column.pieces.places is not None:
            arrays.append(_lists_of_lists(pieces.places, pieces.counts, present))
    return arrays


def _lists_of_lists(rows: Array, counts: Int, present: Mask) -> pa.ListArray:
    """Rows (m, width) as lists of lists, `counts` of them in each that is present (n,); null in the others."""
    import pyarrow as pa

    each = np.zeros(len(present), np.int64)
    each[present] = counts
    offsets = pa.array(np.concatenate([[0], np.cumsum(each)]), pa.int32())
    return pa.ListArray.from_arrays(offsets, list_array(rows), mask=None if present.all() else pa.array(~present))


def pieces_in(column: PieceColumns, table: pa.Table) -> dict[int, Pieces]:
    """Row of a table → its pieces, of those that have some."""
    import pyarrow.compute as pc

    lists: Any = table.column(column.vectors).combine_chunks()
    counts = np.asarray(pc.fill_null(pc.list_value_length(lists), 0), np.int64)
    vectors, places = _inside(lists), None
    if column.places is not None:
        places = _inside(table.column(column.places).combine_chunks())
    at = np.flatnonzero(counts)
    several = Pieces.nowhere(vectors, counts[at]) if places is None else Pieces(vectors, counts[at], places)
    return {row: several.take([i]) for i, row in enumerate(at.tolist())}


def _inside(lists: Any) -> Array:
    """The rows (m, width) of lists of lists of one width."""
    inner = lists.flatten()
    flat = inner.flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat.reshape(len(inner), -1) if len(inner) else flat.reshape(0, 1))


def list_array(vectors: Array, present: Mask | None = None) -> pa.FixedSizeListArray:
    """Vectors (n, dim) as lists; null where `present` (n,) is false."""
    import pyarrow as pa

    mask = None if present is None or present.all() else pa.array(~present)
    flat = pa.array(np.ascontiguousarray(vectors).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1], mask=mask)


def numbers_of(column: pa.ChunkedArray, dim: int) -> tuple[Array, Mask]:
    """Vectors (n, dim) of a column of lists, zeros where it is null, and where it is not (n,)."""
    import pyarrow as pa

    array: Any = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    present = np.asarray(array.is_valid())
    flat = array.drop_null().flatten().to_numpy(zero_copy_only=False)
    out = np.zeros((len(present), dim), flat.dtype if len(flat) else np.float32)
    out[present] = flat.reshape(-1, dim)
    return out, present


def found_in(plan: Plan, table: pa.Table) -> dict[str, Found]:
    """Id → what a table has of it."""
    vectors = {column.column: numbers_of(table.column(column.column), column.dim) for column in plan.vectors}
    metadata = table.select(plan.metadata.names).to_pylist() or [{}] * table.num_rows
    return {
        name: Found(metadata[i], {column: x[i] if has[i] else None for column, (x, has) in vectors.items()})
        for i, name in enumerate(table.column(ID).to_pylist())
    }


def metadata_table(plan: Plan, items: Slice) -> pa.Table:
    """Id and metadata alone."""
    import pyarrow as pa

    schema = pa.schema([pa.field(ID, pa.string(), nullable=False), *plan.metadata])
    return pa.Table.from_arrays([pa.array(items.ids, pa.string()), *items.metadata.columns], schema=schema)


def write_parquet(path: Path, table: pa.Table, row_bytes: int = 1) -> None:
    """Write a table in groups of rows that readers take one by one; the file appears when it is complete.

    Numbers of vectors hardly repeat: a dictionary of them would make reading ten times as slow.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = max(LEAST_ROWS, min(MOST_ROWS, GROUP_BYTES // row_bytes))
    plain = [field.name for field in table.schema if not pa.types.is_nested(field.type)]
    with completing(path) as temporary, pq.ParquetWriter(temporary, table.schema, use_dictionary=plain) as writer:
        writer.write_table(table, row_group_size=rows)


def read_parquet(path: Path, columns: list[str] | None = None) -> pa.Table:
    """A table, or some columns of it."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        table = file.read(columns, use_threads=False)
    return table if columns is None else table.select(columns)  # "a" stands for a column "a.b", too
