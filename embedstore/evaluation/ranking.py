"""Retrieval metrics of ranked results, one value a query, and what a random ranking would get. Arrays only.

`relevance` (m, r) holds the grade of each result of m queries, best first: 0 for what is not relevant or not there, 1 or a
higher number for what is. No metric looks at scores: what ties is put in random order before (`shuffle_ties`), so that each
value is an unbiased draw of its mean over all orders of the ties (McSherry & Najork 2008 compute that mean).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Float = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

__all__ = [
    "average_precision",
    "binary_ideal",
    "expected_at_random",
    "hit_at_k",
    "ndcg_at_k",
    "precision_at_k",
    "ranking_metrics",
    "recall_at_k",
    "reciprocal_rank",
    "shuffle_ties",
]

TIE = 1e-6
"""Cosines closer than this are equal: products of equal vectors differ in float32 by where in a block they were computed."""


def shuffle_ties(scores: Array, results: Array, rng: np.random.Generator, *, tie: float = TIE) -> Array:
    """`results` (m, r) with those of equal score in random order.

    The order in which a search returns copies is often that of the data set, which often is that of the labels: with 326 equal
    titles among 3,711 it moved precision@1 by 0.05.

    Parameters
    ----------
    scores : (m, r), descending
        NaN where there is no result.
    """
    known = np.where(np.isnan(scores), -np.inf, scores)
    with np.errstate(invalid="ignore"):
        tier = np.cumsum(known[:, :-1] - known[:, 1:] > tie, axis=1)
    key = rng.random(scores.shape)
    key[:, 1:] += tier
    return np.asarray(np.take_along_axis(results, np.argsort(key, axis=1), axis=1))


def hit_at_k(relevance: Array, k: int) -> Float:
    """Whether a relevant result is among the first `k` (m,): 0 or 1. Called R@k where each query has one answer."""
    return np.asarray((relevance[:, :k] > 0).any(axis=1), np.float64)


def precision_at_k(relevance: Array, k: int) -> Float:
    """Share of relevant results among the first `k` (m,); results that are not there count as not relevant."""
    return np.asarray((relevance[:, :k] > 0).sum(axis=1) / k, np.float64)


def recall_at_k(relevance: Array, relevant: Array, k: int) -> Float:
    """Share of the `relevant` (m,) items that are among the first `k` (m,); NaN where there are none."""
    return _ratio((relevance[:, :k] > 0).sum(axis=1), relevant)


def reciprocal_rank(relevance: Array) -> Float:
    """1 / rank of the first relevant result (m,); 0 where there is none."""
    found = relevance > 0
    if not found.shape[1]:
        return np.zeros(len(found))
    return np.asarray(found.any(axis=1) / (found.argmax(axis=1) + 1), np.float64)


def average_precision(relevance: Array, relevant: Array, k: int | None = None) -> Float:
    """Mean precision at the ranks of the relevant results (m,), AP@k.

    Looks at the first `k` results, by default at all that `relevance` has, and divides by min(k, relevant): 1 is reached
    where nothing better fits into k results. Over a whole ranking it is the usual average precision. NaN where nothing
    is relevant.
    """
    k = relevance.shape[1] if k is None else k
    found = relevance[:, :k] > 0
    precision = found.cumsum(axis=1) / np.arange(1, found.shape[1] + 1)
    return _ratio((precision * found).sum(axis=1), np.minimum(relevant, k))


def ndcg_at_k(relevance: Array, ideal: Array, k: int) -> Float:
    """Discounted cumulative gain of the first `k` results over the best possible (m,); NaN where nothing is relevant.

    A result's gain is its grade (not 2^grade - 1), its discount 1 / log2(rank + 1) (Järvelin & Kekäläinen 2002).

    Parameters
    ----------
    ideal : (m, i)
        The grades of all relevant items of each query, descending, zeros behind; the first `k` are looked at.
    """
    return _ratio(_dcg(relevance[:, :k]), _dcg(ideal[:, :k]))


def binary_ideal(relevant: Array, k: int) -> Array:
    """`ideal` (m, k) of `ndcg_at_k` where each of the `relevant` (m,) items has grade 1."""
    return (np.arange(k) < np.asarray(relevant)[:, None]).astype(np.float32)


def ranking_metrics(relevance: Array, relevant: Array, ideal: Array, ks: Iterable[int], *, depth: int) -> dict[str, Float]:
    """Every metric of every query.

    Parameters
    ----------
    relevance : (m, r)
    relevant : (m,) int
        How many relevant items each query has, found or not.
    ideal : (m, i)
        As of `ndcg_at_k`; i is at least the largest of `ks`, or the largest of `relevant`.
    ks : iterable of int
    depth : int
        Results that ``map`` and ``mrr`` look at; see `average_precision`.

    Returns
    -------
    dict of str to (m,) float64
        ``hit@k``, ``precision@k``, ``recall@k`` and ``ndcg@k`` for each k; ``map`` and ``mrr``.
    """
    at = {
        f"{name}@{k}": values
        for k in ks
        for name, values in (
            ("hit", hit_at_k(relevance, k)),
            ("precision", precision_at_k(relevance, k)),
            ("recall", recall_at_k(relevance, relevant, k)),
            ("ndcg", ndcg_at_k(relevance, ideal, k)),
        )
    }
    whole = {"map": average_precision(relevance, relevant, depth), "mrr": reciprocal_rank(relevance[:, :depth])}
    return {**at, **whole}


def expected_at_random(
    relevant: Array, candidates: Array, ideal: Array, total: Array, ks: Sequence[int], *, depth: int
) -> dict[str, Float]:
    """What a uniformly random order of the candidates gets in expectation, exactly: the keys of `ranking_metrics`.

    Parameters
    ----------
    relevant, candidates : (m,) int
        Relevant items of each query, and how many items are ranked for it.
    ideal : (m, i)
        As of `ranking_metrics`.
    total : (m,) float
        Sum of the grades of all relevant items of each query.
    """
    relevant, candidates = np.asarray(relevant, np.int64), np.asarray(candidates, np.int64)
    pairs, of = np.unique(np.stack([relevant, candidates], axis=1), axis=0, return_inverse=True)
    of = of.reshape(-1)
    share, mean_grade = _ratio(relevant, candidates), _ratio(total, candidates)
    at = {}
    for k in ks:
        first = np.minimum(k, candidates)
        at[f"hit@{k}"] = 1 - np.array([_none_within(r, n, k)[-1] for r, n in pairs.tolist()])[of]
        at[f"precision@{k}"] = share * first / k
        at[f"recall@{k}"] = np.where(relevant > 0, _ratio(first, candidates), np.nan)
        discounts = np.concatenate([[0], _discounts(k).cumsum()])
        at[f"ndcg@{k}"] = _ratio(mean_grade * discounts[first], _dcg(ideal[:, :k]))
    whole = {
        "map": np.array([_random_ap(r, n, depth) for r, n in pairs.tolist()])[of],
        "mrr": np.array([_random_rr(r, n, depth) for r, n in pairs.tolist()])[of],
    }
    return {**at, **whole}


def _none_within(relevant: int, candidates: int, k: int) -> Float:
    """Chance that none of the first 0, 1, … min(k, candidates) of a random order is relevant."""
    drawn = np.arange(min(k, candidates))
    return np.concatenate([[1.0], np.cumprod(np.maximum(candidates - relevant - drawn, 0) / (candidates - drawn))])


def _random_rr(relevant: int, candidates: int, depth: int) -> float:
    none = _none_within(relevant, candidates, depth)
    return float(((none[:-1] - none[1:]) / np.arange(1, len(none))).sum())


def _random_ap(relevant: int, candidates: int, depth: int) -> float:
    """Σ over ranks i of P(relevant at i) · (1 + Σ over j < i of P(relevant at j | relevant at i)) / i."""
    if not relevant:
        return float("nan")
    looked = min(depth, candidates)
    harmonic = float((1 / np.arange(1, looked + 1)).sum())
    another = (relevant - 1) / max(candidates - 1, 1)
    return relevant / candidates * (harmonic + another * (looked - harmonic)) / min(depth, relevant)


def _dcg(grades: Array) -> Float:
    return np.asarray(grades @ _discounts(grades.shape[1]), np.float64)


def _discounts(k: int) -> Float:
    return np.asarray(1 / np.log2(np.arange(2, k + 2)), np.float64)


def _ratio(a: Array, b: Array) -> Float:
    """a / b, NaN where b is 0."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.asarray(np.divide(a, b, out=np.full(a.shape, np.nan), where=b > 0))
