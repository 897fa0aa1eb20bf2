"""How right an index is, and how hard it has to try: recall by score on held-out queries, with intervals.

An answer counts as right when its exact score is no worse than the exact k-th best: items that tie are equally right, and
counting ids would call a perfect answer wrong where descriptions repeat.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.evaluation.bootstrap import Score
from embedstore.indexing.base import Base, Setting
from embedstore.indexing.exact import Best
from embedstore.indexing.vectors import Float

LEVELS = (0.9, 0.95, 0.98, 0.99)
SAME = 2e-6  # float32 sums in another order
Z = 1.959964  # of a 95 % interval
TIMED = 150
BATCH = 512
MOST_EFFORT = 2048  # of a graph

CANDIDATES = {
    "Flat": (1.0,),
    "SQfp16": (1.0, 1.5),
    "SQ8": (1.0, 1.5, 2.0, 3.0, 5.0, 10.0),
    "RaBitQ2": (1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 15.0, 30.0),
    "RaBitQ": (3.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0),
}


@dataclass(frozen=True)
class Level:
    """One operating point: the least effort that reached a recall.

    Parameters
    ----------
    target : float
        The recall whose lower confidence bound was to be passed.
    setting : Setting
    recall : mapping of query set to Score
        Measured on queries that took no part in finding the setting; one that fails on them is made stronger, so that the
        figure leans a little to the good side.
    p50_ms, p95_ms : float
        Of single queries, one thread.
    """

    target: float
    setting: Setting
    recall: Mapping[str, Score]
    p50_ms: float
    p95_ms: float

    @property
    def lowest(self) -> Score:
        """The recall of the worst query set."""
        return min(self.recall.values(), key=lambda score: score.low)

    def to_dict(self) -> dict[str, Any]:
        recall = {name: score.to_dict() for name, score in self.recall.items()}
        return {**asdict(self), "setting": asdict(self.setting), "recall": recall}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Level:
        recall = {name: Score.from_dict(score) for name, score in data["recall"].items()}
        return cls(data["target"], Setting(**data["setting"]), recall, data["p50_ms"], data["p95_ms"])


@dataclass
class QuerySet:
    """Held-out queries with the exact score of their k-th neighbour; one half tunes, the other confirms and reports."""

    unit: Float
    kth: npt.NDArray[np.float32]

    def half(self, second: bool) -> slice:
        middle = len(self.unit) // 2
        return slice(middle, None) if second else slice(0, middle)


@dataclass
class Tuner:
    """Finds settings of one index.

    Parameters
    ----------
    base : Base
    queries : mapping of name to QuerySet
    at : int
        The k of recall@k.
    threads : int
        For measuring recall; latencies are measured on one.
    """

    base: Base
    queries: Mapping[str, QuerySet]
    at: int
    threads: int = 1
    _seen: dict[tuple[Setting, str, bool], npt.NDArray[np.float64]] = field(default_factory=dict)
    _cost: dict[Setting, float] = field(default_factory=dict)

    def levels(self, targets: Iterable[float]) -> list[Level]:
        """The fastest setting of each recall that can be reached, ascending."""
        found: list[Level] = []
        starts = dict.fromkeys(self._candidates(), 0)
        for target in sorted(set(targets)):
            options: list[tuple[float, Setting]] = []
            for candidates in starts:
                limit = 1.5 * min((cost for cost, _ in options), default=np.inf)
                effort = self._least(target, candidates, starts[candidates], limit)
                if effort is not None:
                    starts[candidates] = effort
                    setting = Setting(self._efforts(candidates)[effort], candidates)
                    options.append((self._cost[setting], setting))
            best = sorted(options, key=lambda option: option[0])[:2]
            timed = sorted(((*self.latency(s), s) for _, s in best), key=lambda option: option[0])
            for _, _, setting in timed:
                if (confirmed := self._confirmed(target, setting)) is not None:
                    p50, p95 = self.latency(confirmed)
                    found.append(Level(target, confirmed, self.recalls(confirmed), p50, p95))
                    break
        return found

    def strongest(self) -> Setting:
        """The most effort that is ever tried."""
        candidates = self._candidates()[-1]
        return Setting(self._efforts(candidates)[-1], candidates)

    def recalls(self, setting: Setting) -> dict[str, Score]:
        """Recall of each query set on the half that confirms."""
        return {name: self.recall(setting, name, second=True) for name in self.queries}

    def recall(self, setting: Setting, name: str, *, second: bool) -> Score:
        """Recall@k of `setting` with its interval, on one half of the queries `name`."""
        return interval(self._right(setting, name, second), self.at)

    def latency(self, setting: Setting) -> tuple[float, float]:
        """Median and 95th percentile, in ms, of single queries on one thread."""
        unit = np.concatenate([q.unit[q.half(False)][: TIMED // len(self.queries) + 1] for q in self.queries.values()])
        times = []
        for i in (*range(min(5, len(unit))), *range(len(unit))):
            start = time.perf_counter()
            if self.base.one(unit[i], self.at, setting) is None:
                self.base.search(unit[i : i + 1], self.at, setting)
            times.append(time.perf_counter() - start)
        p50, p95 = np.quantile(times[min(5, len(unit)) :], [0.5, 0.95])
        return 1000 * float(p50), 1000 * float(p95)

    def throughput(self, setting: Setting, threads: int) -> float:
        """Queries a second in a batch."""
        unit = np.concatenate([q.unit for q in self.queries.values()])
        unit = np.ascontiguousarray(np.tile(unit, (-(-BATCH // len(unit)), 1))[:BATCH])
        best = np.inf
        for _ in range(2):
            start = time.perf_counter()
            self.base.search(unit, self.at, setting, threads=threads)
            best = min(best, time.perf_counter() - start)
        return len(unit) / best

    def _candidates(self) -> list[int]:
        factors = CANDIDATES.get(self.base.recipe.codes, CANDIDATES["RaBitQ2"])
        return sorted({min(len(self.base), int(np.ceil(self.at * factor))) for factor in factors})

    def _least(self, target: float, candidates: int, start: int, limit: float) -> int | None:
        """Place in `_efforts` of the least one whose lower bound passes on the tuning half, from `start` on.

        None where none does, or where a failing one already costs more than `limit` seconds a query.
        """
        efforts = self._efforts(candidates)

        def passes(i: int) -> bool:
            return self._passes(target, Setting(efforts[i], candidates), second=False)

        low, step = start - 1, 1
        high = min(start, len(efforts) - 1)
        while not passes(high):
            if high == len(efforts) - 1 or self._cost[Setting(efforts[high], candidates)] > limit:
                return None
            low, high, step = high, min(high + step, len(efforts) - 1), 2 * step
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if passes(middle) else (middle, high)
        return high

    def _confirmed(self, target: float, setting: Setting) -> Setting | None:
        """`setting`, or the next stronger one that passes on the reporting half as well."""
        for effort in [e for e in self._efforts(setting.candidates) if e >= setting.effort]:
            stronger = Setting(effort, setting.candidates)
            if self._passes(target, stronger, second=True):
                return stronger
        return None

    def _efforts(self, candidates: int) -> list[int]:
        graph = self.base.recipe.kind == "hnsw"
        first, last = (candidates, min(MOST_EFFORT, len(self.base))) if graph else (1, self.base.most_effort)
        steps = np.geomspace(max(first, 1), max(first, last), 64)
        return sorted({round(float(step)) for step in steps})

    def _passes(self, target: float, setting: Setting, *, second: bool) -> bool:
        return all(self.recall(setting, name, second=second).low >= target for name in self.queries)

    def _right(self, setting: Setting, name: str, second: bool) -> npt.NDArray[np.float64]:
        key = setting, name, second
        if key not in self._seen:
            queries = self.queries[name]
            half = queries.half(second)
            start = time.perf_counter()
            scores, _ = self.base.search(queries.unit[half], self.at, setting, threads=self.threads)
            self._cost[setting] = (time.perf_counter() - start) / len(queries.unit[half])
            self._seen[key] = np.mean(scores >= queries.kth[half, None] - SAME, axis=1)
        return self._seen[key]


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
