"""Exact cosine search with FAISS: the reference that every approximate index is measured against.

Arrays in, arrays out; knows no store.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.registry import require

Array = npt.NDArray[Any]
Float = npt.NDArray[np.float32]

BLAS_FROM_QUERIES = 4


def unit_rows(vectors: Array) -> Float:
    """`vectors` (n, d) as float32 with unit L2 norm; rows of zeros stay zero."""
    x = np.asarray(vectors, dtype=np.float32)
    norms = np.sqrt(np.einsum("ij,ij->i", x, x, dtype=np.float64))
    norms[norms == 0] = 1
    return np.ascontiguousarray(x / norms[:, None].astype(np.float32))


class ExactIndex:
    """All vectors in memory as unit float32; scores are cosines.

    Parameters
    ----------
    dim : int
    capacity : int
        How many vectors will be added.
    """

    def __init__(self, dim: int, capacity: int) -> None:
        self.vectors: Float = np.empty((capacity, dim), np.float32)
        self._n = 0

    @classmethod
    def from_blocks(cls, blocks: Iterable[Array], dim: int, n: int) -> ExactIndex:
        """An index over `n` vectors (n, dim) that come in blocks."""
        index = cls(dim, n)
        for block in blocks:
            index.add(block)
        return index

    def __len__(self) -> int:
        return self._n

    def add(self, block: Array) -> None:
        """Add vectors (m, dim)."""
        self.vectors[self._n : self._n + len(block)] = unit_rows(block)
        self._n += len(block)

    def search(
        self, queries: Array, k: int, *, subset: npt.NDArray[np.intp] | None = None
    ) -> tuple[Float, npt.NDArray[np.int64]]:
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
        faiss = require("faiss", extra="cpu")
        base = self.vectors[: self._n] if subset is None else self.vectors[subset]
        k = min(k, len(base))
        if k == 0:
            return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        # With nq·d below the threshold FAISS rescans the base per query instead of using BLAS; its default is 128,000.
        faiss.cvar.distance_compute_blas_threshold = BLAS_FROM_QUERIES * base.shape[1]
        threads = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(1 if len(queries) < BLAS_FROM_QUERIES else threads)  # two threads slow one query
        try:
            scores, positions = faiss.knn(unit_rows(queries), base, k, metric=faiss.METRIC_INNER_PRODUCT)
        finally:
            faiss.omp_set_num_threads(threads)
        return scores, positions if subset is None else subset[positions]
