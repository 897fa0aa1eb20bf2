"""128-bit keys of strings and payloads, and a compact table from keys to int64 values.

A Python dict of a million ids takes over 100 MB; this table takes 24 bytes an entry, on disk if it may. Numpy only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from embedstore._core.slots import Slots

Keys = npt.NDArray[np.uint64]
"""Shape (n, 2), dtype uint64: one 128-bit key a row."""

Halves = npt.NDArray[np.uint64]
"""Shape (n,), dtype uint64: the first or the second half of each key."""

KEY_BYTES = 16
_ENTRY_BYTES = KEY_BYTES + 8
SEGMENT = 65536


def hash_payload(payload: bytes | memoryview) -> bytes:
    """BLAKE2b of `payload`, 16 bytes: the content hash used everywhere."""
    return hashlib.blake2b(payload, digest_size=KEY_BYTES).digest()


def hash_file(file: IO[bytes]) -> bytes:
    """`hash_payload` of what is left of a file that is open, which is never held in memory whole."""
    return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=KEY_BYTES)).digest()  # type: ignore[arg-type]


def hash_strings(strings: Iterable[str]) -> Keys:
    """Keys (n, 2) of the UTF-8 bytes of `strings`."""
    blake = hashlib.blake2b
    return keys_from_bytes(b"".join([blake(s.encode(), digest_size=KEY_BYTES).digest() for s in strings]))


def keys_from_bytes(data: bytes) -> Keys:
    """Keys (n, 2) from n concatenated 16-byte digests."""
    return np.frombuffer(data, dtype="<u8").reshape(-1, 2)


def hash_rows(rows: npt.NDArray[np.generic]) -> Keys:
    """Keys (n, 2) of the bytes of each row (n, d): what an imported vector is known by. See store/FORMAT.md.

    Not cryptographic. Hashing row by row would take longer than all the rest of an import; this is a few passes over the whole
    array. The shift carries differences in high bits, such as signs, down to where sums cannot lose them.
    """
    size = rows.dtype.itemsize * rows.shape[1]
    if size % 8:
        padded = np.zeros((len(rows), -(-size // 8) * 8), np.uint8)
        padded[:, :size] = np.ascontiguousarray(rows).view(np.uint8)
        rows = padded
    words = np.ascontiguousarray(rows).view("<u8")
    spread, low, high = _multipliers(words.shape[1])
    mixed = words * spread
    mixed ^= mixed >> np.uint64(32)
    return np.stack([np.einsum("ij,j->i", mixed, low), np.einsum("ij,j->i", mixed, high)], axis=1)


@lru_cache(maxsize=4)
def _multipliers(words: int) -> npt.NDArray[np.uint64]:
    """Shape (3, words): odd numbers from SHAKE-128."""
    stream = hashlib.shake_128(b"embedstore hash_rows 1").digest(3 * 8 * words)
    numbers: Keys = np.frombuffer(stream, "<u8").reshape(words, 3).T | np.uint64(1)
    return numbers


class _Run(NamedTuple):
    """Entries in ascending order of the first halves of their keys; arrays (n,)."""

    first: Halves
    second: Halves
    values: npt.NDArray[np.int64]

    @property
    def size(self) -> int:
        return len(self.values)

    def between(self, lo: int, hi: int) -> _Run:
        return _Run(self.first[lo:hi], self.second[lo:hi], self.values[lo:hi])

    def copy(self) -> _Run:
        return _Run(self.first.copy(), self.second.copy(), self.values.copy())


class _Segment(NamedTuple):
    """A sorted run of a range of keys of its own, from `least` on: in memory, or in a slot."""

    least: np.uint64
    rows: int
    run: _Run | None
    slot: int = -1


class KeyTable:
    """Maps 128-bit keys to int64 values with vectorised lookups.

    What came lately is held in sorted runs whose sizes grow geometrically; once it is about a sixteenth of all, it is merged
    into segments: each sorted, of a range of keys of its own, merged one by one, so that a merge needs no room for a second
    table. Keys are unique; the caller looks up before it inserts.

    Parameters
    ----------
    folder : path, optional
        Segments are kept in a temporary file there, of which a lookup maps one segment at a time; in memory where it is not
        given or cannot be written to.
    segment : int, optional
        The most entries of a segment.
    """

    def __init__(self, folder: Path | None = None, *, segment: int | None = None) -> None:
        self._folder = folder
        self._most = segment or SEGMENT
        self._slots: Slots | None = None
        self._recent: list[_Run] = []
        self._segments: list[_Segment] = []
        self._least = np.empty(0, np.uint64)  # no key of a segment is less

    def __len__(self) -> int:
        return sum(run.size for run in self._recent) + sum(segment.rows for segment in self._segments)

    def insert(self, keys: Keys, values: npt.NDArray[np.int64]) -> None:
        """Add `keys` (n, 2), not yet present and unique, with `values` (n,)."""
        if not len(keys):
            return
        new = _sorted(keys[:, 0], keys[:, 1], np.asarray(values, dtype=np.int64))
        while self._recent and self._recent[-1].size <= 2 * new.size:
            new = _merged(self._recent.pop(), new)
        self._recent.append(new)
        if self._recent[0].size > max(self._most, len(self._segments) * self._most // 16):
            self._settle()

    def lookup(self, keys: Keys, default: int = -1) -> npt.NDArray[np.int64]:
        """Values (n,) of `keys` (n, 2); `default` where a key is absent."""
        found = np.full(len(keys), default, dtype=np.int64)
        order = np.argsort(keys[:, 0])  # what is sought next is found nearby
        asked = keys[order]
        for run, lo, hi in self._places(asked[:, 0]):
            at, hit = _find(run, asked[lo:hi])
            found[order[lo:hi][hit]] = run.values[at[hit]]
        return found

    def _places(self, first: Halves) -> Iterator[tuple[_Run, int, int]]:
        """Runs and segments, and from where to where their entries may be among `first`, which ascends."""
        if not len(first):
            return
        for run in self._recent:
            yield run, 0, len(first)
        cuts = [0, *np.searchsorted(first, self._least[1:]).tolist(), len(first)]
        for segment, (lo, hi) in zip(self._segments, pairwise(cuts), strict=False):
            if lo < hi:
                yield self._run(segment), lo, hi

    def _settle(self) -> None:
        """Merge what is recent into the segments; those that grow too long are halved."""
        new = self._recent.pop(0)
        while self._recent:
            new = _merged(new, self._recent.pop())
        cuts = [0, *np.searchsorted(new.first, self._least[1:]).tolist(), new.size]
        old, self._segments = self._segments, []
        for lo, hi in pairwise(cuts):
            segment = old.pop(0) if old else _Segment(np.uint64(0), 0, new.between(0, 0))  # let go once it is merged
            self._segments += self._joined(segment, new.between(lo, hi)) if lo < hi else [segment]
        self._least = np.array([segment.least for segment in self._segments], np.uint64)
        self._least[0] = 0
        if self._folder is None and self._slots is not None:  # it could not be written: give back the room it takes
            self._segments = [self._in_memory(segment) for segment in self._segments]
            self._slots = None

    def __getstate__(self) -> dict[str, Any]:
        segments = [self._in_memory(segment) for segment in self._segments]
        return {**vars(self), "_folder": None, "_slots": None, "_segments": segments}

    def _in_memory(self, segment: _Segment) -> _Segment:
        return segment._replace(run=self._run(segment).copy(), slot=-1)

    def _joined(self, segment: _Segment, part: _Run) -> list[_Segment]:
        merged = _merged(self._run(segment), part)
        if self._slots is not None and segment.run is None:
            self._slots.free(segment.slot)
        return [self._kept(run) for run in _halved(merged, self._most)]

    def _kept(self, run: _Run) -> _Segment:
        least, rows = run.first[0], run.size
        if self._folder is not None and rows <= self._most:
            try:
                if self._slots is None:
                    self._slots = Slots(self._folder, self._most * _ENTRY_BYTES)
                return _Segment(least, rows, None, self._slots.put(run))
            except OSError:  # no permission or no room: whatever it was meant to save memory for goes on
                self._folder = None
        return _Segment(least, rows, run)

    def _run(self, segment: _Segment) -> _Run:
        if segment.run is not None:
            return segment.run
        if self._slots is None:
            raise AssertionError("a segment without its slots")
        held, n = self._slots.get(segment.slot), segment.rows
        return _Run(*(np.frombuffer(held, kind, n, 8 * n * i) for i, kind in enumerate(("<u8", "<u8", "<i8"))))


def _merged(one: _Run, other: _Run) -> _Run:
    return _sorted(*(np.concatenate(pair) for pair in zip(one, other, strict=True)))


def _halved(run: _Run, most: int) -> list[_Run]:
    """`run` in pieces of at most `most` entries where keys that share their first half allow it; copies, not views."""
    middle = int(np.searchsorted(run.first, run.first[run.size // 2]))
    if run.size <= most or not middle:
        return [run]
    pieces = (run.between(0, middle).copy(), run.between(middle, run.size).copy())
    return [half for piece in pieces for half in _halved(piece, most)]


def _sorted(first: Halves, second: Halves, values: npt.NDArray[np.int64]) -> _Run:
    order = np.argsort(first)
    return _Run(first[order], second[order], values[order])


def _find(run: _Run, keys: Keys) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Position of each key in `run`, and whether it is there.

    Two different keys that share their first 64 bits are told apart by the second half; the run is then scanned on, so
    that a collision never returns another key's value.
    """
    at = np.searchsorted(run.first, keys[:, 0]).astype(np.int64)
    same = at < run.size
    same[same] = run.first[at[same]] == keys[same, 0]
    hit = same.copy()
    hit[same] = run.second[at[same]] == keys[same, 1]
    for i in np.flatnonzero(same & ~hit):
        stop = np.searchsorted(run.first, keys[i, 0], side="right")
        matches = np.flatnonzero(run.second[at[i] : stop] == keys[i, 1])
        if len(matches):
            at[i] += matches[0]
            hit[i] = True
    return at, hit
