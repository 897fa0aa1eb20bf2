"""Exact cosine search: the reference that every approximate index is measured against.

Scores of a block come from one matrix product (NumPy's BLAS, which was five times faster here than the one inside FAISS),
and FAISS's heaps keep the best. Arrays in, arrays out; knows no store.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from embedstore._core.ordered import ordered_map
from embedstore._core.unit import unit_rows
from embedstore.indexing.gpu import FlatOnGpu
from embedstore.indexing.vectors import BLOCK, Array, Float, Positions, Vectors, as_vectors
from embedstore.registry import require

RESIDENT_BYTES = 4 << 30
MOST_THREADS = 4  # they wait for memory by then
SCORES = 1 << 19  # about this many at once: they should stay in the cache until the heaps have seen them


class ExactIndex:
    """All vectors, searched one by one; scores are cosines.

    From the second search on, unit float32 copies are kept in memory where they fit, one vector a column: BLAS multiplies a few
    queries by columns faster than by rows. One search alone would not pay for the copy.

    Parameters
    ----------
    vectors : ndarray (n, dim) or Vectors
    resident_bytes : int
        Largest copy to keep in memory; beyond it every search reads the vectors again.
    device : str
        ``"cpu"``, or a device of torch that keeps all vectors and searches them.
    """

    def __init__(self, vectors: Array | Vectors, *, resident_bytes: int = RESIDENT_BYTES, device: str = "cpu") -> None:
        self._vectors = as_vectors(vectors)
        self._device = device
        self._on_device: FlatOnGpu | None = None
        self._lock = threading.Lock()
        self._resident_bytes = resident_bytes
        self._asked = False
        self._kept: list[Float] | None = None

    def __len__(self) -> int:
        return len(self._vectors)

    def search(self, queries: Array, k: int, *, subset: Positions | None = None) -> tuple[Float, Positions]:
        """The `k` nearest vectors of each query.

        Parameters
        ----------
        queries : (m, dim)
        subset : (s,) positions, optional
            Look at these alone.

        Returns
        -------
        scores : (m, k') float32
            Cosines, descending; k' = min(k, how many there are).
        positions : (m, k') int64
        """
        count = len(self) if subset is None else len(subset)
        k = min(k, count)
        if k == 0 or not len(queries):
            return np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        unit = unit_rows(queries)
        if self._device != "cpu":
            with self._lock:
                self._on_device = self._on_device or FlatOnGpu(self._vectors, self._device)
            return self._on_device.search(unit, k, subset)
        best = Best(len(queries), k)
        start = 0
        size = max(2048, SCORES // len(unit))
        for columns in self._columns() if subset is None else self._picked(subset):
            for lo in range(0, columns.shape[1], size):
                some = unit @ columns[:, lo : lo + size]
                best.add(some, start)
                start += some.shape[1]
        scores, found = best.sorted()
        return scores, found if subset is None else np.asarray(subset, np.int64)[found]

    def _columns(self) -> Iterator[Float]:
        """Every vector, as unit float32 columns of blocks (dim, b)."""
        if self._kept is not None:
            yield from self._kept
            return
        keep = self._asked and len(self) * self._vectors.dim * 4 <= self._resident_bytes
        self._asked = True
        kept: list[Float] = []
        threads = min(MOST_THREADS, os.cpu_count() or 1)
        with ThreadPoolExecutor(threads, thread_name_prefix="embedstore-unit") as pool:
            for rows in ordered_map(pool, unit_rows, self._vectors.blocks(BLOCK), window=threads + 1):
                columns = np.ascontiguousarray(rows.T) if keep else rows.T
                if keep:
                    kept.append(columns)
                yield columns
        self._kept = kept if keep else None

    def _picked(self, subset: Positions) -> Iterator[Float]:
        for lo in range(0, len(subset), BLOCK):
            yield unit_rows(self._vectors.take(subset[lo : lo + BLOCK])).T


class Best:
    """The `k` highest scores of each of `m` queries, over blocks of scores."""

    def __init__(self, m: int, k: int) -> None:
        self._faiss = require("faiss", extra="cpu")
        self._faiss.omp_set_num_threads(1)  # FAISS's threads and those of BLAS slow each other down five times
        self._scores = np.empty((m, k), np.float32)
        self._labels = np.empty((m, k), np.int64)
        self._heap = self._faiss.float_minheap_array_t()
        self._heap.nh, self._heap.k = m, k
        self._heap.val, self._heap.ids = self._faiss.swig_ptr(self._scores), self._faiss.swig_ptr(self._labels)
        self._heap.heapify()

    def add(self, scores: Float, start: int) -> None:
        """Scores (m, b) of the vectors at `start`, `start` + 1, …"""
        scores = np.ascontiguousarray(scores, np.float32)
        self._heap.addn(scores.shape[1], self._faiss.swig_ptr(scores), start)

    def sorted(self) -> tuple[Float, Positions]:
        """Scores (m, k) descending and their labels; -1 where fewer than k were added."""
        self._heap.reorder()
        return self._scores, self._labels
