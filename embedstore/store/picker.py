"""Single rows of a dataset over many parts, read where they lie."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.errors import CorruptStoreError
from embedstore.store.format import PartRef
from embedstore.store.part_files import VECTORS, PartFiles

OPEN_FILES = 128
"""Of a space at once: a store of a hundred million vectors has two thousand parts, and a process may open a thousand files."""


class RowPicker:
    """Single vectors by position over all parts.

    One positioned read a row: nothing becomes resident, while a memory map keeps the pages around each row (whole huge pages,
    where the file system has cached the file in such), and a few rows from many parts cost a quarter of what maps cost.

    Parameters
    ----------
    files : PartFiles
    refs : sequence of PartRef
        Vector parts whose vectors have an offset.
    dtype : numpy dtype
    width : int
    """

    def __init__(self, files: PartFiles, refs: Sequence[PartRef], dtype: np.dtype[Any], width: int) -> None:
        self._files, self._refs = files, refs
        self._paths = [files.path(ref) for ref in refs]
        self._starts = np.concatenate([[0], np.cumsum([ref.rows for ref in refs])]).astype(np.int64)
        self._dtype, self._width = dtype, width
        self._row_bytes = width * dtype.itemsize
        self._offsets = np.asarray([ref.offsets[VECTORS] for ref in refs], np.int64)
        self._few = len(refs) <= OPEN_FILES
        self._unknown: npt.NDArray[np.bool_] | None = None
        self._lock = threading.Lock()
        self._open: dict[int, int] = {}
        weakref.finalize(self, _close, self._open)

    def take(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Rows (m, width) at `positions` (m,), not to be written to.

        Raises
        ------
        CorruptStoreError
            A file is shorter than it was when it was committed.
        """
        positions = np.asarray(positions)
        part = np.searchsorted(self._starts, positions, side="right") - 1
        within = positions - self._starts[part]
        self._check(part, within)
        offsets = within * self._row_bytes + self._offsets[part]
        if self._few:  # files stay open, other threads need not wait
            with self._lock:
                files = self._opened(part.tolist())
            return self._read(files, offsets.tolist())
        out = np.empty((len(positions), self._width), self._dtype)
        group = np.unique(part, return_inverse=True)[1].reshape(-1) // OPEN_FILES
        with self._lock:
            for number in range(int(group.max(initial=-1)) + 1):
                at = np.flatnonzero(group == number)
                _close(self._open)
                out[at] = self._read(self._opened(part[at].tolist()), offsets[at].tolist())
            _close(self._open)
        return out

    def _check(self, part: npt.NDArray[np.int64], within: npt.NDArray[np.int64]) -> None:
        """Compare what was not compared before of the blocks that the vectors `within` parts lie in."""
        if self._unknown is None:
            self._unknown = np.asarray([not self._files.known(ref) for ref in self._refs], np.bool_)
        if self._unknown.any():
            for number in np.unique(part[self._unknown[part]]).tolist():
                self._files.check_picked(self._refs[number], within[part == number], self._row_bytes)
                self._unknown[number] = not self._files.known(self._refs[number])

    def _opened(self, parts: list[int]) -> list[int]:
        for number in set(parts) - self._open.keys():
            self._open[number] = os.open(self._paths[number], os.O_RDONLY)
        return [self._open[number] for number in parts]

    def _read(self, files: list[int], offsets: list[int]) -> npt.NDArray[Any]:
        data = b"".join(map(os.pread, files, [self._row_bytes] * len(files), offsets))
        if len(data) != len(files) * self._row_bytes:
            raise CorruptStoreError(f"A part in {self._paths[0].parent} is too short.", "'embedstore verify' says which.")
        return np.frombuffer(data, self._dtype).reshape(len(files), self._width)


def _close(files: dict[int, int]) -> None:
    while files:
        os.close(files.popitem()[1])
