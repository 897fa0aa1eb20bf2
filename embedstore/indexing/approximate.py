"""`VectorIndex`: approximate search that knows its recall, stays right under change, and is exact where that is cheaper.

A base (one immutable FAISS index) covers some positions. Vectors that came later are searched exactly beside it; what is
not wanted (removed, replaced, filtered out) is left out by a planner that returns min(k, matching) results, always. Arrays
and blocks in, positions out; knows no store.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from embedstore.errors import UsageError
from embedstore.evaluation.bootstrap import Score
from embedstore.indexing.base import Base, Setting
from embedstore.indexing.build import Progress, add, blocks_of, build
from embedstore.indexing.exact import ExactIndex
from embedstore.indexing.recipe import Recipe, choose, parse_bytes, parse_seconds
from embedstore.indexing.tune import LEVELS, Level, QuerySet, Tuner, exact_latency, kth_scores
from embedstore.indexing.vectors import Array, Float, Positions, Vectors, as_vectors, unit_rows

QUERIES = 1600
FEW = 20  # with fewer vectors there is nothing to hold out
EXACT_SUBSET = 2_000
ROUNDS = 3
GATHER = 2.0  # picking a vector costs so much more than passing it
GRAPH_SHARE = 0.2  # below, a graph loses its way among vectors that do not match
FILTER_RECALL = 0.99
UNFILTERED = 0.9995  # a few removed vectors are no filter
ENOUGH = 4  # lists: so many times k matching vectors must turn up, or the neighbourhood was missed
PAYS = 0.5  # an index that takes more than this share of exact search is not worth its errors


class Answer(NamedTuple):
    """What `VectorIndex.search` returns.

    ``scores`` (m, k) float32 cosines, descending, -inf beyond the last; ``positions`` (m, k) int64, -1 beyond the last;
    ``plan`` in words; ``recall`` None where the answer is exact.
    """

    scores: Float
    positions: Positions
    plan: str
    recall: Score | None


@dataclass(frozen=True)
class IndexReport:
    """What was built and measured.

    Parameters
    ----------
    type : str
        Such as ``"HNSW32,RaBitQ2"``; ``"flat"`` where search is exact.
    n, dim, at : int
        Vectors, numbers a vector, and the k of recall@k.
    target : float
    levels : list of Level
        Operating points; the one of `target` is what a search uses.
    why : str
        Why this type.
    qps, batch_qps : float
        Queries a second on the target's setting: one by one on one thread, and in a batch on `threads`.
    bytes_per_vector : float
        Of the index in memory, beside the stored vectors.
    exact_ms : float
        What exact search of one query takes, for comparison.
    """

    type: str
    n: int
    dim: int
    at: int
    target: float
    why: str
    levels: list[Level] = field(default_factory=list)
    qps: float = 0.0
    batch_qps: float = 0.0
    threads: int = 1
    bytes_per_vector: float = 0.0
    build_seconds: float = 0.0
    tune_seconds: float = 0.0
    exact_ms: float = 0.0
    notes: list[str] = field(default_factory=list)

    @property
    def exact(self) -> bool:
        return not self.levels

    def level(self, target: float | None = None) -> Level:
        """The operating point for `target` (default: the one tuned for), or the strongest there is below it."""
        wanted = self.target if target is None else target
        return next((level for level in self.levels if level.target >= wanted - 1e-9), self.levels[-1])

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "levels": [level.to_dict() for level in self.levels], "exact": self.exact}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> IndexReport:
        values = {key: value for key, value in data.items() if key != "exact"}
        return cls(**{**values, "levels": [Level.from_dict(level) for level in data["levels"]]})


class VectorIndex:
    """Nearest vectors by cosine, with a recall that was measured.

    Parameters
    ----------
    recall : float
        The lower 95 % confidence bound of recall@`at` that tuning has to pass, on held-out queries.
    at : int
    memory : int or str, optional
        Bytes (or ``"4GB"``) that building and the finished index may take beside the interpreter.
    latency : float or str, optional
        Seconds (or ``"5ms"``) that one query may take at the 95th percentile; a miss is a note in the report.
    factory : str, optional
        Build this, such as ``"HNSW32"`` or ``"IVF4096,SQ8"``, instead of choosing.
    threads : int, optional
        For building and batches; default all CPUs. How many a batch uses is measured.
    device : str
        ``"cuda"`` builds graphs on a GPU (CAGRA); tuning and search stay on the CPU.
    seed : int
    """

    def __init__(
        self,
        *,
        recall: float = 0.95,
        at: int = 10,
        memory: int | str | None = None,
        latency: float | str | None = None,
        factory: str | None = None,
        threads: int | None = None,
        device: str = "cpu",
        seed: int = 0,
    ) -> None:
        self.recall = recall
        self.at = at
        self.memory = memory
        self.latency = latency
        self.factory = factory
        self.threads = threads
        self.device = device
        self.seed = seed

    def fit(
        self,
        vectors: Array | Vectors,
        queries: Mapping[str, Array] | None = None,
        *,
        wanted: npt.NDArray[np.bool_] | None = None,
        say: Progress = lambda text: None,
    ) -> VectorIndex:
        """Build over `vectors` (n, dim) and tune on held-out queries.

        Parameters
        ----------
        queries : mapping of name to (m, dim), optional
            Real queries, each set measured apart. Without any, vectors are held out of the index while it is tuned.
        wanted : (n,) bool, optional
            Index these alone.
        say : callable
            Told what is going on.

        Raises
        ------
        UsageError
            A parameter that makes no sense, or memory in which no index can be built.
        """
        self._check()
        self.vectors_ = as_vectors(vectors)
        n, dim = len(self.vectors_), self.vectors_.dim
        usable = _with_direction(self.vectors_, np.ones(n, bool) if wanted is None else np.asarray(wanted, bool).copy())
        self.base_: Base | None = None
        count, memory = int(usable.sum()), parse_bytes(self.memory)
        recipe = Recipe.parse(self.factory) if self.factory else choose(count, dim, memory)
        self._forced = self.factory is not None
        if self._forced and memory is not None and recipe.kind != "exact":
            recipe.check_fits(count, dim, memory)
        if recipe.kind == "exact" or count < max(2 * self.at, FEW):
            asked = self._forced and recipe.kind == "exact"
            why = "asked for" if asked else f"{count:,} vectors are searched exactly in no time"
            self.report_ = IndexReport("flat", count, dim, self.at, self.recall, why)
        else:
            self._build(recipe, usable, dict(queries or {}), say)
        self._planner = Planner(self)
        return self

    def search(
        self, queries: Array, k: int = 10, *, keep: npt.NDArray[np.bool_] | None = None, recall: float | None = None
    ) -> Answer:
        """The `k` nearest vectors of each query.

        Parameters
        ----------
        queries : (m, dim)
        keep : (n,) bool, optional
            Look at these positions alone; min(k, how many) results are returned. What is found out about a read-only mask is
            kept for the next search with it.
        recall : float, optional
            Another operating point than the target's; 1 for exact search.
        """
        queries = np.asarray(queries)
        queries = queries[None] if queries.ndim == 1 else queries
        if queries.ndim != 2 or queries.dtype.kind not in "fiu" or queries.shape[1] != self._planner.dim:
            raise UsageError(
                f"Queries should be numbers of shape (m, {self._planner.dim}). Got {queries.dtype}{queries.shape} instead."
            )
        unit = unit_rows(queries)
        if not np.isfinite(unit[:, 0]).all():  # one value that is not finite leaves none in its row
            bad = int(np.flatnonzero(~np.isfinite(unit[:, 0]))[0])
            raise UsageError(f"The query at position {bad} holds NaN or infinity.")
        if k < 1:
            raise UsageError(f"k should be 1 or more. Got {k!r} instead.")
        if keep is not None and keep.shape != (len(self.vectors_),):
            raise UsageError(f"keep should have shape ({len(self.vectors_)},). Got {keep.shape} instead.")
        return self._planner.search(unit, k, keep, recall)

    def settle(self) -> VectorIndex:
        """Get ready for many searches (huge pages); returns self."""
        if self.base_ is not None:
            self.base_.settle()
        return self

    @classmethod
    def assembled(cls, report: IndexReport, base: Base | None, vectors: Vectors) -> VectorIndex:
        """From a saved base and its report, over vectors that may have grown since."""
        index = cls(recall=report.target, at=report.at)
        index.report_, index.base_, index.vectors_ = report, base, vectors
        index._planner = Planner(index)
        return index

    def _check(self) -> None:
        if not 0 < self.recall < 1:
            raise UsageError(f"recall should lie between 0 and 1, such as 0.95. Got {self.recall!r} instead.")
        if self.at < 1:
            raise UsageError(f"at should be 1 or more. Got {self.at!r} instead.")
        self._latency = parse_seconds(self.latency)

    def _build(self, recipe: Recipe, usable: npt.NDArray[np.bool_], queries: dict[str, Array], say: Progress) -> None:
        threads = self.threads or os.cpu_count() or 1
        n, dim = int(usable.sum()), self.vectors_.dim
        start = time.perf_counter()
        held, asked = self._held_out(usable, n)
        rest = usable.copy()
        rest[held] = False
        built = build(recipe, self.vectors_, rest, threads=threads, seed=self.seed, device=self.device, say=say)
        labels = np.concatenate([np.flatnonzero(rest), held])
        labels = labels.astype(np.int32 if len(usable) < 2**31 else np.int64)
        built_at = time.perf_counter()
        say("measuring recall")
        sets = self._query_sets(queries, rest, asked)
        exact_ms = exact_latency(lambda: blocks_of(self.vectors_, rest), n, dim)
        tried: list[tuple[Tuner, list[Level]]] = []
        for codes in list(built):
            coded = Recipe(recipe.kind, recipe.size if recipe.kind == "hnsw" else int(built[codes].nlist), codes)
            base = Base(built.pop(codes), coded, labels[: len(labels) - len(held)], self.vectors_)
            base.settle()
            tuner = Tuner(base, sets, self.at, threads)
            tried.append((tuner, tuner.levels([self.recall])))
        tuner, levels = _fastest(tried)
        del tried
        base = tuner.base
        levels = sorted([*levels, *tuner.levels(set(LEVELS) - {self.recall})], key=lambda level: level.target)
        notes, reason = [], ""
        reached = [level for level in levels if level.target >= self.recall]
        if self._forced and not reached:
            most = tuner.strongest()
            recall = tuner.recalls(most)
            levels.append(Level(self.recall, most, recall, *tuner.latency(most)))
            notes.append(
                f"recall {self.recall} is not proven: {levels[-1].lowest} at the most effort, on "
                f"{min(len(s.unit) - len(s.unit) // 2 for s in sets.values())} queries"
            )
        elif not reached:
            reason = f"{base.recipe} did not reach recall {self.recall} at any effort: exact search instead"
        elif not self._forced and reached[0].p50_ms > PAYS * exact_ms:
            reason = f"{base.recipe} took {reached[0].p50_ms:.2f} ms where exact search takes {exact_ms:.2f}: exact instead"
        common = {"n": n, "dim": dim, "at": self.at, "target": self.recall, "exact_ms": exact_ms}
        if reason:
            seconds = {"build_seconds": built_at - start, "tune_seconds": time.perf_counter() - built_at}
            self.report_ = IndexReport("flat", why=reason, **seconds, **common)  # type: ignore[arg-type]
            return
        chosen = next(level for level in levels if level.target >= self.recall)
        if self._latency is not None and chosen.p95_ms > 1000 * self._latency:
            notes.append(f"a query takes {chosen.p95_ms:.2f} ms at the 95th percentile, not {1000 * self._latency:g} ms")
        rates = {t: tuner.throughput(chosen.setting, t) for t in sorted({1, threads})}
        fastest = max(rates, key=lambda t: rates[t])
        tuned_at = time.perf_counter()
        if len(held):
            say("adding the held-out vectors")
            if not add(base.index, unit_rows(self.vectors_.take(held))):
                labels = labels[: len(labels) - len(held)]  # they are searched exactly beside it
        self.base_ = Base(base.index, base.recipe, labels, self.vectors_)
        self.report_ = IndexReport(
            str(base.recipe),
            why="asked for"
            if self._forced
            else f"{1000 * 1 / max(chosen.p50_ms, 1e-6):,.0f} queries a second, exact search {1000 / exact_ms:,.0f}",
            levels=levels,
            qps=1000 / chosen.p50_ms,
            batch_qps=rates[fastest],
            threads=fastest,
            bytes_per_vector=base.recipe.bytes(n, dim) / n,
            build_seconds=built_at - start + time.perf_counter() - tuned_at,
            tune_seconds=tuned_at - built_at,
            notes=notes,
            **common,  # type: ignore[arg-type]
        )

    def _held_out(self, usable: npt.NDArray[np.bool_], n: int) -> tuple[Positions, Positions]:
        """Positions to hold out of the index while it is tuned, and those of them that are asked: one of each group of copies.

        A query whose copies stayed in the index would be an easy one.
        """
        rng = np.random.default_rng(self.seed)
        count = min(QUERIES, max(n // 10, min(n // 2, FEW)))
        keys = _content_keys(self.vectors_)
        sampled = rng.choice(np.flatnonzero(usable), count, replace=False)
        distinct, copies = np.unique(keys[usable], return_counts=True)
        _, first = np.unique(keys[sampled], return_index=True)
        asked = sampled[np.sort(first)]
        sizes = copies[np.searchsorted(distinct, keys[asked])]
        asked = asked[np.cumsum(sizes) <= max(n // 10, FEW)]
        held = np.flatnonzero(usable & np.isin(keys, keys[asked]))
        return held.astype(np.int64), np.sort(asked).astype(np.int64)

    def _query_sets(self, queries: dict[str, Array], rest: npt.NDArray[np.bool_], asked: Positions) -> dict[str, QuerySet]:
        rng = np.random.default_rng(self.seed)
        sets = {"held out": unit_rows(self.vectors_.take(asked))} if len(asked) or not queries else {}
        for name, given in queries.items():
            given = np.asarray(given)
            if given.ndim != 2 or given.shape[1] != self.vectors_.dim or not len(given):
                raise UsageError(f"Queries {name!r} should have shape (m, {self.vectors_.dim}). Got {given.shape} instead.")
            if not np.isfinite(given).all():
                raise UsageError(f"Queries {name!r} hold NaN or infinity.")
            sets[name] = unit_rows(given[np.sort(rng.choice(len(given), min(QUERIES, len(given)), replace=False))])
        kth = kth_scores(blocks_of(self.vectors_, rest), np.concatenate(list(sets.values())), self.at)
        ends = np.cumsum([len(unit) for unit in sets.values()])[:-1]
        mixed = {name: rng.permutation(len(unit)) for name, unit in sets.items()}
        return {
            name: QuerySet(np.ascontiguousarray(sets[name][mixed[name]]), scores[mixed[name]])
            for name, scores in zip(sets, np.split(kth, ends), strict=True)
        }


def _fastest(tried: list[tuple[Tuner, list[Level]]]) -> tuple[Tuner, list[Level]]:
    """Of those that reach the target the one that answers fastest, timed by turns: a machine has its moods."""
    able = [(tuner, levels) for tuner, levels in tried if levels]
    if len(able) < 2:
        return (able or tried)[0]
    times = [
        min(times) for times in zip(*([t.latency(ls[-1].setting)[0] for t, ls in able] for _ in range(ROUNDS)), strict=True)
    ]
    return able[int(np.argmin(times))]


def _with_direction(vectors: Vectors, wanted: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """`wanted` without vectors of zeros, which have no place in an index; they are searched exactly."""
    start = 0
    for block in vectors.blocks():
        wanted[start : start + len(block)] &= block.any(axis=1)
        start += len(block)
    return wanted


def _content_keys(vectors: Vectors) -> npt.NDArray[np.uint64]:
    """A key (n,) of the bits of each vector: equal where vectors are equal, and hardly ever elsewhere."""
    keys = np.empty(len(vectors), np.uint64)
    start = 0
    for block in vectors.blocks(4096):
        bits = np.ascontiguousarray(block).view(np.dtype(f"u{block.dtype.itemsize}")).astype(np.uint64)
        odd = np.random.default_rng(0).integers(1 << 62, size=bits.shape[1], dtype=np.uint64) * np.uint64(2) + np.uint64(1)
        keys[start : start + len(block)] = (bits * odd).sum(axis=1, dtype=np.uint64)
        start += len(block)
    return keys


class Subset:
    """Some positions of vectors, as `Vectors`."""

    def __init__(self, vectors: Vectors, positions: Positions) -> None:
        self._vectors, self._positions = vectors, positions

    def __len__(self) -> int:
        return len(self._positions)

    @property
    def dim(self) -> int:
        return self._vectors.dim

    def blocks(self, size: int = 16384) -> Any:
        for lo in range(0, len(self), size):
            yield self._vectors.take(self._positions[lo : lo + size])

    def take(self, positions: Positions) -> Array:
        return self._vectors.take(self._positions[positions])


class Planner:
    """Decides for each search what the base answers and what is searched exactly."""

    def __init__(self, index: VectorIndex) -> None:
        self._index = index
        self._n = len(index.vectors_)
        self.dim = index.vectors_.dim
        self.exact = ExactIndex(index.vectors_)
        self._recalls: dict[float | None, Score] = {}
        self._settings: dict[tuple[int, float | None], Setting] = {}
        self._counted: tuple[npt.NDArray[np.bool_], int] | None = None
        self._picked: tuple[npt.NDArray[np.bool_], Positions, ExactIndex] | None = None

    @cached_property
    def _name(self) -> str:
        return self._index.report_.type

    @cached_property
    def delta(self) -> Positions:
        """Positions that the base does not know."""
        if self._index.base_ is None:
            return np.arange(self._n)
        covered = np.zeros(self._n, bool)
        covered[self._index.base_.labels] = True
        return np.flatnonzero(~covered)

    @cached_property
    def _delta_index(self) -> ExactIndex:
        return ExactIndex(Subset(self._index.vectors_, self.delta))

    def search(self, unit: Float, k: int, keep: npt.NDArray[np.bool_] | None, recall: float | None) -> Answer:
        base = self._index.base_
        if base is None or (recall is not None and recall >= 1):
            return self._exactly(unit, k, keep)
        if keep is None:
            return self._beside_delta(unit, k, None, self._setting(k, recall), recall)
        known = self._known(keep)
        share = known / max(len(base), 1)
        if share == 1:
            return self._beside_delta(unit, k, keep, self._setting(k, recall), recall)
        if known == 0 or (base.recipe.kind == "hnsw" and share < GRAPH_SHARE) or self._exact_is_faster(known, share):
            return self._exactly(unit, k, keep)
        strict = max(recall or self._index.report_.target, FILTER_RECALL) if share < UNFILTERED else recall
        return self._beside_delta(unit, k, keep, self._setting(k, strict).scaled(1 / share), strict, share)

    def _exact_is_faster(self, known: int, share: float) -> bool:
        """Whether gathering what is kept costs less than a search that tries harder by 1 / share, by what tuning measured."""
        report = self._index.report_
        exact = GATHER * report.exact_ms * known / max(report.n, 1)
        return share < UNFILTERED and (known <= EXACT_SUBSET or exact <= report.level(FILTER_RECALL).p50_ms / share)

    def _known(self, keep: npt.NDArray[np.bool_]) -> int:
        """How many of the base's vectors are kept; a read-only mask that comes again is not counted again."""
        if self._counted is None or self._counted[0] is not keep or keep.flags.writeable:
            base = self._index.base_
            assert base is not None
            self._counted = keep, int(np.count_nonzero(keep[base.labels]))
        return self._counted[1]

    def _setting(self, k: int, recall: float | None) -> Setting:
        if (k, recall) not in self._settings:
            report = self._index.report_
            setting = report.level(recall).setting
            self._settings[k, recall] = setting.scaled(k / report.at) if k > report.at else setting
        return self._settings[k, recall]

    def _recall(self, recall: float | None) -> Score:
        """What was measured at the operating point for `recall`, on the worst set of queries."""
        if recall not in self._recalls:
            self._recalls[recall] = self._index.report_.level(recall).lowest
        return self._recalls[recall]

    def _exactly(self, unit: Float, k: int, keep: npt.NDArray[np.bool_] | None) -> Answer:
        if keep is None:
            return Answer(*_padded(*self.exact.search(unit, k), k), "exact", None)
        if self._picked is None or self._picked[0] is not keep or keep.flags.writeable:
            at = np.flatnonzero(keep)
            self._picked = keep, at, ExactIndex(Subset(self._index.vectors_, at))
        _, matching, exact = self._picked
        scores, found = exact.search(unit, k)
        return Answer(*_padded(scores, matching[found], k), f"exact over {len(matching):,} matching", None)

    def _beside_delta(
        self,
        unit: Float,
        k: int,
        keep: npt.NDArray[np.bool_] | None,
        setting: Setting,
        recall: float | None,
        share: float = 1.0,
    ) -> Answer:
        """The base's answer joined with exact search over what it does not know."""
        base = self._index.base_
        assert base is not None
        threads = self._index.report_.threads
        if keep is None or share == 1:
            scores, positions = base.search(unit, min(k, len(base)), setting, threads=threads)
            short = positions[:, -1] < 0
        elif base.recipe.kind == "hnsw":
            scores, positions, short = self._sifted(unit, k, keep, setting, share, threads)
        else:
            enough = Setting(setting.effort, max(setting.candidates, ENOUGH * k))
            scores, positions = base.search(unit, enough.candidates, enough, keep=keep, threads=threads)
            short = positions[:, -1] < 0
            scores, positions = scores[:, :k], positions[:, :k]
        plan = self._name + ("" if keep is None else f" over {share:.0%} matching")
        delta = self.delta if keep is None else self.delta[keep[self.delta]]
        if scores.shape[1] < k:
            scores, positions = _padded(scores, positions, k)
        if len(delta):
            own = None if keep is None else np.flatnonzero(keep[self.delta])
            more, found = self._delta_index.search(unit, k, subset=own)
            scores, positions = _merged(scores, positions, more, self.delta[found], k)
            plan += f" + {len(delta):,} exact"
        if short.any():  # too few turned up: the neighbourhood of these queries does not match
            answer = self._exactly(unit[short], k, keep)
            scores[short], positions[short] = answer.scores, answer.positions
            plan += f"; {int(short.sum()):,} of {len(unit):,} queries exact"
            if short.all():
                return Answer(scores, positions, plan, None)
        return Answer(scores, positions, plan, self._recall(recall))

    def _sifted(
        self, unit: Float, k: int, keep: npt.NDArray[np.bool_], setting: Setting, share: float, threads: int
    ) -> tuple[Float, Positions, npt.NDArray[np.bool_]]:
        """A graph is asked for more than `k`, and what does not match is thrown away; which queries fell short."""
        base = self._index.base_
        assert base is not None
        wanted = min(len(base), int(np.ceil(k / share * 1.3)) + 10)
        scores, positions = base.search(
            unit, wanted, Setting(max(setting.effort, wanted), max(setting.candidates, wanted)), threads=threads
        )
        dropped = (positions < 0) | ~keep[np.maximum(positions, 0)]
        scores = np.where(dropped, np.float32(-np.inf), scores)
        order = np.argsort(dropped, axis=1, kind="stable")[:, :k]
        scores = np.take_along_axis(scores, order, 1)
        positions = np.take_along_axis(np.where(dropped, -1, positions), order, 1)
        return scores, positions, (positions < 0).any(axis=1) | (positions.shape[1] < k)


def _padded(scores: Float, positions: Positions, k: int) -> tuple[Float, Positions]:
    missing = k - scores.shape[1]
    if missing <= 0:
        return scores, positions
    return (
        np.pad(scores, ((0, 0), (0, missing)), constant_values=-np.inf),
        np.pad(positions, ((0, 0), (0, missing)), constant_values=-1),
    )


def _merged(scores: Float, positions: Positions, more: Float, found: Positions, k: int) -> tuple[Float, Positions]:
    every, at = np.concatenate([scores, more], axis=1), np.concatenate([positions, found], axis=1)
    order = np.argsort(-every, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(every, order, 1), np.take_along_axis(at, order, 1)
