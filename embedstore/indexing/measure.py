"""What is measured of a search: recall by score with its interval, and the time it takes.

An answer counts as right when its exact score is no worse than the exact k-th best: items that tie are equally right, and
counting ids would call a perfect answer wrong where descriptions repeat.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from embedstore.evaluation.bootstrap import Score
from embedstore.indexing.exact import Best
from embedstore.indexing.vectors import Float

Z = 1.959964  # of a 95 % interval
SAME = 2e-6  # float32 sums in another order


class Latency(NamedTuple):
    """Of single queries on one thread, in ms."""

    mean: float
    p50: float
    p95: float


@dataclass
class QuerySet:
    """Held-out queries with the exact score of their k-th neighbour; one half tunes, the other confirms and reports."""

    unit: Float
    kth: npt.NDArray[np.float32]

    def half(self, second: bool) -> slice:
        middle = len(self.unit) // 2
        return slice(middle, None) if second else slice(0, middle)


def interval(right: npt.NDArray[np.float64], k: int) -> Score:
    """A share of right answers (m,) per query, with a 95 % Wilson interval that knows that answers of one query go together."""
    m = len(right)
    if not m:
        return Score(float("nan"), 0.0, 1.0)
    p = float(right.mean())
    spread = float(right.var(ddof=1)) if m > 1 else 0.0
    independent = float(np.clip(p * (1 - p) * m / spread, 1, m * k)) if spread > 0 else float(m)
    centre = (p + Z**2 / (2 * independent)) / (1 + Z**2 / independent)
    width = Z / (1 + Z**2 / independent) * np.sqrt(p * (1 - p) / independent + Z**2 / (4 * independent**2))
    return Score(p, max(0.0, float(centre - width)), min(1.0, float(centre + width)))


def kth_scores(blocks: Iterable[Float], queries: Float, k: int) -> npt.NDArray[np.float32]:
    """The exact k-th best cosine (m,) of each unit query over blocks of unit vectors."""
    best = Best(len(queries), k)
    start = 0
    for block in blocks:
        for lo in range(0, len(block), 4096):
            best.add(queries @ block[lo : lo + 4096].T, start)
            start += len(block[lo : lo + 4096])
    scores, _ = best.sorted()
    return np.asarray(scores[:, -1])


def exact_latency(blocks: Callable[[], Iterable[Float]], n: int, dim: int) -> float:
    """What one exact query over `n` vectors in memory would take, in ms, from the time of the first block."""
    block = next(iter(blocks()))
    query = np.ascontiguousarray(block[:1])
    times = []
    for _ in range(7):
        start = time.perf_counter()
        best = Best(1, min(10, len(block)))
        best.add(query @ block.T, 0)
        best.sorted()
        times.append(time.perf_counter() - start)
    return 1000 * min(times) * n / len(block)
