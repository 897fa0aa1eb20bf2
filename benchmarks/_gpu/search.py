"""S1: exact search on the device finds what float64 finds, and how many queries a second it answers."""

from __future__ import annotations

import time
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt

from benchmarks._gpu.run import Run
from benchmarks._gpu.world import World
from embedstore.indexing import gpu
from embedstore.indexing.exact import ExactIndex
from embedstore.indexing.vector_index import VectorIndex

Array = npt.NDArray[Any]

K = 10
QUERIES = 64
APART = 1e-6
AT_ONCE = (1, 64, 1024)
BLOCK = 1 << 16
ZEROS, TWINS = 5, 20
"""Rows without a direction, and rows that are there twice."""
SCORES = (26, 28, 29)
"""Powers of two: how many scores are held at once."""
CHECKED = 20_000
"""Vectors of the index that is asked beside exact search."""


def vectors(n: int, dim: int, dtype: Any, device: str) -> Array:
    """Rows (n, dim) drawn on the device, some of them without a direction, some of them twice."""
    import torch

    generator = torch.Generator(device).manual_seed(0)
    rows = torch.randn(n, dim, generator=generator, device=device, dtype=torch.float32)
    rows[:ZEROS] = 0
    rows[-TWINS:] = rows[ZEROS : ZEROS + TWINS]
    return np.asarray(rows.to(torch.float16 if dtype == np.float16 else torch.float32).cpu().numpy())


def queries(rows: Array, count: int) -> Array:
    """Rows moved a little, and for the first few the rows that are there twice, as they are."""
    rng = np.random.default_rng(0)
    picked = rows[rng.choice(np.arange(ZEROS, len(rows)), count)].astype(np.float32)
    moved = picked + rng.standard_normal(picked.shape).astype(np.float32)
    moved[:4] = rows[ZEROS : ZEROS + 4]
    return np.asarray(moved)


def reference(rows: Array, asked: Array, device: str, subset: Array | None = None) -> Array:
    """Cosines (m, n) of every pair in float64, on the host; -inf outside of `subset`."""
    import torch

    unit = torch.nn.functional.normalize(torch.from_numpy(asked).to(device, torch.float64), dim=1)
    found = []
    for lo in range(0, len(rows), BLOCK):
        block = torch.from_numpy(rows[lo : lo + BLOCK].astype(np.float32)).to(device, torch.float64)
        found.append((unit @ torch.nn.functional.normalize(block, dim=1, eps=1e-300).T).cpu())
    cosines = np.asarray(torch.cat(found, dim=1).numpy())
    if subset is not None:
        outside = np.ones(len(rows), bool)
        outside[subset] = False
        cosines[:, outside] = -np.inf
    return cosines


def compared(scores: Array, positions: Array, cosines: Array) -> tuple[float, float]:
    """How far scores (m, k) are from those of float64, and the share of positions that are right.

    A position is right where no vector outside of the answer is nearer by more than rounding.
    """
    k = positions.shape[1]
    kth = np.partition(cosines, -k, axis=1)[:, -k]
    true = np.take_along_axis(cosines, positions, axis=1)
    distinct = np.array([len(set(row)) for row in positions.tolist()])
    right = ((true >= kth[:, None] - APART).sum(axis=1) - (k - distinct)).sum() / positions.size
    return float(np.abs(scores - true).max()), float(right)


def search(world: World, run: Run) -> None:
    sizes, device = world.sizes, world.arrays
    for n, dim, dtype in ((sizes.rows, sizes.dim, np.float16), (sizes.rows * 3 // 10, sizes.dim * 2 // 3, np.float32)):
        what = f"exact search, {n:,} × {dim} {np.dtype(dtype)}"
        with run.attempt(what):
            rows = vectors(n, dim, dtype, world.device)
            index = ExactIndex(rows, device=device)
            asked = queries(rows, QUERIES)
            _right(run, what, index, rows, asked, device)
            _fast(world, run, what, index, rows)
    with run.attempt("VectorIndex"):
        _index(run, device, vectors(min(CHECKED, sizes.rows), sizes.dim, np.float16, world.device))


def _right(run: Run, what: str, index: ExactIndex, rows: Array, asked: Array, device: str) -> None:
    start = time.perf_counter()
    index.search(asked[:1], K)
    run.report(what, "loaded and asked once", time.perf_counter() - start, " s")
    apart, right = compared(*index.search(asked, K), reference(rows, asked, device))
    run.check(what, "scores apart", apart, "≤", APART)
    run.check(what, "right positions", right, "=", 1.0)
    subset = np.sort(np.random.default_rng(1).choice(len(rows), len(rows) // 10, replace=False))
    few = asked[: QUERIES // 4]
    apart, right = compared(*index.search(few, K, subset=subset), reference(rows, few, device, subset))
    run.check(what, "of a subset", right, "=", 1.0)
    run.check(what, "its scores apart", apart, "≤", APART)


def _fast(world: World, run: Run, what: str, index: ExactIndex, rows: Array) -> None:
    many = queries(rows, AT_ONCE[-1])
    for count in AT_ONCE:
        run.report(what, f"{count} at once:", rate(index, many[:count], world.sizes.seconds / 2), " queries/s")
    if rows.dtype == np.float16 and world.gpu:
        for power in SCORES:
            with mock.patch.object(gpu, "SCORES", 1 << power):
                fresh = ExactIndex(rows, device=world.arrays)
                run.report(what, f"2^{power} scores held:", rate(fresh, many, world.sizes.seconds / 2), " queries/s")


def rate(index: ExactIndex, asked: Array, seconds: float) -> float:
    """Queries a second, all of `asked` at once; answers are on the host."""
    index.search(asked, K)
    start, done = time.perf_counter(), 0
    while not done or time.perf_counter() - start < seconds:
        index.search(asked, K)
        done += len(asked)
    return done / (time.perf_counter() - start)


def _index(run: Run, device: str, rows: Array) -> None:
    """What an index of a store asks: exact search by its name."""
    index = VectorIndex(factory="Flat", device=device).fit(rows)
    asked = queries(rows, QUERIES)
    answer = index.search(asked, K)
    apart, right = compared(answer.scores, answer.positions, reference(rows, asked, device))
    run.check("VectorIndex", "right positions", right, "=", 1.0)
    run.check("VectorIndex", "scores apart", apart, "≤", APART)
