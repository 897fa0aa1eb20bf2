"""Joining and thinning rankings: fusion of several queries, diversity, groups. Arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore._core.unit import unit_rows
from embedstore.indexing.vectors import Array

Float = npt.NDArray[np.float64]
Ranking = tuple[npt.NDArray[np.int64], Float]
"""Keys, best first, and their scores."""
Folded = dict[int, list[int]]
"""Row → rows of the results that are folded into it."""
RRF = 60
POOL = 100  # of the nearest, that a diverse answer is put together from
DEEP, DEEPENED = 100, 4  # candidates of each query when several are joined; so many times more where that is too few


def fuse_ranks(rankings: Sequence[npt.NDArray[np.int64]], weights: Sequence[float]) -> tuple[npt.NDArray[np.int64], Float]:
    """Reciprocal rank fusion: keys by the sum of weight / (60 + rank), best first.

    Parameters
    ----------
    rankings : sequence of (n_i,) int64
        Keys, best first.

    Notes
    -----
    Cormack, Clarke & Büttcher, SIGIR 2009.
    """
    keys, at = np.unique(np.concatenate(rankings), return_inverse=True)
    points = np.concatenate([w / (RRF + 1 + np.arange(len(r))) for r, w in zip(rankings, weights, strict=True)])
    return _ranked(keys, np.bincount(at, points, len(keys)).astype(np.float64))


def fuse_scores(
    keys: npt.NDArray[np.int64], scores: Sequence[Float], background: Sequence[tuple[float, float]], weights: Sequence[float]
) -> tuple[npt.NDArray[np.int64], Float]:
    """Weighted mean of standard scores, best first.

    Cosines of two encoders have different means and spreads; each is counted from the mean and in the standard deviations of
    that query's scores over items at random. A key that a space lacks (NaN) counts as average there.

    Parameters
    ----------
    keys : (n,) int64
    scores : sequence of (n,)
    background : sequence of (mean, standard deviation)
    """
    total = np.zeros(len(keys))
    for values, (mean, deviation), weight in zip(scores, background, weights, strict=True):
        total += weight * np.nan_to_num((values - mean) / max(deviation, 1e-9))
    return _ranked(keys, total / sum(map(abs, weights)))


def _ranked(keys: npt.NDArray[np.int64], scores: Float) -> tuple[npt.NDArray[np.int64], Float]:
    order = np.argsort(-scores, kind="stable")
    return keys[order], scores[order]


def diversified(scores: Array, vectors: Array, diversity: float, k: int) -> npt.NDArray[np.intp]:
    """Maximal marginal relevance: places of `k` candidates that are near the query and far from one another.

    Parameters
    ----------
    scores : (n,)
        Similarity to the query.
    vectors : (n, dim)
    diversity : float
        0 keeps the order of scores, 1 looks only at the distance to what was chosen before.

    Notes
    -----
    Carbonell & Goldstein, SIGIR 1998.
    """
    unit = unit_rows(vectors)
    nearest = np.full(len(unit), -np.inf)
    chosen: list[int] = []
    left = np.ones(len(unit), bool)
    for _ in range(min(k, len(unit))):
        worth = (1 - diversity) * scores - (diversity * nearest if chosen else 0.0)
        best = int(np.argmax(np.where(left, worth, -np.inf)))
        chosen.append(best)
        left[best] = False
        nearest = np.maximum(nearest, unit @ unit[best])
    return np.asarray(chosen, np.intp)


def diverse(scores: Array, vectors: Array, diversity: float, *, fused: bool) -> npt.NDArray[np.intp]:
    """Places (n,) of all candidates in the order of `diversified`, a pool of one size after the other: pages fit together.

    Parameters
    ----------
    fused : bool
        Whether the scores are no cosines.
    """
    pools = [slice(lo, lo + POOL) for lo in range(0, len(scores), POOL)]
    worth = [like_cosines(scores[pool]) if fused else scores[pool] for pool in pools]
    chosen = [pool.start + diversified(own, vectors[pool], diversity, POOL) for pool, own in zip(pools, worth, strict=True)]
    return np.concatenate([np.empty(0, np.intp), *chosen])


def folded(vectors: Array, threshold: float) -> npt.NDArray[np.intp]:
    """The place (n,) that each of `vectors` (n, dim) goes by: its own, or the first one before it that is near and stands.

    Parameters
    ----------
    threshold : float
        Cosine from which on two are near.
    """
    unit = unit_rows(vectors)
    places = np.arange(len(unit))
    standing: list[int] = []
    for place in range(len(unit)):
        near = np.flatnonzero(unit[standing] @ unit[place] >= threshold)
        if len(near):
            places[place] = standing[int(near[0])]
        else:
            standing.append(place)
    return places


def under(rows: npt.NDArray[np.int64], heads: npt.NDArray[np.intp]) -> Folded:
    """The row of each place that others are folded into, and their rows; `heads` (n,) is the place that each goes by."""
    found: Folded = {}
    for place in np.flatnonzero(heads != np.arange(len(rows))).tolist():
        found.setdefault(int(rows[heads[place]]), []).append(int(rows[place]))
    return found


def first_of_each(values: Sequence[Any], limit: int) -> npt.NDArray[np.intp]:
    """Places of the first `limit` of each distinct value, in order."""
    seen: dict[Any, int] = {}
    kept = []
    for place, value in enumerate(values):
        key = value if isinstance(value, Hashable) else (type(value), repr(value))  # lists and structs
        seen[key] = seen.get(key, 0) + 1
        if seen[key] <= limit:
            kept.append(place)
    return np.asarray(kept, np.intp)


def like_cosines(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Fused scores (n,) on the scale of likeness, from 0 to 1."""
    return np.asarray((scores - scores.min()) / max(float(np.ptp(scores)), 1e-12))


def deepened(depth: int, ranked: Callable[[int], Ranking]) -> Ranking:
    """The first `depth` of several rankings joined; what more candidates bring comes after the rest, so that pages agree."""
    deep = DEEP
    rows, scores = ranked(deep)
    while len(rows) < depth:
        deep *= DEEPENED
        more, their = ranked(deep)
        fresh = ~np.isin(more, rows)
        if not fresh.any():
            break
        rows, scores = np.concatenate([rows, more[fresh]]), np.concatenate([scores, their[fresh]])
    return rows[:depth], scores[:depth]
