"""`RawVectors`: what an index is built over and reads from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from embedstore.store.part_files import VECTORS
from embedstore.store.parts import read_into

if TYPE_CHECKING:
    from embedstore.store.space import Space

Array = npt.NDArray[Any]
Rows = npt.NDArray[np.int64]


class RawVectors:
    """All committed vectors of a space by position, removed or not; fits what an index reads from. The space knows none.

    Blocks and picked vectors are plain reads, so that neither walking a space nor picking from it makes it resident.
    """

    def __init__(self, space: Space) -> None:
        self._space = space

    def __len__(self) -> int:
        return len(self._space.raw_rows)

    @property
    def dim(self) -> int:
        return self._space.dim

    def blocks(self, size: int = 16384) -> Iterator[Array]:
        """All vectors in order, at most `size` rows at a time."""
        for ref in self._space.parts:
            for lo in range(0, ref.rows, size):
                out = np.empty((min(size, ref.rows - lo), self.dim), self._space.dtype)
                read_into(out, self._space.files, ref, VECTORS, first=lo)
                yield out

    def take(self, positions: Rows) -> Array:
        """Vectors (m, dim) at `positions` (m,)."""
        picker = self._space._picker
        return self._space._at(positions) if picker is None else picker.take(positions)

    def array(self) -> Array:
        """All of them (n, dim), in memory."""
        return np.concatenate([np.empty((0, self.dim), self._space.dtype), *self.blocks()])
