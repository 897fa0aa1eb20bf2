"""`PartFiles`: the committed files of one store, compared with their sums as they are first used on this machine.

A rotten byte is an error that names its file, never an answer. What was compared is remembered by inode, size and times
(`embedstore._core.digests`), so that it costs once: whole files where they are read whole, vectors by the block.
"""

from __future__ import annotations

import os
import stat
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore._core.digests import Note, check_digest, note_of
from embedstore._core.folders import misplaced, regular_file
from embedstore._core.sums import READ_BYTES, block_sums, sum_of, sum_of_file
from embedstore.errors import CorruptStoreError, StoreError, next_step, reason_of
from embedstore.store.format import PartRef, read_manifest

VECTORS, ROW, HASH, PLACE, SUMS = "vectors", "row", "hash", "place", "xxh3"
SINGLE, SINGLE_OF_PIECES = (ROW, HASH), (ROW, PLACE)
"""Datasets of a vector part, or of one of pieces, under one sum each. `/xxh3` holds the size of a block, their sums, and those
of the blocks."""
FIRST_READ = 1 << 14
"""Of a table of sums; a longer one is read again."""
SPARSE_BYTES, SPARSE = 1 << 30, 1000
"""A file of so many bytes of which the disk holds less than one in so many has holes: it would be read for hours."""
MOST_ROWS = 1 << 16
"""Vectors under one sum: more are no block of ours."""


@dataclass
class _Sums:
    """The sums of a vector part, and which blocks were compared."""

    status: os.stat_result
    size: int
    single: dict[str, int]
    blocks: npt.NDArray[np.uint64]
    seen: npt.NDArray[np.bool_]


class PartFiles:
    """Where the parts of a store are read.

    Parameters
    ----------
    root : Path
        The store's folder.
    check : bool
        Compare what is read with its sums; without it only sizes are looked at.
    lease : int, optional
        A descriptor that is closed with this object: it keeps the files of one epoch alive.
    """

    def __init__(self, root: Path, *, check: bool = True, lease: int | None = None) -> None:
        self.root = root
        self.check = check
        self._whole: set[str] = set()
        self._compared: set[str] = set()
        self._unknown: set[str] = set()
        self._notes: dict[str, Note] = {}
        self._sums: dict[str, _Sums] = {}
        if lease is not None:
            weakref.finalize(self, os.close, lease)

    def path(self, ref: PartRef) -> Path:
        """The path of a part after a look at its size (no byte is read).

        Raises
        ------
        CorruptStoreError
        """
        return self._found(ref)[0]

    def _found(self, ref: PartRef) -> tuple[Path, os.stat_result]:
        path, folder = self.root / ref.file, ref.file.rpartition("/")[0]
        try:
            status = os.lstat(path) if folder in self._notes else regular_file(self.root, ref.file)
            if folder not in self._notes:  # whose folders are real ones
                self._notes[folder] = note_of(self.root / folder)
            elif not stat.S_ISREG(status.st_mode):
                raise misplaced(path, status, "file")
        except FileNotFoundError:
            raise self.missing(ref) from None
        except OSError as error:
            raise StoreError(f"{path} cannot be read: {reason_of(error)}.{next_step(error)}") from error
        if status.st_size != ref.bytes:
            raise self.damaged(ref, f"has {status.st_size:,} bytes, committed were {ref.bytes:,}")
        if ref.bytes > SPARSE_BYTES and status.st_blocks * 512 < ref.bytes // SPARSE and _has_hole(path, ref.bytes):
            raise self.damaged(ref, f"claims {ref.bytes:,} bytes, of which the disk holds {status.st_blocks * 512:,}")
        return path, status

    def _note(self, ref: PartRef) -> Note:
        """What is known of the files beside a part that was `_found`."""
        return self._notes[ref.file.rpartition("/")[0]]

    def damaged(self, ref: PartRef, fact: str = "has bytes that differ from what was committed") -> CorruptStoreError:
        """What is wrong with a part, and what brings it back."""
        remedy = f"Embed again what is lost: embedstore repair {self.root} DATASET"
        return CorruptStoreError(f"{self.root / ref.file} {fact}.", remedy)

    def missing(self, ref: PartRef) -> StoreError:
        """Why a part is not there: lost, or given up by a compaction that knew nothing of this reader."""
        if all(named.file != ref.file for named in read_manifest(self.root)[0].refs()):
            return StoreError(f"{self.root} was compacted after it was opened. Open it again.")
        return self.damaged(ref, "is missing")

    def whole(self, ref: PartRef) -> Path:
        """The path of a part, every byte of which was compared with what was committed, now or before on this machine."""
        path, status = self._found(ref)
        if self.check and ref.file not in self._whole:
            if not ref.xxh3 or path.suffix == ".h5":  # whose sums are those of its blocks
                try:
                    check_digest(path, ref.bytes, ref.sha256)
                except CorruptStoreError as error:
                    raise self.damaged(ref) from error
            elif not self._note(ref).knows(path.name, status, ref.sha256):
                if sum_of_file(path) != ref.xxh3:
                    raise self.damaged(ref)
                self._note(ref).keep(path.name, status, ref.sha256)
            self._whole.add(ref.file)
        return path

    @contextmanager
    def opened(self, ref: PartRef) -> Iterator[int]:
        """A descriptor of a part, for reading."""
        with open(self.path(ref), "rb", buffering=0) as file:
            yield file.fileno()

    def check_single(self, ref: PartRef, name: str, data: npt.NDArray[Any]) -> None:
        """Compare all of dataset `name` (not the vectors) of a part, as it was read."""
        if not self.check:
            return
        if SUMS not in ref.offsets:
            self.whole(ref)
        elif self._table(ref).single[name] != sum_of(data):
            raise self.damaged(ref)

    def known(self, ref: PartRef) -> bool:
        """Whether all vectors of a part were compared; one without sums of blocks is, as a whole, here and now."""
        if not self.check or ref.file in self._compared:
            return True
        if ref.file in self._unknown:
            return False
        if SUMS not in ref.offsets:
            self.whole(ref)
            return True
        path, status = self._found(ref)
        (self._compared if self._note(ref).knows(path.name, status, f"{ref.xxh3} vectors") else self._unknown).add(ref.file)
        return ref.file in self._compared

    def check_vectors(self, ref: PartRef, row_bytes: int) -> None:
        """Compare all vectors of a part, by reading them past once if that was not done before."""
        if self.known(ref):
            return
        with self.opened(ref) as file:
            for lo, hi in self.runs(ref, 0, ref.rows, row_bytes):
                self.check_rows(ref, lo, _read_at(file, ref, VECTORS, lo * row_bytes, (hi - lo) * row_bytes), row_bytes)

    def check_picked(self, ref: PartRef, rows: npt.NDArray[np.int64], row_bytes: int) -> None:
        """Compare the blocks that single vectors of a part lie in; each is read once."""
        if self.known(ref):
            return
        table = self._table(ref)
        size = table.size
        blocks = np.unique(rows // size)
        blocks = blocks[~table.seen[blocks]]
        if not len(blocks):
            return
        with self.opened(ref) as file:
            for lo in (blocks * size).tolist():
                count = min(size, ref.rows - lo)
                self.check_rows(ref, lo, _read_at(file, ref, VECTORS, lo * row_bytes, count * row_bytes), row_bytes)

    def check_rows(self, ref: PartRef, first: int, data: memoryview | bytes, row_bytes: int) -> None:
        """Compare vectors of a part, as they were read: whole blocks, from vector `first` on."""
        table = self._table(ref)
        size = table.size
        at, end = first // size, -((first + len(data) // row_bytes) // -size)
        sums = np.fromiter(block_sums(memoryview(data), size * row_bytes), np.uint64)
        if not np.array_equal(sums, table.blocks[at:end]):
            raise self.damaged(ref)
        table.seen[at:end] = True
        if table.seen[-1] and table.seen.all():
            self._note(ref).keep(ref.file.rpartition("/")[2], table.status, f"{ref.xxh3} vectors")
            self._compared.add(ref.file)

    def whole_rows(self, ref: PartRef, vectors: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Which of the vectors (n, dim) of a part, as they were read, lie in blocks that are as they were written."""
        table, row_bytes = self._table(ref), vectors.shape[1] * vectors.dtype.itemsize
        sums = np.fromiter(block_sums(vectors.reshape(-1).view(np.uint8).data, table.size * row_bytes), np.uint64)
        return np.repeat(sums == table.blocks, table.size)[: ref.rows]

    def block_edges(self, ref: PartRef, lo: int, hi: int) -> tuple[int, int]:
        """The vectors `lo` to `hi` of a part, widened to whole blocks."""
        size = self._table(ref).size
        return lo // size * size, min(-(-hi // size) * size, ref.rows)

    def runs(self, ref: PartRef, lo: int, hi: int, row_bytes: int) -> Iterator[tuple[int, int]]:
        """The vectors `lo` to `hi` of a part in runs that are read and summed at once; all but the ends are whole blocks."""
        size = self._table(ref).size
        step = size * max(1, READ_BYTES // (size * row_bytes))
        edges = [lo, *range(lo // step * step + step, hi, step), hi]
        first, last = -(-lo // size) * size, hi if hi == ref.rows else hi // size * size
        edges = sorted({*edges, *(edge for edge in (first, last) if lo < edge < hi)})
        yield from pairwise(edges)

    def _table(self, ref: PartRef) -> _Sums:
        """The sums of a part, compared with their own."""
        table = self._sums.get(ref.file)
        if table is None:
            with self.opened(ref) as file:
                status = os.fstat(file)
                data = os.pread(file, FIRST_READ, ref.offsets[SUMS])
                size = int.from_bytes(data[:8], "little")
                if not 1 <= size <= MOST_ROWS:
                    raise self.damaged(ref)
                wanted = (1 + len(SINGLE) - ref.rows // -size) * 8
                if wanted > len(data):
                    data = os.pread(file, min(wanted, ref.bytes), ref.offsets[SUMS])
            if len(data) < wanted or f"{sum_of(data[:wanted]):016x}" != ref.xxh3:
                raise self.damaged(ref)
            _, *single = (sums := np.frombuffer(data[:wanted], "<u8"))[: 1 + len(SINGLE)].tolist()
            blocks = sums[1 + len(SINGLE) :]
            table = _Sums(status, size, dict(zip(singles(ref), single, strict=True)), blocks, np.zeros(len(blocks), np.bool_))
            self._sums[ref.file] = table
        return table


def singles(ref: PartRef) -> tuple[str, str]:
    """The datasets of a part beside its vectors."""
    return SINGLE_OF_PIECES if of_pieces(ref) else SINGLE


def of_pieces(ref: PartRef) -> bool:
    """Whether a part holds several vectors an item, with their places."""
    return ref.file.rpartition("/")[2].startswith("pieces-")


def _has_hole(path: Path, size: int) -> bool:
    with open(path, "rb") as file:
        return os.lseek(file.fileno(), 0, os.SEEK_HOLE) < size


def _read_at(file: int, ref: PartRef, name: str, offset: int, size: int) -> bytes:
    data = os.pread(file, min(size, ref.bytes), ref.offsets[name] + offset)
    if len(data) != size:
        raise CorruptStoreError(f"{ref.file}: dataset /{name} does not fit into the file.")
    return data
