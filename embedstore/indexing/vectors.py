"""What an index reads from: vectors by block and by position. Arrays here; a store's space fits the same protocol."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from embedstore.errors import UsageError

Array = npt.NDArray[Any]
Float = npt.NDArray[np.float32]
Positions = npt.NDArray[np.int64]

BLOCK = 16384
PIECE = 1 << 17  # numbers


class Vectors(Protocol):
    """Vectors (n, dim) that need not fit into memory; a position never changes what it holds."""

    def __len__(self) -> int: ...

    @property
    def dim(self) -> int: ...

    def blocks(self, size: int = BLOCK) -> Iterator[Array]:
        """All vectors in order, at most `size` at a time, in arrays that stay as they are."""
        ...

    def take(self, positions: Positions) -> Array:
        """Vectors (m, dim) at `positions` (m,), in any order and with repeats."""
        ...


class ArrayVectors:
    """An array (n, dim) as `Vectors`.

    Raises
    ------
    UsageError
        The array is not two-dimensional, not of numbers, or not finite.
    """

    def __init__(self, array: Array) -> None:
        array = np.asarray(array)
        if array.ndim != 2 or array.dtype.kind not in "fiu" or not array.shape[1]:
            raise UsageError(f"Vectors should be numbers of shape (n, dim). Got {array.dtype}{array.shape} instead.")
        self._array = array
        for start, block in zip(range(0, len(array), BLOCK), self.blocks(), strict=False):
            if block.dtype.kind == "f" and not np.isfinite(block).all():
                bad = start + int(np.flatnonzero(~np.isfinite(block).all(axis=1))[0])
                raise UsageError(f"The vector at position {bad} holds NaN or infinity.")

    def __len__(self) -> int:
        return len(self._array)

    @property
    def dim(self) -> int:
        return int(self._array.shape[1])

    def blocks(self, size: int = BLOCK) -> Iterator[Array]:
        for start in range(0, len(self._array), size):
            yield self._array[start : start + size]

    def take(self, positions: Positions) -> Array:
        return np.asarray(self._array[positions])


def as_vectors(given: Array | Vectors) -> Vectors:
    """`given`, or an array wrapped as `Vectors`."""
    return ArrayVectors(given) if isinstance(given, np.ndarray) else given


class Takes(Protocol):
    """Gives vectors (m, dim) by number."""

    def take(self, rows: Positions, /) -> Array: ...


def directed(vectors: Takes, positions: Positions) -> npt.NDArray[np.bool_]:
    """Which vectors (m,) have a direction: those that are not all zeros. A block of them is read at a time."""
    found = np.zeros(len(positions), bool)
    for lo in range(0, len(positions), BLOCK):
        found[lo : lo + BLOCK] = vectors.take(positions[lo : lo + BLOCK]).any(axis=1)
    return found


def unit_rows(vectors: Array) -> Float:
    """`vectors` (n, d) as float32 with unit L2 norm; rows of zeros stay zero."""
    if len(vectors) == 1 and vectors.dtype == np.float32:  # one query should cost next to nothing
        row = vectors[0]
        if 1e-30 < (length := float(np.dot(row, row))) < np.inf:
            return np.ascontiguousarray(vectors * np.float32(length**-0.5))
    out = np.empty(vectors.shape, np.float32)
    step = max(1, PIECE // max(1, vectors.shape[1]))
    for lo in range(0, len(vectors), step):  # pieces stay in the cache: half the time
        x = out[lo : lo + step]
        with np.errstate(over="ignore"):
            x[...] = vectors[lo : lo + step]
        square = np.einsum("ij,ij->i", x, x)
        if not 1e-30 < square.min() <= square.max() < np.inf:  # zeros, or float32 over- or underflows
            x[...] = _unit_rows_in_float64(vectors[lo : lo + step])
        else:
            x /= np.sqrt(square)[:, None]
    return out


def _unit_rows_in_float64(vectors: Array) -> Float:
    wide = np.asarray(vectors, dtype=np.float64)
    largest = np.abs(wide).max(axis=1, initial=0.0)
    with np.errstate(invalid="ignore"):  # infinity becomes NaN, which callers look for
        wide = wide / np.where(largest > 0, largest, 1)[:, None]
    norms = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    norms[norms == 0] = 1
    unit: Float = wide.astype(np.float32) / norms[:, None].astype(np.float32)
    return unit
