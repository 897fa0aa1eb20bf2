"""Two coordinates for each vector of a space, so that a map of it can be drawn. Arrays in, arrays out; knows no store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore._core.threads import bounded
from embedstore._core.unit import unit_rows
from embedstore.registry import require

Array = npt.NDArray[Any]
Float = npt.NDArray[np.float32]
Neighbours = Callable[[int], tuple[npt.NDArray[np.int64], Float]]
"""From k to the positions (n, k) of the nearest others of each vector, -1 where there are fewer, and their cosines."""

SAMPLE = 20_000
BLOCK = 16_384
NEIGHBOURS = 15
MIN_DIST = 0.1
SEED = 0
WIDTH, ROUNDS = 8, 12
"""Of the subspace that the main directions are looked for in."""
PARAMETERS: dict[str, dict[str, Any]] = {
    "pca": {"sample": SAMPLE, "seed": SEED},
    "umap": {"n_neighbors": NEIGHBOURS, "min_dist": MIN_DIST, "metric": "cosine", "seed": SEED},
}
"""By method: all that the coordinates depend on besides the vectors."""


@bounded()
def pca(vectors: Array) -> Float:
    """The two directions (n, 2) in which unit vectors (n, dim) vary most, from a sample of them; see `scaled`."""
    n = len(vectors)
    if n < 3:
        return scaled(np.column_stack([np.arange(n), np.zeros(n)]))
    at = np.arange(n) if n <= SAMPLE else np.sort(np.random.default_rng(SEED).choice(n, SAMPLE, replace=False))
    some = unit_rows(vectors[at])
    mean = some.mean(axis=0)
    some -= mean
    axes = _directions(some)
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), [0, 1]])  # a direction has no sign of its own
    parts = [(unit_rows(vectors[lo : lo + BLOCK]) - mean) @ axes for lo in range(0, n, BLOCK)]
    return scaled(np.concatenate(parts))


def _directions(x: Float) -> Float:
    """The two directions (dim, 2) in which the rows of x (m, dim) vary most, by subspace iteration; of one number, zeros."""
    basis = np.random.default_rng(SEED).standard_normal((x.shape[1], min(WIDTH, x.shape[1]))).astype(np.float32)
    for _ in range(ROUNDS):
        basis, _ = np.linalg.qr(x.T @ (x @ basis))
    _, _, turned = np.linalg.svd(x @ basis, full_matrices=False)
    axes = np.zeros((x.shape[1], 2), np.float32)
    axes[:, : len(turned)] = basis @ turned[:2].T
    return axes


def umap(vectors: Array, neighbours: Neighbours) -> Float:
    """UMAP (n, 2) of vectors (n, dim) from a graph of neighbours that is there already; see `scaled`.

    Raises
    ------
    MissingDependencyError
        umap-learn is not installed.

    Notes
    -----
    McInnes, Healy & Melville 2018. It begins at the two main directions, so that maps of one space look alike.
    """
    learn = require("umap", extra="umap")
    start = pca(vectors)
    n = len(vectors)
    k = min(NEIGHBOURS, n - 1)
    if k < 2:
        return start
    found, cosines = neighbours(k - 1)
    own = np.arange(n)[:, None]
    gone = found < 0  # fewer neighbours than asked for: itself again, infinitely near
    positions = np.concatenate([own, np.where(gone, own, found)], axis=1)
    distances = np.concatenate([np.zeros((n, 1), np.float32), np.where(gone, 0, np.clip(1 - cosines, 0, 2))], axis=1)
    reducer = learn.UMAP(
        n_neighbors=k,
        min_dist=MIN_DIST,
        metric="cosine",
        init=10 * start,
        random_state=SEED,
        n_jobs=1,
        precomputed_knn=(positions, distances.astype(np.float32)),
    )
    return scaled(reducer.fit_transform(np.asarray(vectors, np.float32)))


def scaled(points: Array) -> Float:
    """Points (n, 2) moved and shrunk into the square from -1 to 1, alike in both directions."""
    points = np.nan_to_num(np.asarray(points, np.float64).reshape(-1, 2))
    if not len(points):
        return np.empty((0, 2), np.float32)
    low, high = points.min(axis=0), points.max(axis=0)
    return np.ascontiguousarray((points - (low + high) / 2) / max(float((high - low).max()) / 2, 1e-12), np.float32)
