"""Arrays kept in a temporary file instead of in memory: equal slots, mapped while they are looked at. Numpy only."""

from __future__ import annotations

import mmap
import os
import tempfile
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class Slots:
    """A file without a name, which is gone when the process ends however it ends, in slots of equal size.

    Parameters
    ----------
    folder : path
        On whose disk it lies.
    size : int
        Bytes that a slot holds at least.

    Raises
    ------
    OSError
        The folder cannot be written to.
    """

    def __init__(self, folder: str | os.PathLike[str], size: int) -> None:
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115, it lives as long as this
        weakref.finalize(self, self._file.close)
        self._size = -(-size // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
        self._free: list[int] = []
        self._slots = 0

    def put(self, arrays: Sequence[Array]) -> int:
        """Write `arrays`, which fit, one after the other; the slot they are in.

        Raises
        ------
        OSError
            The disk is full; no other slot has changed.
        """
        slot = self._free[-1] if self._free else self._slots
        if slot == self._slots:
            self._file.truncate((slot + 1) * self._size)
        self._file.seek(slot * self._size)
        for array in arrays:
            left = memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
            while left:
                left = left[self._file.write(left) :]
        if self._free:
            self._free.pop()
        else:
            self._slots += 1
        return slot

    def get(self, slot: int) -> mmap.mmap:
        """The bytes of a slot, read-only; resident, where they were looked at, as long as somebody holds them."""
        return mmap.mmap(self._file.fileno(), self._size, access=mmap.ACCESS_READ, offset=slot * self._size)

    def free(self, slot: int) -> None:
        """Let a slot be written again."""
        self._free.append(slot)
