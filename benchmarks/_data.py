"""The data of `benchmarks.search`: vectors, held-out queries, exact answers and columns to filter by, as files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._engines import Array, Data
from embedstore._core.unit import unit_rows

K = 10
SAME = 1e-6


def write_data(folder: Path, blocks: Iterable[Array], n: int, dim: int, dtype: Any, queries: int) -> None:
    """Files that every engine reads: vectors.npy, queries.npy, kth.npy (exact k-th scores), columns for filters."""
    rng = np.random.default_rng(0)
    held = np.zeros(n, bool)
    held[rng.choice(n, queries, replace=False)] = True
    folder.mkdir(parents=True, exist_ok=True)
    vectors = np.lib.format.open_memmap(folder / "vectors.npy", "w+", dtype, (n - queries, dim))
    kept, out, start = [], 0, 0
    for block in blocks:
        mine = held[start : start + len(block)]
        kept.append(unit_rows(block[mine]))
        rest = block[~mine]
        vectors[out : out + len(rest)] = rest
        out, start = out + len(rest), start + len(block)
    vectors.flush()
    asked = np.concatenate(kept)[rng.permutation(queries)]
    np.save(folder / "queries.npy", asked)
    np.save(folder / "kth.npy", top(vectors, asked, K)[:, -1])
    write_columns(folder, vectors, asked)


def write_columns(folder: Path, vectors: Array, queries: Array, region: int = 100) -> None:
    """Ranks to filter by: at random, and by cosine to the mean of one region.

    The region is that of the `region` queries nearest to the first one; region.npy says which these are.
    """
    nearest = np.argsort(-(queries @ queries[0]), kind="stable")[:region]
    direction = unit_rows(queries[nearest].mean(axis=0, keepdims=True))[0]
    score = np.concatenate([unit_rows(vectors[lo : lo + 65536]) @ direction for lo in range(0, len(vectors), 65536)])
    near = np.empty(len(vectors), np.int32)
    near[np.argsort(-score, kind="stable")] = np.arange(len(vectors), dtype=np.int32)
    np.savez(folder / "columns.npz", random=np.random.default_rng(1).permutation(len(vectors)).astype(np.int32), near=near)
    np.save(folder / "region.npy", nearest)


def top(vectors: Array, queries: Array, k: int, keep: Array | None = None) -> Array:
    """The exact `k` best cosines (m, k) in float32, descending, -inf beyond the last, by blocked matrix products."""
    best = np.full((len(queries), k), -np.inf, np.float32)
    for lo in range(0, len(vectors), 8192):
        block = vectors[lo : lo + 8192]
        block = block if keep is None else block[keep[lo : lo + 8192]]
        if len(block):
            every = np.concatenate([best, queries @ unit_rows(block).T], axis=1)
            best = -np.partition(-every, k - 1, axis=1)[:, :k]
    return np.asarray(-np.sort(-best, axis=1))


class Scorer:
    """Exact scores of answers; reads the vectors' file row by row, so that no page of it counts as the engine's."""

    def __init__(self, path: Path) -> None:
        mapped = np.load(path, mmap_mode="r")
        self._offset, self._dtype, self._dim = int(mapped.offset), mapped.dtype, mapped.shape[1]
        self._file = open(path, "rb")  # noqa: SIM115

    def right(self, found: Array, queries: Array, kth: Array) -> Array:
        """How many of each query's answers (m, k) score no less than `kth` (m,); the same answer twice counts once."""
        ids, inverse = np.unique(found, return_inverse=True)
        rows = np.stack([self._row(int(i)) for i in ids])
        inverse = inverse.reshape(found.shape)
        scores = np.stack([rows[at] @ query for at, query in zip(inverse, queries, strict=True)])
        ordered = np.sort(found, axis=1)
        repeated = ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).sum(axis=1)
        return np.asarray(((scores >= kth[:, None] - SAME) & (found >= 0)).sum(axis=1) - repeated)

    def _row(self, i: int) -> Array:
        if i < 0:
            return np.zeros(self._dim, np.float32)
        size = self._dim * self._dtype.itemsize
        raw = os.pread(self._file.fileno(), size, self._offset + i * size)
        return np.asarray(unit_rows(np.frombuffer(raw, self._dtype)[None])[0])


def load_data(folder: Path, threads: int) -> Data:
    columns = np.load(folder / "columns.npz")
    return Data(np.load(folder / "vectors.npy", mmap_mode="r"), {name: columns[name] for name in columns}, threads)
