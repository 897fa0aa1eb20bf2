"""How hard an index has to try for a recall, found on held-out queries: one half tunes, the other confirms."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from embedstore._core.typed import from_json
from embedstore.evaluation.bootstrap import Score
from embedstore.indexing.base import Base, Setting
from embedstore.indexing.measure import SAME, Latency, QuerySet, interval

LEVELS = (0.9, 0.95, 0.98, 0.99)
TIMED = 150
TURNS = 3
BATCH = 512
MOST_EFFORT = 2048  # of a graph
DOUBTED = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4)
"""Shares of the queries that a second look may be for."""
GAIN = 0.95
"""A second look has to cost less than this share of one look that is as good."""

CANDIDATES = {
    "Flat": (1.0,),
    "SQfp16": (1.0,),
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
    mean_ms, p50_ms, p95_ms : float
        Of single queries, one thread, each asked several times; the mean is of each one's median.
    """

    target: float
    setting: Setting
    recall: Mapping[str, Score]
    mean_ms: float
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
        mean = data.get("mean_ms", data["p50_ms"])  # written since there are second looks
        setting = from_json(Setting, data["setting"])
        if min(setting.effort, setting.candidates) < 1 or setting.again < 0 or not recall:
            raise ValueError(f"an index cannot be searched as {setting} says")
        return from_json(cls, {**data, "setting": setting, "recall": recall, "mean_ms": mean})


class _Look(NamedTuple):
    """What one half of a query set found: the share of right answers (m,) and the best score (m,) of each query."""

    right: npt.NDArray[np.float64]
    best: npt.NDArray[np.float32]


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
    _seen: dict[tuple[Setting, str, bool], _Look] = field(default_factory=dict)
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
            best = [setting for _, setting in sorted(options, key=lambda option: option[0])[:2]]
            best += [twice for setting in best[:1] if (twice := self._second_look(target, setting)) is not None]
            for setting in sorted(best, key=lambda setting: self.latency(setting).mean):
                if (confirmed := self._confirmed(target, setting)) is not None:
                    found.append(Level(target, confirmed, self.recalls(confirmed), *self.latency(confirmed)))
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
        return interval(self._look(setting, name, second).right, self.at)

    def latency(self, setting: Setting) -> Latency:
        """Of single queries, each asked three times; the mean is that of their medians, so that a hiccup counts little."""
        unit = np.concatenate([q.unit[q.half(False)][: TIMED // len(self.queries) + 1] for q in self.queries.values()])
        times = np.empty((TURNS, len(unit)))
        for turn in times:
            for i in (*range(min(5, len(unit))), *range(len(unit))):
                start = time.perf_counter()
                if self.base.one(unit[i], self.at, setting) is None:
                    self.base.search(unit[i : i + 1], self.at, setting)
                turn[i] = time.perf_counter() - start
        return Latency(*(1000 * np.array([np.median(times, axis=0).mean(), *np.quantile(times, [0.5, 0.95])])).tolist())

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

    def _second_look(self, target: float, plain: Setting) -> Setting | None:
        """Less effort than `plain` and more for the queries in doubt, by what each effort finds on the tuning half.

        None where that gains nothing.
        """
        efforts = self._efforts(plain.candidates)
        at = efforts.index(plain.effort)
        firsts, agains = efforts[max(at - 14, 0) : max(at - 1, 0) : 2], efforts[at + 2 : at + 14 : 3]
        if not firsts or not agains:
            return None
        looks = {
            effort: [self._look(Setting(effort, plain.candidates), name, False) for name in self.queries]
            for effort in (*firsts, *agains, plain.effort)
        }
        measured = {s.effort: cost for s, cost in self._cost.items() if s.candidates == plain.candidates and not s.again}
        cost = np.poly1d(np.polyfit(list(measured), list(measured.values()), 1))  # single measurements are noisy
        found, least = None, GAIN * cost(plain.effort)
        for first in firsts:
            best = np.concatenate([look.best for look in looks[first]])
            for doubt in np.unique(np.quantile(best, DOUBTED)):
                share = np.mean(best < doubt)
                for again in agains:
                    both = zip(looks[first], looks[again], strict=True)
                    joined = [np.where(one.best < doubt, two.right, one.right) for one, two in both]
                    total = cost(first) + share * cost(again)
                    if total < least and all(interval(right, self.at).low >= target for right in joined):
                        found, least = Setting(first, plain.candidates, again, float(doubt)), total
        return found

    def _confirmed(self, target: float, setting: Setting) -> Setting | None:
        """`setting`, or the next stronger one that passes on the reporting half as well."""
        return next((s for s in self._stronger(setting) if self._passes(target, s, second=True)), None)

    def _stronger(self, setting: Setting) -> Iterator[Setting]:
        """`setting` and those above it."""
        efforts = self._efforts(setting.candidates)
        for step, effort in enumerate(efforts[efforts.index(setting.effort) :]):
            again = efforts[min(efforts.index(setting.again) + step, len(efforts) - 1)] if setting.again else 0
            yield replace(setting, effort=effort, again=again)

    def _efforts(self, candidates: int) -> list[int]:
        graph = self.base.recipe.kind == "hnsw"
        first, last = (candidates, min(MOST_EFFORT, len(self.base))) if graph else (1, self.base.most_effort)
        steps = np.geomspace(max(first, 1), max(first, last), 64)
        return sorted({round(float(step)) for step in steps})

    def _passes(self, target: float, setting: Setting, *, second: bool) -> bool:
        return all(self.recall(setting, name, second=second).low >= target for name in self.queries)

    def _look(self, setting: Setting, name: str, second: bool) -> _Look:
        key = setting, name, second
        if key not in self._seen:
            queries = self.queries[name]
            half = queries.half(second)
            start = time.perf_counter()
            scores, _ = self.base.search(queries.unit[half], self.at, setting, threads=self.threads)
            self._cost[setting] = (time.perf_counter() - start) / max(len(queries.unit[half]), 1)
            self._seen[key] = _Look(np.mean(scores >= queries.kth[half, None] - SAME, axis=1), scores[:, 0].copy())
        return self._seen[key]
