"""Equal keys, pairs of vectors above a cosine, and clusters around representatives. Arrays in, arrays out; knows no store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore._core.distinct import distinct
from embedstore._core.unit import unit_rows
from embedstore.errors import UsageError

Array = npt.NDArray[Any]
Positions = npt.NDArray[np.int64]

BLOCK = 4096
"""Rows of one matrix product: 4,096² float32 cosines are 64 MiB, whatever the number of vectors."""
MAX_PAIRS = 5_000_000
"""More pairs than this mean a threshold that no longer finds duplicates; they would fill memory."""
DECIMALS = 5
"""Of a cosine: a float32 product of unit vectors is not exact beyond, and equal vectors must have 1."""
SLACK = 1e-5


@dataclass(frozen=True)
class Pairs:
    """Pairs of positions and how near they are.

    Parameters
    ----------
    left, right : (p,) int64
        left < right.
    scores : (p,) float64
        At most 1, to five decimals: cosines, unless something else was compared.
    """

    left: Positions
    right: Positions
    scores: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.left)

    def at_least(self, threshold: float) -> Pairs:
        """Those whose score is `threshold` or more."""
        keep = self.scores >= threshold
        return Pairs(self.left[keep], self.right[keep], self.scores[keep])


def first_equal(keys: Array) -> Positions:
    """For each row of `keys` (n, w) the position (n,) of the first row that equals it."""
    void = np.ascontiguousarray(keys).view(f"V{keys.dtype.itemsize * keys.shape[1]}").ravel()
    _, first, inverse = np.unique(void, return_index=True, return_inverse=True)
    return first[inverse.reshape(-1)].astype(np.int64)


def pairs_above(
    spaces: Sequence[Array],
    threshold: float,
    *,
    first: int | None = None,
    block: int = BLOCK,
    on_progress: Callable[[float], None] | None = None,
) -> Pairs:
    """Every pair whose cosine is `threshold` or more in each of `spaces`.

    Blocked matrix products over the upper triangle: n²·d multiply-adds / 2 at the speed of BLAS, and beyond the vectors as
    given the memory of one block of cosines and of the pairs.

    Parameters
    ----------
    spaces : sequence of (n, d) float
        The same items in one or more spaces; a pair's score is its lowest cosine. A row of zeros is like nothing.
    first : int, optional
        Only pairs with at least one of the first so many items.
    on_progress : callable, optional
        Is told the share of the work that is done.

    Raises
    ------
    UsageError
        More than `MAX_PAIRS` pairs.
    """
    n = len(spaces[0])
    first = n if first is None else first
    cosines, other = np.empty((2, min(block, n) ** 2), np.float32)
    found: list[Pairs] = []
    total = 0
    for lo in range(0, first, block):
        queries = [unit_rows(x[lo : min(lo + block, first)]) for x in spaces]
        for at in range(lo, n, block):
            shape = (len(queries[0]), min(block, n - at))
            product = cosines[: shape[0] * shape[1]].reshape(shape)
            for i, (query, x) in enumerate(zip(queries, spaces, strict=True)):
                base = unit_rows(x[at : at + block])
                if i == 0:
                    np.matmul(query, base.T, out=product)
                else:
                    more = other[: product.size].reshape(shape)
                    np.minimum(product, np.matmul(query, base.T, out=more), out=product)
            hits = product >= np.float32(threshold - SLACK)
            if at == lo:
                hits = np.triu(hits, 1)
            total += int(np.count_nonzero(hits))
            if total > MAX_PAIRS:
                raise UsageError(
                    f"More than {MAX_PAIRS:,} pairs have a cosine of {threshold:g} or more: that is no longer nearly the same. "
                    "Give a higher threshold."
                )
            rows, columns = np.nonzero(hits)
            found.append(Pairs(rows + lo, columns + at, _rounded(product[hits])).at_least(threshold))
        if on_progress is not None:
            done = min(lo + block, first)
            on_progress(done * (2 * n - done) / (first * (2 * n - first)))
    return joined(found)


def joined(pairs: Sequence[Pairs]) -> Pairs:
    """All of `pairs` in one."""
    if not pairs:
        return Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
    return Pairs(*(np.concatenate([getattr(p, name) for p in pairs]) for name in ("left", "right", "scores")))


def in_all(found: Sequence[Pairs]) -> Pairs:
    """The pairs that are in each of `found`, with the lowest of their scores; in none of them twice."""
    if len(found) == 1:
        return found[0]
    n = 1 + max((int(pairs.right.max()) for pairs in found if len(pairs)), default=0)
    codes = [pairs.left * n + pairs.right for pairs in found]
    common = codes[0][np.logical_and.reduce([np.isin(codes[0], other) for other in codes[1:]])]
    orders = [np.argsort(code) for code in codes]
    at = [order[np.searchsorted(code, common, sorter=order)] for code, order in zip(codes, orders, strict=True)]
    scores = np.min([pairs.scores[i] for pairs, i in zip(found, at, strict=True)], axis=0)
    return Pairs(*np.divmod(common, n), scores)


def score_pairs(spaces: Sequence[Array], left: Positions, right: Positions, *, block: int = 16384) -> Pairs:
    """The pairs (`left`, `right`), given in any order and any number of times, each once with its lowest cosine."""
    n = len(spaces[0])
    keep = left != right
    codes = distinct(np.minimum(left, right)[keep] * n + np.maximum(left, right)[keep])
    left, right = np.divmod(codes, n)
    return Pairs(left, right, lowest_cosines(spaces, left, right, block=block))


def lowest_cosines(
    spaces: Sequence[Array], left: Positions, right: Positions, *, block: int = 16384
) -> npt.NDArray[np.float64]:
    """Of each pair (`left`, `right`) the lowest of its cosines (p,), to five decimals."""
    scores = np.ones(len(left))
    for lo in range(0, len(left), block):
        i, j = left[lo : lo + block], right[lo : lo + block]
        for x in spaces:
            cosine = np.einsum("ij,ij->i", unit_rows(x[i]), unit_rows(x[j]))
            np.minimum(scores[lo : lo + block], _rounded(cosine), out=scores[lo : lo + block])
    return scores


def _rounded(cosines: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    return np.clip(np.round(cosines.astype(np.float64), DECIMALS), -1, 1)


@dataclass(frozen=True)
class Clusters:
    """Which item stands for each.

    Parameters
    ----------
    representative : (n,) int64
        Itself where an item stands for itself.
    scores : (n,) float64
        Of its pair with the representative.
    """

    representative: Positions
    scores: npt.NDArray[np.float64]


def cluster(
    n: int, pairs: Pairs, *, weights: npt.NDArray[Any] | None = None, preference: npt.NDArray[Any] | None = None
) -> Clusters:
    """Representatives such that each other item is in a pair with its own, and no two of them are a pair.

    Greedy: the item with the most neighbours is a representative, its neighbours cannot be one, and so on; then each item
    goes to the representative it is nearest to. This is no single linkage, which would chain A–B–C to one cluster although
    A and C have nothing in common: distance to a representative is never more than that of a pair.

    Parameters
    ----------
    n : int
        How many items there are.
    pairs : Pairs
    weights : (n,), optional
        How much an item counts as a neighbour; default 1.
    preference : (n,), optional
        Of items with equally many neighbours the one with the largest becomes a representative first; then the first.
    """
    every = np.arange(n)
    w = np.ones(n) if weights is None else np.asarray(weights, np.float64)
    reach = w + np.bincount(pairs.left, w[pairs.right], n) + np.bincount(pairs.right, w[pairs.left], n)
    order = np.lexsort((every, -(np.zeros(n) if preference is None else np.asarray(preference, np.float64)), -reach))
    chosen = _independent(n, pairs, order)
    representative, scores = every.astype(np.int64), np.ones(n)
    source, target = np.concatenate([pairs.left, pairs.right]), np.concatenate([pairs.right, pairs.left])
    score = np.concatenate([pairs.scores, pairs.scores])
    use = chosen[target] & ~chosen[source]
    source, target, score = source[use], target[use], score[use]
    rank = np.empty(n, np.int64)
    rank[order] = every
    best = np.lexsort((rank[target], -score, source))
    found, first = np.unique(source[best], return_index=True)
    representative[found] = target[best][first]
    scores[found] = score[best][first]
    return Clusters(representative, scores)


def _independent(n: int, pairs: Pairs, order: Positions) -> npt.NDArray[np.bool_]:
    """Mask (n,) of items taken in `order`, each unless it is in a pair with one taken before."""
    source, target = np.concatenate([pairs.left, pairs.right]), np.concatenate([pairs.right, pairs.left])
    target = target[np.argsort(source, kind="stable")]
    ends = np.cumsum(np.bincount(source, minlength=n))
    starts = np.concatenate([[0], ends[:-1]])
    chosen, free = np.zeros(n, bool), np.ones(n, bool)
    alone = starts == ends
    chosen[alone] = True
    for i in order[~alone[order]].tolist():
        if free[i]:
            chosen[i] = True
            free[target[starts[i] : ends[i]]] = False
    return chosen
