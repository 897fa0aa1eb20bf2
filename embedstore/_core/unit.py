"""Rows of unit length: the one way in which vectors are made comparable by cosine."""

from __future__ import annotations

from typing import Any, TypeVar, overload

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
F = TypeVar("F", np.float32, np.float64)

PIECE = 1 << 17
"""Numbers worked on at once: pieces stay in the cache, which halves the time."""
LEAST, MOST = 1e-30, np.inf
"""Squares of lengths between which float32 neither over- nor underflows."""


@overload
def unit_rows(vectors: Array) -> npt.NDArray[np.float32]: ...


@overload
def unit_rows(vectors: Array, dtype: type[F]) -> npt.NDArray[F]: ...


def unit_rows(vectors: Array, dtype: type[Any] = np.float32) -> Array:
    """`vectors` (n, d) as `dtype` with unit L2 norm; rows of zeros stay zero.

    A row's result depends on nothing but the row: those that `dtype` cannot square are scaled down in float64 first.
    """
    if len(vectors) == 1 and vectors.dtype == dtype:  # one query should cost next to nothing
        row = vectors[0]
        if LEAST < (square := float(np.dot(row, row))) < MOST:
            return np.ascontiguousarray(vectors * dtype(square**-0.5))
    out = np.empty(vectors.shape, dtype)
    step = max(1, PIECE // max(1, vectors.shape[1]))
    for lo in range(0, len(vectors), step):
        x = out[lo : lo + step]
        with np.errstate(over="ignore"):
            x[...] = vectors[lo : lo + step]
        square = np.einsum("ij,ij->i", x, x)
        if LEAST < square.min() <= square.max() < MOST:
            x /= np.sqrt(square)[:, None]
            continue
        plain = (square > LEAST) & (square < MOST)
        x /= np.sqrt(np.where(plain, square, 1))[:, None]
        x[~plain] = _scaled_first(vectors[lo : lo + step][~plain])
    return out


def _scaled_first(vectors: Array) -> npt.NDArray[np.float64]:
    """Unit rows of vectors whose squares are too large or too small, or that are all zeros."""
    wide = np.asarray(vectors, np.float64)
    largest = np.abs(wide).max(axis=1, initial=0.0)
    with np.errstate(invalid="ignore"):  # infinity becomes NaN, which callers look for
        wide = wide / np.where(largest > 0, largest, 1)[:, None]
    norms = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    norms[norms == 0] = 1
    return np.asarray(wide / norms[:, None])


def unit_each(vectors: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """`unit_rows`, a row at a time: of many rows at once the last bit of one depends on the others."""
    return np.concatenate([unit_rows(row[None]) for row in vectors])
