"""What an index reads from: vectors by block and by position. Arrays here; a store's space fits the same protocol."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from embedstore._core.arguments import shown
from embedstore.errors import UsageError

Array = npt.NDArray[Any]
Float = npt.NDArray[np.float32]
Positions = npt.NDArray[np.int64]

BLOCK = 16384


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
    if isinstance(given, np.ndarray):
        return ArrayVectors(given)
    if not hasattr(given, "take"):
        raise UsageError(f"vectors must be an array (n, dim), or be read in blocks. Got {shown(given)} instead.")
    return given


class Takes(Protocol):
    """Gives vectors (m, dim) by number."""

    def take(self, rows: Positions, /) -> Array: ...


def directed(vectors: Takes, positions: Positions) -> npt.NDArray[np.bool_]:
    """Which vectors (m,) have a direction: those that are not all zeros. A block of them is read at a time."""
    found = np.zeros(len(positions), bool)
    for lo in range(0, len(positions), BLOCK):
        found[lo : lo + BLOCK] = vectors.take(positions[lo : lo + BLOCK]).any(axis=1)
    return found
