"""`RawVectors`: what an index is built over and reads from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from embedstore.store.format import PartRef
from embedstore.store.part_files import VECTORS, PartFiles
from embedstore.store.parts import read_into
from embedstore.store.picker import RowPicker

Array = npt.NDArray[Any]
Rows = npt.NDArray[np.int64]


class Readable(Protocol):
    """What of a space is read."""

    @property
    def raw_rows(self) -> Rows: ...
    @property
    def dim(self) -> int: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def parts(self) -> tuple[PartRef, ...]: ...
    @property
    def files(self) -> PartFiles: ...
    @property
    def picker(self) -> RowPicker | None: ...
    def at(self, position: Rows) -> Array: ...


class RawVectors:
    """All committed vectors of a space by position, removed or not; fits what an index reads from. The space knows none.

    Blocks and picked vectors are plain reads, so that neither walking a space nor picking from it makes it resident.
    """

    def __init__(self, space: Readable) -> None:
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
        picker = self._space.picker
        return self._space.at(positions) if picker is None else picker.take(positions)

    def array(self) -> Array:
        """All of them (n, dim), in memory."""
        return np.concatenate([np.empty((0, self.dim), self._space.dtype), *self.blocks()])
