"""Joining and thinning rankings: fusion of several queries, diversity, groups. Arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from embedstore._core.unit import unit_rows
from embedstore.indexing.vectors import Array

Float = npt.NDArray[np.float64]
Folded = dict[int, list[int]]
"""Row → rows of the results that are folded into it."""
RRF = 60
FOLDED = 256  # vectors at a time
POOL = 100  # of the nearest, that a diverse answer is put together from


class Joined(NamedTuple):
    """Several rankings as one, as far as each of them was read.

    ``rows`` (n,) best first and their ``scores`` (n,); ``most`` (n,) is what each would have at most, were all rankings read to
    their ends; ``rest`` is what a row that none of them has named yet would have at most, -inf where there is no such row.
    """

    rows: npt.NDArray[np.int64]
    scores: Float
    most: Float
    rest: float

    @property
    def sure(self) -> npt.NDArray[np.bool_]:
        """Which rows (n,) have the score, and the place among all others, that they would have were all rankings read."""
        known = self.most == self.scores
        return np.asarray(known & (self.scores > max(self.rest, self.most[~known].max(initial=-np.inf))))


def fuse_ranks(rankings: Sequence[npt.NDArray[np.int64]], weights: Sequence[float], ended: Sequence[bool]) -> Joined:
    """Reciprocal rank fusion: rows by the sum of weight / (60 + rank).

    Parameters
    ----------
    rankings : sequence of (n_i,) int64
        Rows, best first.
    ended : sequence of bool
        Whether a ranking has no more than that.

    Notes
    -----
    Cormack, Clarke & Büttcher, SIGIR 2009.
    """
    rows, at = np.unique(np.concatenate(rankings), return_inverse=True)
    points = np.concatenate([w / (RRF + 1 + np.arange(len(r))) for r, w in zip(rankings, weights, strict=True)])
    scores = np.bincount(at, points, len(rows)).astype(np.float64)
    coming = [0.0 if end else w / (RRF + 1 + len(r)) for r, w, end in zip(rankings, weights, ended, strict=True)]
    most = scores.copy()
    for ranking, points_of_next in zip(rankings, coming, strict=True):
        most[~np.isin(rows, ranking)] += points_of_next
    return _joined(rows, scores, most, -np.inf if all(ended) else sum(coming))


def fuse_scores(
    rows: npt.NDArray[np.int64],
    scores: Sequence[Float],
    background: Sequence[tuple[float, float]],
    weights: Sequence[float],
    last: Sequence[float],
) -> Joined:
    """Weighted mean of standard scores.

    Cosines of two encoders have different means and spreads; each is counted from the mean and in the standard deviations of
    that query's scores over items at random. A row that a space lacks (NaN) counts as average there.

    Parameters
    ----------
    rows : (n,) int64
    scores : sequence of (n,)
    background : sequence of (mean, standard deviation)
    last : sequence of float
        What a row that is not among `rows` has at most in each space; NaN where it is not in the space.
    """
    total, rest = np.zeros(len(rows)), 0.0
    for values, (mean, deviation), weight, bound in zip(scores, background, weights, last, strict=True):
        total += weight * np.nan_to_num((values - mean) / max(deviation, 1e-9))
        rest += weight * max(float(np.nan_to_num((bound - mean) / max(deviation, 1e-9))), 0.0)  # or it lacks the space
    whole = sum(map(abs, weights))
    return _joined(rows, total / whole, total / whole, -np.inf if np.isnan(last).all() else rest / whole)


def _joined(rows: npt.NDArray[np.int64], scores: Float, most: Float, rest: float) -> Joined:
    order = np.argsort(-scores, kind="stable")
    return Joined(rows[order], scores[order], most[order], rest)


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


def folded(vectors: Array, threshold: float, most: int) -> npt.NDArray[np.intp]:
    """The place (n,) that each of `vectors` (n, dim) goes by: its own, or the first one before it that is near and stands.

    Parameters
    ----------
    threshold : float
        Cosine from which on two are near.
    most : int
        Once so many stand for themselves, no further one stands for others: every step costs as much as vectors stand.
    """
    unit = unit_rows(vectors)
    places = np.arange(len(unit))
    standing, heads, count = np.empty((min(most, len(unit)), unit.shape[1]), unit.dtype), np.empty(len(unit), np.intp), 0
    for lo in range(0, len(unit), FOLDED):
        block = unit[lo : lo + FOLDED]
        near = block @ standing[:count].T >= threshold
        known = np.asarray(near.any(axis=1))
        places[lo : lo + len(block)][known] = heads[near[known].argmax(axis=1)] if count else 0
        before = np.tril(block @ block.T >= threshold, -1)
        stands = ~known
        for i in np.flatnonzero(stands & before.any(axis=1)).tolist():
            if len(own := np.flatnonzero(before[i] & stands)):
                places[lo + i], stands[i] = lo + own[0], False
        fresh = np.flatnonzero(stands)[: most - count]
        late = (places >= lo) & ~np.isin(places, lo + fresh)
        places[late] = np.flatnonzero(late)
        standing[count : count + len(fresh)], heads[count : count + len(fresh)] = block[fresh], lo + fresh
        count += len(fresh)
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
