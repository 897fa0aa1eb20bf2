"""Memory that processes share: one writes into it what another reads, and nothing is copied. Linux (memfd); standard library
and NumPy only.
"""

from __future__ import annotations

import itertools
import mmap
import os
import weakref
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Pin = Callable[[Bytes], Callable[[], None]]
"""Makes memory (n,) uint8 known to a device that copies from it; what is returned undoes that."""

LEAST = 1 << 16


class Slab:
    """A piece of shared memory.

    Parameters
    ----------
    number : int
        What the processes call it.
    size : int
    pin : callable, optional
        See `Pin`.
    """

    def __init__(self, number: int, size: int, pin: Pin | None = None) -> None:
        self.number = number
        self.size = size
        self.fd = os.memfd_create(f"embedstore-{number}", os.MFD_CLOEXEC)
        weakref.finalize(self, os.close, self.fd)
        os.ftruncate(self.fd, size)
        self._memory = mmap.mmap(self.fd, size)
        if pin is not None:
            weakref.finalize(self, pin(np.frombuffer(self._memory, np.uint8)))

    def array(self) -> Bytes:
        """All of it, (size,) uint8."""
        return np.frombuffer(self._memory, np.uint8)


class Slabs:
    """Slabs of a run, used again once nothing looks at what they hold.

    Parameters
    ----------
    pin : callable, optional
        See `Pin`; for the slabs that are taken with ``pinned``.
    """

    def __init__(self, pin: Pin | None = None) -> None:
        self._pin = pin
        self._numbers = itertools.count()
        self._free: dict[tuple[int, bool], deque[Slab]] = defaultdict(deque)

    def take(self, size: int, *, pinned: bool = False) -> tuple[Slab, Bytes]:
        """A slab of at least `size` bytes and its memory (size,) uint8; it is free again when no view of that is left.

        Whichever thread drops the last view gives it back, so nothing here takes a lock: a deque's own steps are atomic.
        """
        whole = max(LEAST, 1 << (size - 1).bit_length()) if size > 1 else LEAST
        free = self._free[whole, pinned]
        try:
            slab = free.pop()  # the one that caches still know
        except IndexError:
            slab = Slab(next(self._numbers), whole, self._pin if pinned else None)
        memory = slab.array()
        finalizer: Any = weakref.finalize(memory, free.append, slab)
        finalizer.atexit = False
        return slab, memory


class Shared:
    """Bytes in a slab; they stay there for as long as this is held.

    Parameters
    ----------
    slab : Slab
    memory : (size,) uint8
        Of the slab, as it was taken.
    offset, size : int
    """

    __slots__ = ("_memory", "offset", "slab")

    def __init__(self, slab: Slab, memory: Bytes, offset: int, size: int) -> None:
        self.slab = slab
        self.offset = offset
        self._memory = memory[offset : offset + size]

    def __len__(self) -> int:
        return len(self._memory)

    def __bytes__(self) -> bytes:
        return self._memory.tobytes()

    @property
    def view(self) -> memoryview:
        """The bytes, not copied."""
        return self._memory.data
