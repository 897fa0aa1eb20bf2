"""Several queries, or one in several spaces, as one ranking: read as deep as it takes to know which items are the best.

An item that is nowhere among the first can still be among the best of all queries together. So each ranking is read on until
nothing that was not read could change what is returned (the threshold algorithm: Fagin, Lotem & Naor, PODS 2001).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from embedstore.retrieval.aligned_spaces import SearchableSpace
from embedstore.retrieval.asked import Asked
from embedstore.retrieval.fusion import Joined, fuse_ranks, fuse_scores
from embedstore.retrieval.several_vectors import similarities

Rows = npt.NDArray[np.int64]
Ranking = tuple[Rows, npt.NDArray[np.float64]]
"""Rows, best first, and their scores."""
Search = Callable[[Asked, int], Ranking]
"""Finds so many of the items nearest to a query."""

BACKGROUND = 1000
DEEP, DEEPENED = 100, 4
"""How deep rankings are read at first, and how many times deeper next."""
ROOTS = 4
"""Exact search reads at first so many times the root of the number of items: each reading looks at all of them."""
FAR = {"score": 1600, "rrf": 400}
"""What an index found so far down is believed to be all that counts. Of the ten best of 100,000 items in two spaces by score it
is all of them (at 400 0.99, at 100 0.63); by rank 0.98 (at 1,600 0.985, in four times the time)."""


def ranked_together(
    asked: Sequence[Asked], depth: int, fusion: str, search: Search, *, indexed: bool, exact: Callable[[], bool]
) -> tuple[Rows, npt.NDArray[np.float64], float]:
    """The `depth` best items of several queries together; where the searches are exact, so is this.

    What is read next comes after what was returned before, and how deep that is does not hang on `depth`: pages agree.

    Parameters
    ----------
    fusion : str
        ``"score"`` or ``"rrf"``.
    indexed : bool
        Whether an index is searched.
    exact : callable
        Whether all searches until now were exact.

    Returns
    -------
    rows, scores : (n,)
        Best first.
    rest : float
        No other item has a higher score than this.
    """
    join = _by_score(asked, search) if fusion == "score" else _by_rank(asked, search)
    rows, scores, rest = np.empty(0, np.int64), np.empty(0), -np.inf
    for deep in _depths(max(len(one.space) for one in asked), fusion, indexed):
        found = join(deep)
        believed = found.sure | (deep >= FAR[fusion] and not exact())
        fresh = believed & ~np.isin(found.rows, rows)
        rows, scores = np.concatenate([rows, found.rows[fresh]]), np.concatenate([scores, found.scores[fresh]])
        others = found.most[~np.isin(found.rows, rows[:depth])]
        rest = max(found.rest, float(others.max(initial=-np.inf)))
        if len(rows) >= depth or found.rest == -np.inf:
            break
    return rows[:depth], scores[:depth], rest


def _depths(most: int, fusion: str, indexed: bool) -> Iterator[int]:
    deep = DEEP if indexed else max(DEEP, math.ceil(ROOTS * math.sqrt(most)))
    while deep < most:
        yield deep
        deep = deep * DEEPENED if indexed or fusion == "score" else most  # a sum of ranks needs the rank in each
    yield most


def _by_rank(asked: Sequence[Asked], search: Search) -> Callable[[int], Joined]:
    def join(deep: int) -> Joined:
        rankings = [search(one, deep)[0] for one in asked]
        ended = [_ended(rows, deep, one.space) for rows, one in zip(rankings, asked, strict=True)]
        return fuse_ranks(rankings, [one.weight for one in asked], ended)

    return join


def _by_score(asked: Sequence[Asked], search: Search) -> Callable[[int], Joined]:
    background = [_usual(one) for one in asked]

    def join(deep: int) -> Joined:
        found = [search(one, deep) for one in asked]
        rows = np.unique(np.concatenate([own for own, _ in found]))
        scores = []
        for one in asked:
            has = one.space.has(rows)
            values = np.full(len(rows), np.nan)
            values[has] = similarities(one.space, rows[has], one.several)
            scores.append(values)
        last = []
        for one, (own, values) in zip(asked, found, strict=True):
            last.append(np.nan if _ended(own, deep, one.space) else float(values[-1]))
        return fuse_scores(rows, scores, background, [one.weight for one in asked], last)

    return join


def _ended(rows: Rows, deep: int, space: SearchableSpace) -> bool:
    """Whether a ranking that was read so deep has no more rows."""
    return len(rows) < deep or deep >= len(space)


def _usual(one: Asked) -> tuple[float, float]:
    """Mean and standard deviation of how near items at random are to a query."""
    at_random = np.random.default_rng(0).choice(one.space.rows, min(BACKGROUND, len(one.space)), replace=False)
    usual = similarities(one.space, np.sort(at_random), one.several)
    return float(usual.mean()), float(usual.std())
