"""A source cut into chunks, the units of commit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from embedstore.sources.base import BYTES
from embedstore.spec import MODALITIES

if TYPE_CHECKING:
    import pyarrow as pa

CHUNK_BYTES = 128 << 20
"""A chunk ends with the payload that reaches this many bytes, where payloads come with the items."""
LEAST_ROWS = 256
"""Of items whose texts are not looked at."""
LEAST_WITH_TEXTS = 1024
LEAST_TEXTS = 4096
"""Of texts alone. A chunk's texts are sorted by length: fewer of them are more padding."""


def part_rows(position: int, least: int = LEAST_ROWS) -> int:
    """Items of the chunk that begins at `position` of a source, a power of two or `least`.

    A chunk is the unit of commit. Its bounds depend on the source and the modalities alone, so that a run that is killed and
    resumed makes the parts that an uninterrupted one makes. A kill costs at most `least` items, or a 16th of those done where
    that is less than 1,024, or a 64th; at most 65,536.
    """
    return max(least, min(1024, _power_of_two(position // 16)), min(1 << 16, _power_of_two(position // 64)))


def _power_of_two(most: int) -> int:
    return 1 << max(most.bit_length() - 1, 0)


def chunks(batches: Iterable[pa.RecordBatch], least: int = LEAST_ROWS) -> Iterator[tuple[int, pa.Table]]:
    """(start, table) pieces of a source whose sizes follow `part_rows` and `CHUNK_BYTES`."""
    held: list[pa.RecordBatch] = []
    start = rows = size = 0
    for batch in batches:
        while batch.num_rows:
            taken, added = _fitting(batch, part_rows(start, least) - rows, CHUNK_BYTES - size)
            held.append(batch.slice(0, taken))
            batch = batch.slice(taken)
            rows += taken
            size += added
            if rows == part_rows(start, least) or size >= CHUNK_BYTES:
                yield start, _joined(held)
                start += rows
                rows = size = 0
    if rows:
        yield start, _joined(held)


def _fitting(batch: pa.RecordBatch, rows: int, room: int) -> tuple[int, int]:
    """How many rows of `batch` go into a chunk that takes `rows` more and ends at `room` bytes more; and their bytes."""
    import pyarrow.compute as pc

    rows = min(rows, batch.num_rows)
    if not (columns := byte_columns(batch.schema)):
        return rows, 0
    lengths = sum(np.asarray(pc.fill_null(pc.binary_length(batch.column(name)), 0), np.int64) for name in columns)
    until = np.cumsum(lengths)
    rows = min(rows, 1 + int(np.searchsorted(until, room)))
    return rows, int(until[rows - 1])


def _joined(held: list[pa.RecordBatch]) -> pa.Table:
    """One table of all, payloads uncopied; `held` is emptied, so that the table alone keeps them in memory."""
    import pyarrow as pa

    same = all(batch.schema.equals(held[0].schema) for batch in held)
    tables = [] if same else [pa.Table.from_batches([batch]) for batch in held]
    table = pa.Table.from_batches(held) if same else pa.concat_tables(tables, promote_options="default")
    held.clear()
    payloads = byte_columns(table.schema)
    joined = table.drop_columns(payloads).combine_chunks()
    for name in payloads:
        joined = joined.append_column(name, table.column(name))
    return joined


def byte_columns(schema: pa.Schema) -> list[str]:
    """The columns that hold payloads, not references to them."""
    import pyarrow as pa

    columns = [n for m in MODALITIES if m != "text" for n in (m, m + BYTES) if n in schema.names]
    return [n for n in columns if pa.types.is_binary(schema.field(n).type) or pa.types.is_large_binary(schema.field(n).type)]
