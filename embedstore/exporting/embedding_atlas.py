"""Parquet for Apple's Embedding Atlas: vectors of one space, a place on a plane, and the nearest neighbours.

It reads: ``embedding-atlas OUT/*.parquet --x x --y y --neighbors neighbors`` (a record ``ids``, numbers of rows from 0, and
``distances``), or makes a UMAP of its own: ``--vector SPACE_vector``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from embedstore.exporting.base import Array, Changes, Int, Items, Progress, Slice
from embedstore.exporting.parquet import ParquetExporter
from embedstore.indexing.exact import ExactIndex
from embedstore.spec import EncoderSpec

if TYPE_CHECKING:
    import pyarrow as pa

X, Y, NEIGHBORS = "x", "y", "neighbors"
K = 15
MOST_SEARCHED = 50_000
"""Every item is compared with every other one; of more items that takes hours."""
BLOCK = 16384


class EmbeddingAtlasExporter(ParquetExporter):
    """Parquet for Apple's Embedding Atlas: x and y (PCA), neighbours, one space"""

    kind: ClassVar[str] = "embedding-atlas"
    needs_all: ClassVar[bool] = True
    keeps_pieces: ClassVar[bool] = False
    dtypes = ("float32",)

    def spaces(self, specs: Mapping[str, EncoderSpec]) -> list[str]:
        """The first one: a map is of one space."""
        first, *others = specs
        if others:
            self.notes.append(f"the map is of space {first!r}; for another one: --space {others[0]}")
        return [first]

    @property
    def own_columns(self) -> tuple[str, ...]:
        return (*super().own_columns, X, Y, NEIGHBORS)

    def begin(self, items: Items, digests: Sequence[str], done: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Places and neighbours depend on all items: where one changed, everything is written again."""
        return done if self._same_items else [{} for _ in done]

    def update(self, items: Items, progress: Progress) -> Changes:
        (column,) = self._plan.vectors
        self._vectors = _ItemVectors(items, column.column, column.dim)
        self.notes.append(f"open it: embedding-atlas {self.out}/*.parquet --x {X} --y {Y}{self._and_neighbors}")
        return super().update(items, progress)

    @property
    def _searched(self) -> bool:
        return K < len(self._vectors) <= MOST_SEARCHED

    @property
    def _and_neighbors(self) -> str:
        return f" --neighbors {NEIGHBORS}" if self._searched else ""

    @cached_property
    def _plane(self) -> tuple[Array, Array]:
        """Mean (dim,) and the two axes (dim, 2) along which the vectors vary most, each with its largest number above 0."""
        total, square = np.zeros(self._vectors.dim), np.zeros((self._vectors.dim, self._vectors.dim))
        for block in self._vectors.blocks():
            wide = np.asarray(block, np.float64)
            total += wide.sum(axis=0)
            square += wide.T @ wide
        mean = total / max(1, len(self._vectors))
        axes = np.linalg.eigh(square / max(1, len(self._vectors)) - np.outer(mean, mean))[1][:, ::-1][:, :2]
        if axes.shape[1] < 2:
            axes = np.hstack([axes, np.zeros((len(axes), 1))])
        largest = axes[np.abs(axes).argmax(axis=0), np.arange(2)]
        return mean, axes * np.where(largest < 0, -1, 1)

    @cached_property
    def _index(self) -> ExactIndex:
        return ExactIndex(self._vectors)

    def table(self, items: Slice) -> pa.Table:
        import pyarrow as pa

        (column,) = self._plan.vectors
        vectors = items.vectors[column.column]
        mean, axes = self._plane
        places = ((vectors - mean) @ axes).astype(np.float32)
        table = super().table(items)
        for name, numbers in zip((X, Y), places.T, strict=True):
            table = table.append_column(name, pa.array(np.ascontiguousarray(numbers)))
        return table.append_column(NEIGHBORS, self._neighbors(vectors)) if self._searched else table

    def _neighbors(self, vectors: Array) -> pa.StructArray:
        import pyarrow as pa

        scores, found = self._index.search(vectors, K + 1)  # the first is the item itself
        flat = {"ids": found.reshape(-1), "distances": np.maximum(0, 1 - scores).reshape(-1)}
        lists = [pa.FixedSizeListArray.from_arrays(pa.array(x), K + 1).cast(pa.list_(pa.array(x).type)) for x in flat.values()]
        return pa.StructArray.from_arrays(lists, list(flat))


class _ItemVectors:
    """Vectors of items that all have one, as an index reads them."""

    def __init__(self, items: Items, column: str, dim: int) -> None:
        self._items, self._column, self.dim = items, column, dim

    def __len__(self) -> int:
        return len(self._items)

    def blocks(self, size: int = BLOCK) -> Iterator[Array]:
        for lo in range(0, len(self), size):
            yield self.take(np.arange(lo, min(lo + size, len(self))))

    def take(self, positions: Int) -> Array:
        return self._items.vectors(self._column, positions)[0]
