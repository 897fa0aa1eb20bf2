"""Spherical k-means of unit vectors, by blocked matrix products. NumPy only."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore._core.unit import unit_rows

Unit = npt.NDArray[Any]
Positions = npt.NDArray[np.int64]

ROUNDS = 8


def kmeans(unit: Unit, k: int, *, seed: int, rounds: int = ROUNDS) -> Unit:
    """Spherical k-means: `k` unit centroids (k, d) of unit vectors (n, d), n ≥ k; an empty cluster starts again at random."""
    rng = np.random.default_rng(seed)
    centroids = unit[rng.choice(len(unit), k, replace=False)].copy()
    for _ in range(rounds):
        nearest = assign(unit, centroids)
        order = np.argsort(nearest, kind="stable")
        used, first = np.unique(nearest[order], return_index=True)
        for lo in range(0, unit.shape[1], 64):  # a few columns at a time: no second copy of the sample
            centroids[used, lo : lo + 64] = np.add.reduceat(unit[order, lo : lo + 64], first, axis=0)
        empty = np.setdiff1d(np.arange(k), used)
        centroids[empty] = unit[rng.choice(len(unit), len(empty), replace=False)]
        centroids = unit_rows(centroids)
    return np.asarray(centroids)


def assign(unit: Unit, centroids: Unit) -> Positions:
    """The centroid (n,) int64 nearest to each unit vector, by blocked matrix products."""
    nearest = np.empty(len(unit), np.int64)
    size = max(256, (1 << 22) // len(centroids))
    for lo in range(0, len(unit), size):
        nearest[lo : lo + size] = np.argmax(unit[lo : lo + size] @ centroids.T, axis=1)
    return nearest
