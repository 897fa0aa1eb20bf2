"""Vectors in ``.npy`` files, where a row of NaN stands for an item without one: zeros would be taken for a vector."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from embedstore._core.atomic_files import completing
from embedstore.exporting.base import Array, Mask


def with_nan(vectors: Array, present: Mask) -> Array:
    """`vectors` (n, dim), where those that are not `present` (n,) are NaN."""
    return vectors if present.all() else np.where(present[:, None], vectors, np.asarray(np.nan, vectors.dtype))


def without_nan(rows: Array) -> tuple[Array, Mask]:
    """Vectors (n, dim) as `with_nan` wrote them, and which of them are there (n,)."""
    present = ~np.isnan(rows[:, 0])
    return np.where(present[:, None], rows, np.asarray(0, rows.dtype)), present


def save(path: Path, array: Array) -> None:
    """Write an array as `numpy.save` does; the file appears when it is complete."""
    path.parent.mkdir(exist_ok=True)
    with completing(path) as temporary, open(temporary, "xb") as file:
        np.save(file, array, allow_pickle=False)
