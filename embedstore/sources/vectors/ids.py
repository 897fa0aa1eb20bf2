"""Check that ids stored with the vectors match the id column of the metadata, row by row."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from embedstore._core.column_types import word_of
from embedstore._core.column_values import fitted
from embedstore.errors import SourceError
from embedstore.sources.base import ID
from embedstore.sources.vectors.arrays import ID_NAMES
from embedstore.sources.vectors.columns import Columns
from embedstore.sources.vectors.source import VectorSource


def without_same_ids(found: VectorSource) -> VectorSource:
    """The last metadata without its column of ids, which has to hold those that came with the vectors.

    A column of another kind (numbers beside words, or neither) means something else, and is metadata.

    Raises
    ------
    SourceError
        Naming the first row that differs.
    """
    assert found.ids is not None
    name = found.ids[1].lower()
    *others, (table, names) = found.metadata
    for twin in [n for n in names if n.lower() in ({name, ID} if name in ID_NAMES else {name})]:
        if _same_ids(found, table, twin):
            names = [n for n in names if n != twin]
    return replace(found, metadata=[*others, (table, names)])


def _same_ids(found: VectorSource, table: Columns, name: str) -> bool:
    """Whether a column holds the source's ids; false where it is of another kind. Reads both as streams."""
    import pyarrow as pa
    import pyarrow.compute as pc

    size, start = 65536, 0
    numbers = [True, True]
    differs: tuple[int, str, str | None] | None = None
    for mine, block in zip(found.id_blocks(size), table.blocks(size, [name]), strict=True):
        if word_of(block.schema.field(0).type) not in ("text", "integer"):
            return False
        theirs = fitted(block.column(0), pa.string()).combine_chunks()
        for side, values in enumerate((mine, theirs)):
            numbers[side] &= pc.all(pc.match_substring_regex(values, r"^-?[0-9]+$"), min_count=0).as_py()
        if differs is None and len(rows := np.flatnonzero(~np.asarray(pc.fill_null(pc.equal(mine, theirs), False)))):
            i = int(rows[0])
            differs = start + i, mine[i].as_py(), theirs[i].as_py()
        start += len(mine)
    if differs is None or numbers[0] != numbers[1]:
        return differs is None
    row, own, other = differs
    raise SourceError(
        f"{found.name} and {table.name} contradict each other: in row {row} (from 0) the vectors have the id {own!r}, "
        f"the metadata {other!r} in {name!r}. They go together row by row: sort the metadata like the vectors, or drop its "
        f"column {name!r}."
    )
