"""How a search is answered: what an index answers, what is searched exactly beside it, and what is left out.

Vectors that came after the base was built are searched exactly. What is not wanted (removed, replaced, filtered out) is left
out so that min(k, matching) results are returned, always.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from embedstore.evaluation.bootstrap import Score
from embedstore.indexing.base import Base, Setting
from embedstore.indexing.exact import RESIDENT_BYTES, ExactIndex
from embedstore.indexing.report import IndexReport
from embedstore.indexing.vectors import BLOCK, Array, Float, Positions, Vectors

Mask = npt.NDArray[np.bool_]

EXACT_SUBSET = 2_000
GATHER = 2.0  # picking a vector costs so much more than passing it
GRAPH_SHARE = 0.2  # below, a graph loses its way among vectors that do not match
FILTER_RECALL = 0.99
UNFILTERED = 0.9995  # a few removed vectors are no filter
WIDE = (np.float32, np.float64)


class Answer(NamedTuple):
    """What `VectorIndex.search` returns.

    ``scores`` (m, k') float32 cosines, descending, -inf beyond the last; ``positions`` (m, k') int64, -1 beyond the last, where
    k' = min(k, how many vectors there are); ``plan`` in words; ``recall`` None where the answer is exact.
    """

    scores: Float
    positions: Positions
    plan: str
    recall: Score | None


class Subset:
    """Some positions of vectors, as `Vectors`."""

    def __init__(self, vectors: Vectors, positions: Positions) -> None:
        self._vectors, self._positions = vectors, positions

    def __len__(self) -> int:
        return len(self._positions)

    @property
    def dim(self) -> int:
        return self._vectors.dim

    def blocks(self, size: int = BLOCK) -> Iterator[Array]:
        for lo in range(0, len(self), size):
            yield self._vectors.take(self._positions[lo : lo + size])

    def take(self, positions: Positions) -> Array:
        return self._vectors.take(self._positions[positions])


class Point(NamedTuple):
    """An operating point for some k: how hard to try, and the recall that was measured, on the worst set of queries."""

    setting: Setting
    recall: Score


class Found(NamedTuple):
    """What a base answered; `short` (m,) bool: queries for which it found too little to be believed."""

    scores: Float
    positions: Positions
    short: Mask


class Planner:
    """Decides for each search what the base answers and what is searched exactly.

    Parameters
    ----------
    vectors : Vectors
        All of them; more than the base knows, maybe.
    base : Base, optional
        Without one every search is exact.
    report : IndexReport
        Of the base.
    device : str
        Where exact search over all vectors runs.
    resident_bytes : int
        See `ExactIndex`.
    """

    def __init__(
        self,
        vectors: Vectors,
        base: Base | None,
        report: IndexReport,
        device: str = "cpu",
        resident_bytes: int = RESIDENT_BYTES,
    ) -> None:
        self.vectors = vectors
        self.base = base
        self.report = report
        self.device = device
        self._resident_bytes = resident_bytes
        self._points: dict[tuple[int, float | None], Point] = {}
        self._counted: tuple[Mask, int] | None = None
        self._picked: tuple[Mask, Positions, ExactIndex | None] | None = None

    @cached_property
    def exact(self) -> ExactIndex:
        """Exact search over all vectors."""
        return ExactIndex(self.vectors, device=self.device, resident_bytes=self._resident_bytes)

    @cached_property
    def delta(self) -> Positions:
        """Positions that the base does not know."""
        unknown = np.ones(len(self.vectors), bool)
        if self.base is not None:
            unknown[self.base.labels] = False
        return np.flatnonzero(unknown)

    @cached_property
    def _delta_index(self) -> ExactIndex:
        return ExactIndex(Subset(self.vectors, self.delta), resident_bytes=self._resident_bytes)

    def search(self, unit: Float, k: int, keep: Mask | None, recall: float | None) -> Answer:
        """The `k` nearest of unit vectors (m, dim) among `keep`; at the operating point for `recall`."""
        k = min(k, len(self.vectors))
        if self.base is None or (recall is not None and recall >= 1):
            return self._exactly(unit, k, keep)
        known = len(self.base) if keep is None else self._known(self.base, keep)
        if known == len(self.base):
            return self._approximately(self.base, unit, k, keep, self._point(k, recall), 1.0)
        share = known / len(self.base)
        if known == 0 or (self.base.recipe.kind == "hnsw" and share < GRAPH_SHARE) or self._exact_is_faster(known, share):
            return self._exactly(unit, k, keep)
        if share < UNFILTERED:
            recall = max(recall or self.report.target, FILTER_RECALL)
        point = self._point(k, recall)
        return self._approximately(self.base, unit, k, keep, point._replace(setting=point.setting.scaled(1 / share)), share)

    def one(self, queries: Array, k: int, recall: float | None) -> Answer | None:
        """`search` for the plain case: one query, all vectors, nothing beside the base. None for every other."""
        base = self.base
        if base is None or len(self.delta) or queries.shape != (1, self.vectors.dim) or queries.dtype not in WIDE:
            return None
        if not 1 <= k <= len(base) or (recall is not None and recall >= 1):
            return None
        point = self._point(k, recall)
        query = queries[0]
        if query.dtype != np.float32:
            with np.errstate(over="ignore"):
                query = query.astype(np.float32)
        found = base.one(query, k, point.setting)
        return None if found is None else Answer(*found, self.report.type, point.recall)

    def _exact_is_faster(self, known: int, share: float) -> bool:
        """Whether gathering what is kept costs less than a search that tries harder by 1 / share, by what tuning measured."""
        exact = GATHER * self.report.exact_ms * known / max(self.report.n, 1)
        harder = self.report.level(FILTER_RECALL).mean_ms / share
        return share < UNFILTERED and (known <= EXACT_SUBSET or exact <= harder)

    def _known(self, base: Base, keep: Mask) -> int:
        """How many of the base's vectors are kept; a read-only mask that comes again is not counted again."""
        counted = self._counted
        if counted is None or counted[0] is not keep or keep.flags.writeable:
            self._counted = counted = keep, int(np.count_nonzero(keep[base.labels]))
        return counted[1]

    def _point(self, k: int, recall: float | None) -> Point:
        if (k, recall) not in self._points:
            level = self.report.level(recall)
            setting = level.setting.scaled(k / self.report.at) if k > self.report.at else level.setting
            self._points[k, recall] = Point(setting, level.lowest)
        return self._points[k, recall]

    def _exactly(self, unit: Float, k: int, keep: Mask | None) -> Answer:
        if keep is None:
            return Answer(*_padded(*self.exact.search(unit, k), k), "exact", None)
        picked = self._picked
        if picked is None or picked[0] is not keep or keep.flags.writeable:
            at = np.flatnonzero(keep)
            subset = ExactIndex(Subset(self.vectors, at), resident_bytes=self._resident_bytes)
            self._picked = picked = keep, at, subset if self.device == "cpu" else None
        _, matching, exact = picked
        if exact is None:  # the device keeps all vectors already
            scores, found = self.exact.search(unit, k, subset=matching)
            return Answer(*_padded(scores, found, k), f"exact over {len(matching):,} matching", None)
        scores, found = exact.search(unit, k)
        return Answer(*_padded(scores, matching[found], k), f"exact over {len(matching):,} matching", None)

    def _approximately(self, base: Base, unit: Float, k: int, keep: Mask | None, point: Point, share: float) -> Answer:
        """The base's answer joined with exact search over what it does not know."""
        scores, positions, short = self._from_base(base, unit, k, None if share == 1 else keep, point.setting, share)
        plan = self.report.type if keep is None else f"{self.report.type} over {share:.0%} matching"
        own = None if keep is None else np.flatnonzero(keep[self.delta])
        count = len(self.delta) if own is None else len(own)
        scores, positions = _padded(scores, positions, k)
        if count:
            more, found = self._delta_index.search(unit, k, subset=own)
            scores, positions = _merged(scores, positions, more, self.delta[found], k)
            plan += f" + {count:,} exact"
        if short.any():  # the neighbourhood of these queries does not match
            answer = self._exactly(unit[short], k, keep)
            scores[short], positions[short] = answer.scores, answer.positions
            plan += f"; {int(short.sum()):,} of {len(unit):,} queries exact"
            if short.all():
                return Answer(scores, positions, plan, None)
        return Answer(scores, positions, plan, point.recall)

    def _from_base(self, base: Base, unit: Float, k: int, keep: Mask | None, setting: Setting, share: float) -> Found:
        threads = self.report.threads
        if keep is None:
            scores, positions = base.search(unit, min(k, len(base)), setting, threads=threads)
            return Found(scores, positions, positions[:, -1] < 0)
        # Is asked for more than k, and what does not match is thrown away: the rest was found as surely as without a filter.
        graph = base.recipe.kind == "hnsw"
        wanted = min(len(base), int(np.ceil(k / share * 1.3)) + 10 if graph else int(np.ceil(_likely(k) / share)))
        harder = replace(
            setting,
            effort=max(setting.effort, wanted) if graph else setting.effort,
            candidates=max(setting.candidates, wanted),
        )
        scores, positions = _sifted(*base.search(unit, wanted, harder, threads=threads), keep, k)
        return Found(scores, positions, (positions < 0).any(axis=1) | (positions.shape[1] < k))


def _likely(k: int) -> float:
    """Of how many that match on average there are `k` or more, nearly always, where a filter keeps some at random."""
    return float(k + 3 * np.sqrt(k) + 4)


def _sifted(scores: Float, positions: Positions, keep: Mask, k: int) -> tuple[Float, Positions]:
    """The first `k` of each query that are kept; -1 behind them."""
    dropped = (positions < 0) | ~keep[np.maximum(positions, 0)]
    order = np.argsort(dropped, axis=1, kind="stable")[:, :k]
    scores = np.where(dropped, np.float32(-np.inf), scores)
    return np.take_along_axis(scores, order, 1), np.take_along_axis(np.where(dropped, -1, positions), order, 1)


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
