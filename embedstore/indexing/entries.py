"""Where a walk through a graph begins: at the nearest of some vectors that stand for all, the medoids of k-means.

The upper layers of an HNSW graph are drawn at random, and the greedy descent through them often ends in the wrong cluster,
where the walk stays: among a million clustered vectors 4 of 100 queries found none of their neighbours at efSearch 48. From
the nearest medoid the same graph takes half as many distances to a recall of 0.95, and a quarter fewer among real texts.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.errors import CorruptStoreError
from embedstore.indexing.vectors import Float
from embedstore.registry import require

LINKS = 32
CONSTRUCTION = 100
LEAST, MOST, PER_EFFORT = 4, 32, 85
"""efSearch among the entries: 4 to 8 were best of 512 and 16 to 32 of 2,048; a better beginning costs more than it saves."""

Labels = npt.NDArray[np.int32]


class Entries:
    """Vectors of a graph to begin from.

    Parameters
    ----------
    index
        A FAISS ``IndexIDMap`` of a small HNSW index, L2, over the unit vectors; its ids are labels in the large graph.
    """

    def __init__(self, index: Any) -> None:
        self._faiss = require("faiss", extra="cpu")
        self._index = index
        self._parameters = self._faiss.SearchParametersHNSW(efSearch=min(max(len(self) // PER_EFFORT, LEAST), MOST))

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Of the entries (c,) in the large graph."""
        return np.asarray(self._faiss.vector_to_array(self._index.id_map), np.int64)

    @classmethod
    def of(cls, unit: Float, labels: npt.NDArray[np.int64]) -> Entries:
        """From unit vectors (c, dim) and their labels (c,)."""
        faiss = require("faiss", extra="cpu")
        graph = faiss.IndexHNSWFlat(unit.shape[1], LINKS)
        graph.hnsw.efConstruction = CONSTRUCTION
        index = faiss.IndexIDMap(graph)
        index.own_fields = True
        graph.this.disown()
        index.add_with_ids(unit, labels)
        return cls(index)

    @classmethod
    def read(cls, path: Path, dim: int, count: int) -> Entries:
        """As `write` wrote them, into a graph of `count` vectors of `dim` numbers."""
        faiss = require("faiss", extra="cpu")
        index = faiss.read_index(os.fspath(path))
        if not isinstance(index, faiss.IndexIDMap) or index.d != dim or not index.ntotal:
            raise CorruptStoreError(f"{path} holds no entries into vectors of {dim} numbers.")
        labels = faiss.vector_to_array(index.id_map)
        if not 0 <= labels.min() <= labels.max() < count:
            raise CorruptStoreError(f"{path} leads to vectors beyond the {count:,} there are.")
        return cls(index)

    def write(self, path: Path) -> None:
        self._faiss.write_index(self._index, os.fspath(path))

    def move(self, labels: npt.NDArray[np.int64]) -> None:
        """The labels of the large graph changed: `labels` (n,) are the new ones of the old."""
        self._faiss.copy_array_to_vector(labels[self.labels], self._index.id_map)

    def nearest(self, unit: Float) -> tuple[Labels, Float]:
        """Where to begin for each query (m, dim): a label (m,) int32 and its squared distance (m,)."""
        distances, labels = np.empty(len(unit), np.float32), np.empty(len(unit), np.int64)
        self.call(len(unit), *map(self._faiss.swig_ptr, (unit, distances, labels)))()
        return labels.astype(np.int32), distances

    def call(self, m: int, unit_at: Any, distances_at: Any, labels_at: Any) -> Callable[[], Any]:
        """What fills `nearest` of `m` queries, from and to arrays behind FAISS's pointers; labels are int64."""
        return partial(self._index.search_c, m, unit_at, 1, distances_at, labels_at, self._parameters)
