"""Search where items, or the query, have several vectors: an item is as near as its nearest piece (Khattab & Zaharia 2020).

A query of one vector scores an item by the largest cosine of a piece; one of several by the mean, over its own vectors, of
those largest cosines (MaxSim, divided by the number of the query's vectors).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from embedstore._core.unit import unit_rows
from embedstore.retrieval.aligned_spaces import SearchableSpace
from embedstore.retrieval.asked import Asked
from embedstore.retrieval.search_result import Hit, Piece

Rows = npt.NDArray[np.int64]
Float = npt.NDArray[np.float32]
Found = tuple[Float, Rows]
"""Scores (m, k) and what was found (m, k): positions or rows, -1 beyond the last."""
Search = Callable[[Rows, int], Found]
"""Finds, for some of the queries, so many of the nearest pieces: scores, descending, and positions."""

DEEPER = 4
FIRST, DOUBLED = 2, 2
"""Where the query has several vectors each looks at first for so many times the pieces of `k` items, then for so many more."""
AT_ONCE = 1 << 22
"""Pieces that are found at once, of all queries together."""


def nearest_items(search: Search, queries: int, rows: Rows, items: int, k: int) -> Found:
    """The `k` items with the nearest pieces, found by looking for more and more pieces where that is needed.

    Parameters
    ----------
    search : Search
    queries : int
        How many there are.
    rows : (m,) int64
        The item of each position.
    items : int
        How many there are.

    Returns
    -------
    scores, rows : (queries, k) or narrower
        NaN and -1 beyond the last.
    """
    most, width = len(rows), min(k, items)
    scores, found = np.full((queries, width), np.nan, np.float32), np.full((queries, width), -1, np.int64)
    if not width or not most:
        return scores, found
    deep, left = min(most, k * -(-most // items)), np.arange(queries)
    while len(left):
        unfilled = []
        for at in np.array_split(left, -(-len(left) * deep // AT_ONCE)):
            near, positions = search(at, deep)
            scores[at], found[at] = _first_of_each(near, np.where(positions < 0, -1, rows[positions]), width)
            unfilled.append(at[(found[at, -1] < 0) & (positions[:, -1] >= 0)])
        left = np.concatenate(unfilled) if deep < most else left[:0]
        deep = min(DEEPER * deep, most)
    return scores, found


def _first_of_each(scores: Float, rows: Rows, k: int) -> Found:
    """The first place of each different row (m, k)."""
    out = np.full((len(rows), k), np.nan, np.float32), np.full((len(rows), k), -1, np.int64)
    for i, own in enumerate(rows):
        _, first = np.unique(own, return_index=True)
        first = np.sort(first[own[first] >= 0])[:k]
        out[0][i, : len(first)], out[1][i, : len(first)] = scores[i, first], own[first]
    return out


def best_items(search: Search, space: SearchableSpace, queries: Float, k: int) -> tuple[Rows, npt.NDArray[np.float64]]:
    """The `k` items of the largest MaxSim to the vectors (q, dim) of one query, and their scores, descending.

    All pieces of the items that one of the vectors finds are compared, and more are looked for until no other item can be
    better: an item that was not found is no nearer to a vector than the last piece that this vector found. Where `search` is
    exact, so is the answer.
    """
    rows, most, every = space.raw_rows, len(space.raw_rows), np.arange(len(queries))
    if not len(space):
        return np.empty(0, np.int64), np.empty(0)
    deep = min(most, FIRST * k * -(-most // len(space)))
    while True:
        scores, positions = search(every, deep)
        there = positions >= 0
        candidates = np.unique(rows[positions[there]])
        found = similarities(space, candidates, queries)
        best = np.argsort(-found, kind="stable")[:k]
        cut_off = there[:, -1:].all() and deep < most  # some may not have been found
        last = scores[:, -1].mean() if cut_off else -np.inf
        if (len(best) and len(best) >= min(k, len(space)) and found[best[-1]] >= last) or not cut_off:
            return candidates[best], found[best]
        deep = min(DOUBLED * deep, most)


def similarities(space: SearchableSpace, rows: Rows, queries: Float) -> npt.NDArray[np.float64]:
    """How near (n,) the items of `rows` (n,), which must all be in `space`, are to a query of vectors (q, dim)."""
    if not len(rows):
        return np.empty(0)
    pieces = space.pieces_of(rows)
    cosines = unit_rows(queries) @ unit_rows(pieces.vectors).T
    return np.asarray(pieces.best(cosines).mean(axis=0, dtype=np.float64), np.float64)


def placed(asked: Sequence[Asked], rows: Rows, hits: list[Hit]) -> list[Hit]:
    """`hits` of `rows` (n,), with the piece that is nearest to the query in the first space with several vectors an item."""
    one = next((one for one in asked if one.space.unit is not None), None)
    if one is None or not len(rows):
        return hits
    has = np.flatnonzero(one.space.has(rows))
    pieces = one.space.pieces_of(rows[has])
    near = (unit_rows(one.several) @ unit_rows(pieces.vectors).T).max(axis=0)
    out = list(hits)
    for i, start, count in zip(has.tolist(), pieces.starts.tolist(), pieces.counts.tolist(), strict=True):
        number = int(near[start : start + count].argmax())
        begin, end = (round(at, 3) if math.isfinite(at) else None for at in pieces.places[start + number].tolist())
        out[i] = replace(out[i], piece=Piece(one.space.unit or "", number, begin, end))
    return out


def vectors_of(rows: Rows, space: SearchableSpace) -> Float:
    """Vectors (n, dim) of `rows`; zeros, like nothing else, where the space has none."""
    has = space.has(rows)
    vectors = np.zeros((len(rows), space.dim), np.float32)
    vectors[has] = space.take(rows[has])
    return vectors
