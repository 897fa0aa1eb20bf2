"""Retrieval between the two sides of paired items: ranks that copies and ties cannot flatter, R@k, MRR, chance. Arrays only.

A copy of the right answer is right too: no method can tell the two apart. Other items that tie with it count half.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.evaluation.bootstrap import Bootstrap, Score

Array = npt.NDArray[Any]
Float = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]

RANKS = (1, 5, 10)
BLOCK = 1024
LARGEST_SHARE = 0.2
TIE = 1e-6
"""Cosines this close are one: equal vectors may differ in the last bit where they come from different blocks."""

__all__ = ["Codes", "Ranking", "content_codes", "copy_groups", "rank_distinct", "rank_pairs"]


@dataclass(frozen=True)
class Ranking:
    """Where the right answers were found.

    Parameters
    ----------
    ranks : (q,) float64
        Of the best right answer of each query, from 1.
    right : (q,) int64
        How many items of the gallery are right.
    gallery : int
        How many items were ranked.
    groups : (q,) int64
        Queries of one group are copies.
    """

    ranks: Float
    right: Codes
    gallery: int
    groups: Codes

    @property
    def mrr(self) -> float:
        """Mean reciprocal rank."""
        return float((1 / self.ranks).mean()) if len(self.ranks) else float("nan")

    def scores(self, *, seed: int = 0) -> dict[str, Score]:
        """``r@1``, ``r@5``, ``r@10`` and ``mrr``, with intervals over queries, copies of a query drawn together."""
        bootstrap = Bootstrap.of(len(self.ranks), groups=self.groups, seed=seed)
        at = {f"r@{k}": bootstrap.mean((self.ranks <= k).astype(np.float64)) for k in RANKS}
        return {**at, "mrr": bootstrap.mean(1 / self.ranks)}

    def chance(self) -> dict[str, float]:
        """What a random order gets in expectation: the keys of `scores`."""
        counts, queries = np.unique(self.right, return_counts=True)
        none = np.stack([_none_within(int(m), self.gallery) for m in counts])
        share = queries / queries.sum()
        first = none[:, :-1] - none[:, 1:]
        at = {f"r@{k}": float(share @ (1 - none[:, min(k, self.gallery)])) for k in RANKS}
        return {**at, "mrr": float(share @ (first / np.arange(1, self.gallery + 1)).sum(axis=1))}


def _none_within(right: int, gallery: int) -> Float:
    """Chance that none of the first 0, 1, … `gallery` of a random order is right."""
    drawn = np.arange(gallery)
    return np.concatenate([[1.0], np.cumprod(np.maximum(gallery - right - drawn, 0) / (gallery - drawn))])


def content_codes(contents: Array) -> Codes:
    """A number (n,) for each row of `contents` (n, w), such as hashes or vectors; equal rows have equal numbers."""
    rows = np.ascontiguousarray(contents)
    if not len(rows):
        return np.empty(0, np.int64)
    void = rows.view(f"V{rows.dtype.itemsize * rows.shape[1]}").ravel()
    return np.unique(void, return_inverse=True)[1].astype(np.int64).reshape(-1)


def copy_groups(*codes: Codes) -> Codes:
    """Group (n,) of each item: items that share a content in any of `codes` (n,), directly or over others, are in one.

    Where a fifth of all items would be in one group, as with few different texts, only items that share every content are.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    n = len(codes[0])
    offsets = n + np.cumsum([0, *(int(c.max(initial=-1)) + 1 for c in codes)])
    contents = np.concatenate([c + at for c, at in zip(codes, offsets[:-1], strict=True)])
    edges = (np.tile(np.arange(n), len(codes)), contents)
    graph = coo_matrix((np.ones(len(contents), bool), edges), shape=(offsets[-1], offsets[-1]))
    groups = np.asarray(connected_components(graph, directed=False)[1][:n], np.int64)
    return groups if np.bincount(groups).max() <= max(LARGEST_SHARE * n, 1) else content_codes(np.stack(codes, axis=1))


def rank_pairs(queries: Array, gallery: Array, query_codes: Codes, gallery_codes: Codes) -> Ranking:
    """Every pair is a query, and every pair's other side is in the gallery.

    Parameters
    ----------
    queries, gallery : (n, d)
        Unit vectors of the two sides of n pairs.
    query_codes, gallery_codes : (n,) int64
        Contents, see `content_codes`.
    """
    answers = np.stack([np.arange(len(queries)), gallery_codes], axis=1)
    return _rank(queries, gallery, answers, gallery_codes, query_codes)


def rank_distinct(queries: Array, gallery: Array, query_codes: Codes, gallery_codes: Codes) -> Ranking:
    """As `rank_pairs`, with every content once: distinct queries, a gallery without copies; any partner of a query is right."""
    q_codes, q_first, q_of = np.unique(query_codes, return_index=True, return_inverse=True)
    _, g_first, g_of = np.unique(gallery_codes, return_index=True, return_inverse=True)
    answers = np.unique(np.stack([q_of.reshape(-1), g_of.reshape(-1)], axis=1), axis=0)
    return _rank(queries[q_first], gallery[g_first], answers, np.arange(len(g_first)), q_codes)


def _rank(queries: Array, gallery: Array, answers: Codes, codes: Codes, groups: Codes) -> Ranking:
    """Ranks where `answers` (m, 2), ascending, holds (query, a code that is right for it)."""
    n = int(codes.max(initial=-1)) + 1
    ranks, counts = np.empty(len(queries)), np.empty(len(queries), np.int64)
    for lo in range(0, len(queries), BLOCK):
        hi = min(lo + BLOCK, len(queries))
        start, stop = np.searchsorted(answers[:, 0], [lo, hi])
        is_right = np.zeros((hi - lo, n), bool)
        is_right[answers[start:stop, 0] - lo, answers[start:stop, 1]] = True
        right = is_right[:, codes]
        similarity = queries[lo:hi] @ gallery.T
        best = np.where(right, similarity, -np.inf).max(axis=1, keepdims=True)
        above = (~right & (similarity > best + TIE)).sum(axis=1)
        ties = (~right & (np.abs(similarity - best) <= TIE)).sum(axis=1)
        ranks[lo:hi] = 1 + above + ties / 2
        counts[lo:hi] = right.sum(axis=1)
    return Ranking(ranks, counts, len(gallery), groups)
