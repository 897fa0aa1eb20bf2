"""One query through a graph at the least cost of Python.

After a walk all caches are cold: every call of NumPy that was not made a moment ago costs 2 to 4 µs, beside walks of 50. So
what FAISS fills is made once, its calls are bound to pointers to that, and lengths and scores are left to functions of FAISS.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from embedstore.indexing.entries import Entries
from embedstore.indexing.vectors import Array, Float, Positions
from embedstore.registry import require

ALL_AT_ONCE = 2  # FAISS's name for it: a walk begins at all its entries (there is one)


class Single:
    """Asks a FAISS index, L2, of unit vectors for the `k` nearest of one query; for one thread.

    Parameters
    ----------
    index
    entries : Entries, optional
        Where walks begin.
    dim, k : int
    """

    def __init__(self, index: Any, entries: Entries | None, dim: int, k: int) -> None:
        faiss = require("faiss", extra="cpu")
        self.k = k
        self.query = np.empty((1, dim), np.float32)
        self._distances, self._scores, self._ones = (np.ones((1, k), np.float32) for _ in range(3))
        self._labels = np.empty((1, k), np.int64)
        filled = self.query, self._distances, self._scores, self._ones, self._labels
        query, distances, scores, ones, labels = map(faiss.swig_ptr, filled)
        self._alone = partial(faiss.omp_set_num_threads, 1)
        self._squared_length = partial(faiss.fvec_norm_L2sqr, query, dim)
        self._score = partial(faiss.fvec_madd, k, ones, -0.5, distances, scores)
        self._begin: Callable[[], Any] | None = None
        if entries is None:
            self._walk = partial(index.search_c, 1, query, k, distances, labels)
        else:
            self._entry, self._nearness = np.zeros(1, np.int64), np.empty(1, np.float32)
            # FAISS wants 32 bits of the label of 64 that it gave
            half = self._entry.view(np.int32)[:: -1 if sys.byteorder == "big" else 1][:1]
            nearness = faiss.swig_ptr(self._nearness)
            self._begin = entries.call(1, query, nearness, faiss.swig_ptr(self._entry))
            self._walk = partial(
                index.search_level_0, 1, query, k, faiss.swig_ptr(half), nearness, distances, labels, 1, ALL_AT_ONCE
            )

    def ask(
        self, query: Array, parameters: Any, harder: Any | None = None, doubt: float = -1.0
    ) -> tuple[Float, Positions] | None:
        """Scores (1, k) float32 and labels (1, k) int64 of `query` (dim,); None where it or the answer needs more care.

        The query may have any length but zero; None where it has none, or fewer than `k` were found.
        If its best score is below `doubt`, it is asked again with the parameters `harder`.
        """
        self.query[0] = query
        squared = self._squared_length()
        if not 0.999999 < squared < 1.000001:
            if not 1e-30 < squared < 1e30:
                return None
            self.query *= squared**-0.5
        self._alone()
        if self._begin is not None:
            self._begin()
        self._walk(parameters)
        if harder is not None and self._distances.item(0) > 2 - 2 * doubt:
            self._walk(harder)
        if self._labels.item(-1) < 0:
            return None
        self._score()
        return self._scores.copy(), self._labels.copy()
