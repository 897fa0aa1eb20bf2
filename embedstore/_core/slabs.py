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
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Pin = Callable[[Bytes], Callable[[], None]]
"""Makes memory (n,) uint8 known to a device that copies from it; what is returned undoes that."""

LEAST, SLAB = 1 << 16, 1 << 26
"""Bytes of the smallest block, and of a slab that is divided into blocks: few slabs are few open files."""


class Slab:
    """A piece of shared memory.

    Parameters
    ----------
    number : int
        What the processes call it.
    size : int
    pin : callable, optional
        See `Pin`.

    Raises
    ------
    OSError
        The system has no more memory, or lets no more files be open.
    """

    def __init__(self, number: int, size: int, pin: Pin | None = None) -> None:
        self.number = number
        self.size = size
        self.fd = os.memfd_create(f"embedstore-{number}", os.MFD_CLOEXEC)
        weakref.finalize(self, os.close, self.fd)
        os.ftruncate(self.fd, size)
        self.memory = mmap.mmap(self.fd, size)
        if pin is not None:
            weakref.finalize(self, pin(np.frombuffer(self.memory, np.uint8)))

    @property
    def passing(self) -> bool:
        """Whether it is for one block, and let go with it."""
        return self.size > SLAB


class Block(NamedTuple):
    """Memory (n,) uint8 at an offset of a slab; it is free again when no view of it is left."""

    slab: Slab
    offset: int
    memory: Bytes


class Slabs:
    """The shared memory of a run.

    Parameters
    ----------
    pin : callable, optional
        See `Pin`; for blocks that are taken with ``pinned``.
    """

    def __init__(self, pin: Pin | None = None) -> None:
        self._pin = pin
        self._numbers = itertools.count()
        self._free: dict[tuple[int, bool], deque[tuple[Slab, int]]] = defaultdict(deque)

    def take(self, size: int, *, pinned: bool = False) -> Block:
        """A block of at least `size` bytes.

        Whichever thread drops its last view gives it back, so nothing here takes a lock: a deque's own steps are atomic.
        """
        whole = max(LEAST, 1 << (size - 1).bit_length()) if size > 1 else LEAST
        if whole > SLAB:
            slab = Slab(next(self._numbers), size, self._pin if pinned else None)
            return Block(slab, 0, np.frombuffer(slab.memory, np.uint8))
        free = self._free[whole, pinned]
        try:
            slab, offset = free.pop()  # the one that caches still know
        except IndexError:
            slab, offset = Slab(next(self._numbers), SLAB, self._pin if pinned else None), 0
            free.extend((slab, at) for at in range(whole, SLAB, whole))
        memory = np.frombuffer(slab.memory, np.uint8, whole, offset)
        finalizer: Any = weakref.finalize(memory, free.append, (slab, offset))
        finalizer.atexit = False
        return Block(slab, offset, memory)


class Shared:
    """Bytes in a block; they stay there for as long as this is held.

    Parameters
    ----------
    block : Block
    start, size : int
        Where they are in it.
    """

    __slots__ = ("_memory", "offset", "slab")

    def __init__(self, block: Block, start: int, size: int) -> None:
        self.slab = block.slab
        self.offset = block.offset + start
        self._memory = block.memory[start : start + size]

    def __len__(self) -> int:
        return len(self._memory)

    def __bytes__(self) -> bytes:
        return self._memory.tobytes()

    @property
    def view(self) -> memoryview:
        """The bytes, not copied."""
        return self._memory.data
