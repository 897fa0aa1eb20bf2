"""The items of a store that go out: read in slices, each with a version that changes when anything of the item does."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from embedstore._core.keys import hash_rows
from embedstore._core.pieces import Pieces
from embedstore._core.sql import connect
from embedstore.exporting.base import ID, Array, Int, Mask, Plan, Slice, VectorColumn
from embedstore.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # odd: sums of what it multiplies lose nothing


class Outgoing:
    """The items at `rows` of a store; fits what `embedstore.exporting.base.Items` asks for.

    Parameters
    ----------
    store : Store
    rows : (n,) int64, ascending
    plan : Plan
    sources : mapping of str to str
        Metadata column of the target → column of the store.
    """

    def __init__(self, store: Store, rows: Int, plan: Plan, sources: dict[str, str]) -> None:
        self._store, self._rows, self._plan, self._sources = store, rows, plan, sources
        self._columns = {column.column: column for column in plan.vectors}
        self._seed = _seed(plan)

    def __len__(self) -> int:
        return len(self._rows)

    def positions(self, ids: Sequence[str]) -> Int:
        """Where each of `ids` (m,) is among the items; -1 where it is not wanted."""
        rows = self._store.items.known_rows(ids)
        if not len(self):
            return np.full(len(ids), -1, np.int64)
        at = np.minimum(np.searchsorted(self._rows, rows), len(self) - 1)
        return np.where(self._rows[at] == rows, at, -1).astype(np.int64)

    def versions(self, size: int) -> Iterator[tuple[Int, list[str]]]:
        """Versions (n,) and ids of all items in order, `size` at a time."""
        for lo in range(0, len(self), size):
            positions = np.arange(lo, min(lo + size, len(self)))
            table = self._table(self._rows[positions])
            vectors = {name: self.vectors(name, positions) for name in self._columns}
            yield self._versions(positions, table, vectors), table.column(ID).to_pylist()

    def take(self, positions: Int) -> Slice:
        """The items at `positions`, ascending."""
        rows = self._rows[positions]
        table = self._table(rows)
        ids = table.column(ID).to_pylist()
        found = {column.column: self.vectors(column.column, positions) for column in self._plan.vectors}
        vectors, present = ({name: pair[i] for name, pair in found.items()} for i in (0, 1))
        pieces = {c.column: self._pieces(c, rows[present[c.column]]) for c in self._plan.vectors if c.pieces is not None}
        versions = self._versions(positions, table, found)
        return Slice(ids, rows, versions, table.drop_columns([ID]), vectors, present, pieces)

    def vectors(self, column: str, positions: Int) -> tuple[Array, Mask]:
        """Vectors (m, dim) of the items at `positions` in a column, zeros where one has none, and which have one (m,)."""
        planned = self._columns[column]
        space, rows = self._store.space(planned.space), self._rows[positions]
        has = space.has(rows)
        out = np.zeros((len(rows), planned.dim), planned.dtype)
        out[has] = space.take(rows[has])
        return out, has

    def _pieces(self, column: VectorColumn, rows: Int) -> Pieces:
        found = self._store.space(column.space).pieces_of(rows)
        return replace(found, vectors=found.vectors.astype(column.dtype, copy=False))

    def count(self, column: str) -> int:
        """How many of the items have a vector in a column."""
        return int(self._store.space(self._columns[column].space).has(self._rows).sum())

    def _table(self, rows: Int) -> pa.Table:
        """Ids, and metadata under the target's names and in its types."""
        import pyarrow as pa

        table = self._store.items.take(rows, [ID, *self._sources.values()])
        arrays = [
            table.column(self._sources[field.name]).cast(field.type) if len(rows) else pa.chunked_array([], field.type)
            for field in self._plan.metadata
        ]
        return pa.Table.from_arrays([table.column(ID), *arrays], names=[ID, *self._plan.metadata.names])

    def _versions(self, positions: Int, table: pa.Table, vectors: Mapping[str, tuple[Array, Mask]]) -> Int:
        """A 64-bit digest of metadata, of the vectors, of what they were made from, and by which encoders.

        One payload and encoder give other last bits on another device, and the closing check compares to the bit.
        """
        with connect() as connection:
            connection.register("items", table)
            found = connection.execute("SELECT hash(items) AS version FROM items").fetchnumpy()["version"]
        versions = np.asarray(found, np.uint64) ^ self._seed
        for column in self._plan.vectors:
            values, has = vectors[column.column]
            for keys in (self._store.space(column.space).hash_of(self._rows[positions]), hash_rows(values)):
                versions = versions * _SPREAD + (keys[:, 0] ^ (keys[:, 1] >> np.uint64(1)))
            versions = versions * _SPREAD + has
        return versions.view(np.int64)


def _seed(plan: Plan) -> np.uint64:
    """What all versions depend on: names and types of columns, encoders, and how vectors are written."""
    told = repr((plan.record, [(field.name, str(field.type)) for field in plan.metadata]))
    return np.uint64(int.from_bytes(hashlib.sha256(told.encode()).digest()[:8], "little"))
