"""128-bit keys of strings and payloads, and a compact table from keys to int64 values.

A Python dict of a million ids takes over 100 MB; this table takes 24 bytes an entry. Numpy only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint64]
"""Shape (n, 2), dtype uint64: one 128-bit key a row."""

KEY_BYTES = 16


def hash_payload(payload: bytes) -> bytes:
    """BLAKE2b of `payload`, 16 bytes: the content hash used everywhere."""
    return hashlib.blake2b(payload, digest_size=KEY_BYTES).digest()


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


class KeyTable:
    """Maps 128-bit keys to int64 values with vectorised lookups.

    Sorted runs whose sizes grow geometrically: an insert is amortised O(log n) an entry, a lookup is one binary search
    a run. Keys are unique; the caller looks up before it inserts.
    """

    def __init__(self) -> None:
        self._runs: list[tuple[Keys, npt.NDArray[np.int64]]] = []

    def __len__(self) -> int:
        return sum(len(values) for _, values in self._runs)

    def insert(self, keys: Keys, values: npt.NDArray[np.int64]) -> None:
        """Add `keys` (n, 2), not yet present and unique, with `values` (n,)."""
        if not len(keys):
            return
        new_keys, new_values = _sorted(np.asarray(keys), np.asarray(values, dtype=np.int64))
        while self._runs and len(self._runs[-1][1]) <= 2 * len(new_values):
            old_keys, old_values = self._runs.pop()
            new_keys, new_values = _sorted(np.concatenate([old_keys, new_keys]), np.concatenate([old_values, new_values]))
        self._runs.append((new_keys, new_values))

    def lookup(self, keys: Keys, default: int = -1) -> npt.NDArray[np.int64]:
        """Values (n,) of `keys` (n, 2); `default` where a key is absent."""
        found = np.full(len(keys), default, dtype=np.int64)
        for run_keys, run_values in self._runs:
            at, hit = _find(run_keys, keys)
            found[hit] = run_values[at[hit]]
        return found

    def assign(self, keys: Keys, values: npt.NDArray[np.int64]) -> None:
        """Replace the values of keys that are present."""
        for run_keys, run_values in self._runs:
            at, hit = _find(run_keys, keys)
            run_values[at[hit]] = values[hit]


def _sorted(keys: Keys, values: npt.NDArray[np.int64]) -> tuple[Keys, npt.NDArray[np.int64]]:
    order = np.argsort(keys[:, 0], kind="stable")
    return keys[order], values[order]


def _find(run_keys: Keys, keys: Keys) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Position of each key in a run sorted by its first half, and whether it is there.

    Two different keys that share their first 64 bits are told apart by the second half; the run is then scanned on, so
    that a collision never returns another key's value.
    """
    first = run_keys[:, 0]
    at = np.searchsorted(first, keys[:, 0]).astype(np.int64)
    inside = at < len(first)
    hit = np.zeros(len(keys), dtype=bool)
    hit[inside] = (run_keys[at[inside]] == keys[inside]).all(axis=1)
    same_first = inside & ~hit
    same_first[inside & ~hit] = first[at[inside & ~hit]] == keys[inside & ~hit, 0]
    for i in np.flatnonzero(same_first):
        stop = np.searchsorted(first, keys[i, 0], side="right")
        matches = np.flatnonzero(run_keys[at[i] : stop, 1] == keys[i, 1])
        if len(matches):
            at[i] += matches[0]
            hit[i] = True
    return at, hit
