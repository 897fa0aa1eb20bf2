"""`VectorIndex`: approximate search that knows its recall, stays right under change, and is exact where that is cheaper.

A base (one immutable FAISS index) covers some positions; `embedstore.indexing.answering` answers with it and beside it. Arrays
and blocks in, positions out; knows no store.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple, get_type_hints

import numpy as np
import numpy.typing as npt

from embedstore._core.arguments import as_type, check_least
from embedstore._core.threads import allowed, idle
from embedstore._core.unit import unit_rows
from embedstore.errors import UsageError
from embedstore.indexing.answering import Answer, Planner
from embedstore.indexing.base import Base
from embedstore.indexing.build import Progress, add, blocks_of, build
from embedstore.indexing.exact import RESIDENT_BYTES
from embedstore.indexing.measure import QuerySet, exact_latency, kth_scores
from embedstore.indexing.recipe import Recipe, choose, parse_bytes, parse_seconds
from embedstore.indexing.report import IndexReport
from embedstore.indexing.tune import LEVELS, Level, Tuner
from embedstore.indexing.vectors import Array, Positions, Vectors, as_vectors

QUERIES = 1600
FEW = 20  # with fewer vectors there is nothing to hold out
PAYS = 0.5  # an index that takes more than this share of exact search is not worth its errors


class _HeldOut(NamedTuple):
    """Positions that are not in the index while it is tuned, and those of them that are asked."""

    positions: Positions
    asked: Positions


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
        ``"cuda"`` builds graphs on a GPU (CAGRA) and searches exactly there; graphs are tuned and searched on the CPU.
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
        on_gpu = self.device.startswith("cuda")
        recipe = Recipe.parse(self.factory) if self.factory else choose(count, dim, memory, on_gpu=on_gpu)
        if on_gpu and recipe.kind == "hnsw":  # as a GPU builds it
            recipe = replace(recipe, codes="Flat")
        self._forced = self.factory is not None
        if self._forced and memory is not None and recipe.kind != "exact":
            recipe.check_fits(count, dim, memory)
        if recipe.kind == "exact" or count < max(2 * self.at, FEW):
            asked = self._forced and recipe.kind == "exact"
            why = "asked for" if asked else f"{count:,} vectors are searched exactly in no time"
            self.report_ = IndexReport("flat", count, dim, self.at, self.recall, why)
        else:
            self.report_ = self._build(recipe, usable, dict(queries or {}), say)
        self._planner = Planner(self.vectors_, self.base_, self.report_, self.device)
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

        Returns
        -------
        Answer
            min(k, n) columns; those beyond a query's last result are empty.
        """
        k = as_type(k, int, "k")
        queries = np.asarray(queries)
        queries = queries[None] if queries.ndim == 1 else queries
        if keep is None and (answer := self._planner.one(queries, k, recall)) is not None:
            return answer
        if queries.ndim != 2 or queries.dtype.kind not in "fiu" or queries.shape[1] != self.vectors_.dim:
            raise UsageError(
                f"Queries should be numbers of shape (m, {self.vectors_.dim}). Got {queries.dtype}{queries.shape} instead."
            )
        unit = unit_rows(queries)
        if not np.isfinite(unit[:, 0]).all():  # one value that is not finite leaves none in its row
            bad = int(np.flatnonzero(~np.isfinite(unit[:, 0]))[0])
            raise UsageError(f"The query at position {bad} holds NaN or infinity.")
        if k < 1:
            raise UsageError(f"k must be at least 1. Got {k} instead.")
        if keep is not None and keep.shape != (len(self.vectors_),):
            raise UsageError(f"keep should have shape ({len(self.vectors_)},). Got {keep.shape} instead.")
        return self._planner.search(unit, k, keep, recall)

    def settle(self) -> VectorIndex:
        """Get ready for many searches (huge pages); returns self."""
        if self.base_ is not None:
            self.base_.settle()
        return self

    @classmethod
    def assembled(
        cls,
        report: IndexReport,
        base: Base | None,
        vectors: Vectors,
        *,
        device: str = "cpu",
        exact_bytes: int = RESIDENT_BYTES,
    ) -> VectorIndex:
        """From a saved base and its report, over vectors that may have grown since.

        `device` is for exact search, which may keep `exact_bytes`.
        """
        index = cls(recall=report.target, at=report.at, device=device)
        index.report_, index.base_, index.vectors_ = report, base, vectors
        index._planner = Planner(vectors, base, report, device, exact_bytes)
        return index

    def _check(self) -> None:
        for name, kind in get_type_hints(VectorIndex.__init__).items():
            if hasattr(self, name):
                setattr(self, name, as_type(getattr(self, name), kind, name))
        if not 0 < self.recall < 1:
            raise UsageError(f"recall must lie between 0 and 1, such as 0.95. Got {self.recall} instead.")
        check_least(self, at=1, seed=0, threads=1)
        self._latency = parse_seconds(self.latency)

    def _build(self, recipe: Recipe, usable: npt.NDArray[np.bool_], queries: dict[str, Array], say: Progress) -> IndexReport:
        """Build what `recipe` says, tune it, and keep it as ``base_`` if it is worth it."""
        threads = self.threads or allowed()
        n, dim = int(usable.sum()), self.vectors_.dim
        started = time.perf_counter()
        keys = _content_keys(self.vectors_)
        held = self._held_out(usable, n, keys)
        if len(held.asked) < 2:  # not enough to tune on one and confirm on another
            held = _HeldOut(held.positions[:0], held.asked[:0])
        if n - len(held.positions) < max(self.at, 4) or not (len(held.asked) or queries):
            why = f"{n:,} vectors, nearly all of them copies of few, leave nothing to measure recall on"
            return IndexReport("flat", n, dim, self.at, self.recall, why)
        rest = usable.copy()
        rest[held.positions] = False
        labels = np.concatenate([np.flatnonzero(rest), held.positions])
        labels = labels.astype(np.int32 if len(usable) < 2**31 else np.int64)
        faiss_index, recipe, entries = build(
            recipe, self.vectors_, rest, threads=self.threads or idle(), seed=self.seed, device=self.device, say=say
        )
        built_at = time.perf_counter()
        say("measuring recall")
        sets = self._query_sets(queries, rest, held.asked)
        exact_ms = exact_latency(lambda: blocks_of(self.vectors_, rest), n, dim)
        tuned = Base(faiss_index, recipe, labels[: int(rest.sum())], self.vectors_, entries)
        tuned.settle()
        tuner = Tuner(tuned, sets, self.at, threads)
        levels = tuner.levels({*LEVELS, self.recall})
        report = IndexReport("flat", n, dim, self.at, self.recall, "", exact_ms=exact_ms, build_seconds=built_at - started)
        if reason := self._not_worth_it(recipe, levels, exact_ms):
            return replace(report, why=reason, tune_seconds=time.perf_counter() - built_at)
        levels, notes = self._reaching(tuner, levels)
        chosen = next(level for level in levels if level.target >= self.recall)
        rates = {t: tuner.throughput(chosen.setting, t) for t in sorted({1, threads})}
        tuned_at = time.perf_counter()
        base = self._completed(tuned, labels, held.positions, say)
        self.base_ = base
        return replace(
            report,
            type=str(base.recipe),
            why="asked for" if self._forced else f"{1000 / chosen.mean_ms:,.0f} queries a second, exact {1000 / exact_ms:,.0f}",
            levels=levels,
            qps=1000 / chosen.mean_ms,
            batch_qps=max(rates.values()),
            threads=max(rates, key=lambda t: rates[t]),
            bytes_per_vector=base.recipe.bytes(n, dim) / n,
            build_seconds=built_at - started + time.perf_counter() - tuned_at,
            tune_seconds=tuned_at - built_at,
            notes=notes,
        )

    def _not_worth_it(self, recipe: Recipe, levels: list[Level], exact_ms: float) -> str:
        """Why search should be exact after all; empty where the index pays, or was asked for."""
        reached = [level for level in levels if level.target >= self.recall]
        if self._forced:
            return ""
        if not reached:
            return f"{recipe} did not reach recall {self.recall} at any effort: exact search instead"
        if reached[0].mean_ms > PAYS * exact_ms:
            return f"{recipe} took {reached[0].mean_ms:.2f} ms where exact search takes {exact_ms:.2f}: exact instead"
        return ""

    def _reaching(self, tuner: Tuner, levels: list[Level]) -> tuple[list[Level], list[str]]:
        """`levels` with one for the target, be it one that falls short; and notes on what was asked for and not reached."""
        notes = []
        if not any(level.target >= self.recall for level in levels):
            most = tuner.strongest()
            levels = [*levels, Level(self.recall, most, tuner.recalls(most), *tuner.latency(most))]
            asked = min(len(queries.unit) - len(queries.unit) // 2 for queries in tuner.queries.values())
            notes.append(f"recall {self.recall} is not proven: {levels[-1].lowest} at the most effort, on {asked} queries")
        chosen = next(level for level in levels if level.target >= self.recall)
        if self._latency is not None and chosen.p95_ms > 1000 * self._latency:
            notes.append(f"a query takes {chosen.p95_ms:.2f} ms at the 95th percentile, not {1000 * self._latency:g} ms")
        return levels, notes

    def _completed(self, base: Base, labels: npt.NDArray[Any], held: Positions, say: Progress) -> Base:
        """`base` with the held-out vectors, where it takes them; else they are searched exactly beside it."""
        if len(held):
            say("adding the held-out vectors")
            if not add(base.index, unit_rows(self.vectors_.take(held))):
                labels = labels[: len(labels) - len(held)]
        if base.recipe.kind == "hnsw":  # so that labels are positions, if nothing else is missing
            order = np.argsort(labels).astype(np.int64)
            base.index.permute_entries(order)
            labels = labels[order]
            if base.entries is not None:
                base.entries.move(np.argsort(order))
        return Base(base.index, base.recipe, labels, self.vectors_, base.entries)

    def _held_out(self, usable: npt.NDArray[np.bool_], n: int, keys: npt.NDArray[np.uint64]) -> _HeldOut:
        """What to hold out of the index while it is tuned; of each group of copies, which go together, one is asked.

        A query whose copies stayed in the index would be an easy one.
        """
        rng = np.random.default_rng(self.seed)
        count = min(QUERIES, max(n // 10, min(n // 2, FEW)))
        sampled = rng.choice(np.flatnonzero(usable), count, replace=False)
        distinct, copies = np.unique(keys[usable], return_counts=True)
        _, first = np.unique(keys[sampled], return_index=True)
        asked = sampled[np.sort(first)]
        sizes = copies[np.searchsorted(distinct, keys[asked])]
        rarest = np.argsort(sizes, kind="stable")  # one vector with very many copies should not be all that is asked
        asked = asked[rarest][np.cumsum(sizes[rarest]) <= max(n // 10, FEW)]
        held = np.flatnonzero(usable & np.isin(keys, keys[asked]))
        return _HeldOut(held.astype(np.int64), np.sort(asked).astype(np.int64))

    def _query_sets(self, queries: dict[str, Array], rest: npt.NDArray[np.bool_], asked: Positions) -> dict[str, QuerySet]:
        rng = np.random.default_rng(self.seed)
        sets = {"held out": unit_rows(self.vectors_.take(asked))} if len(asked) or not queries else {}
        for name, given in queries.items():
            given = np.asarray(given)
            if given.ndim != 2 or given.shape[1] != self.vectors_.dim or not len(given):
                raise UsageError(f"Queries {name!r} should have shape (m, {self.vectors_.dim}). Got {given.shape} instead.")
            if len(given) < 2:
                raise UsageError(f"Queries {name!r} should be 2 or more: one half tunes the index, the other confirms. Got 1.")
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
        block = block.astype(np.float64) if block.dtype.itemsize > 8 else block
        bits = np.ascontiguousarray(block).view(np.dtype(f"u{block.dtype.itemsize}")).astype(np.uint64)
        odd = np.random.default_rng(0).integers(1 << 62, size=bits.shape[1], dtype=np.uint64) * np.uint64(2) + np.uint64(1)
        keys[start : start + len(block)] = (bits * odd).sum(axis=1, dtype=np.uint64)
        start += len(block)
    return keys
