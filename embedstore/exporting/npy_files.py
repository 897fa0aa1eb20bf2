"""Vectors in ``.npy`` files, where a row of NaN stands for an item without one: zeros would be taken for a vector."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

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


def make_room(path: Path, shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
    """An array of zeros as a file. A disk that is too small says so here: a map of it would end the process later."""
    with open(path, "xb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        file.flush()
        if size := shape[0] * shape[1] * dtype.itemsize:
            os.posix_fallocate(file.fileno(), file.tell(), size)


def put_rows(path: Path, first: int, rows: Array) -> None:
    """Write `rows` (n, dim) into the array of a file, from row `first` on, durably."""
    offset = np.load(path, mmap_mode="r", allow_pickle=False).offset
    with open(path, "r+b") as file:
        file.seek(offset + first * rows.shape[1] * rows.itemsize)
        file.write(np.ascontiguousarray(rows).data)
        file.flush()
        os.fsync(file.fileno())


def rows_of(path: Path, first: int, count: int) -> Array:
    """Rows (count, dim) of the array of a file, in memory."""
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False)[first : first + count])
