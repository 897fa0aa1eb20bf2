"""Recall of a target against exact search here.

Queries are stored vectors, each without itself. An answer is right when its exact score is no worse than the exact k-th best.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from embedstore._core.unit import unit_rows
from embedstore.evaluation.bootstrap import Score
from embedstore.exporting.base import Exporter, Items, Plan, Slice
from embedstore.exporting.report import Recall
from embedstore.indexing.measure import SAME, interval, kth_scores
from embedstore.indexing.vectors import Float

QUERIES, K = 100, 10
BLOCK = 16384


@dataclass(frozen=True)
class _Asked:
    """Queries of one column: ids, unit vectors (m, dim), and the exact score (m,) of each one's k-th neighbour."""

    column: str
    ids: list[str]
    unit: Float
    k: int
    kth: Float


def recall_of(exporter: Exporter, items: Items, plan: Plan, sample: Slice) -> dict[str, Recall]:
    """Space → recall of the target with its exact settings, and as it searches by default."""
    asked = [_asked(items, sample, column.column) for column in plan.vectors]
    scores: dict[str, dict[str, Score | None]] = {one.column: {"exact": None, "default": None} for one in asked}
    for kind, exact in (("exact", True), ("default", False)):
        if not exact and exporter.always_exact:
            scores = {column: {**found, "default": found["exact"]} for column, found in scores.items()}
        elif any(one.k for one in asked) and exporter.prepare(exact):
            for one in asked:
                scores[one.column][kind] = _measured(exporter, items, one, exact=exact) if one.k else None
    return {
        column.space: Recall(one.k, len(one.ids), **scores[one.column]) for column, one in zip(plan.vectors, asked, strict=True)
    }


def _asked(items: Items, sample: Slice, column: str) -> _Asked:
    vectors = sample.vectors[column]
    at = np.flatnonzero(vectors.any(axis=1))[:QUERIES]  # zeros have no direction to search in
    ids, unit = [sample.ids[i] for i in at], unit_rows(vectors[at])
    k = min(K, items.count(column) - 1) if ids else 0
    if k < 1:
        return _Asked(column, [], unit[:0], 0, np.empty(0, np.float32))
    return _Asked(column, ids, unit, k, kth_scores(_blocks(items, column), unit, k + 1))


def _blocks(items: Items, column: str) -> Iterator[Float]:
    for lo in range(0, len(items), BLOCK):
        vectors, has = items.vectors(column, np.arange(lo, min(lo + BLOCK, len(items))))
        yield unit_rows(vectors[has])


def _measured(exporter: Exporter, items: Items, asked: _Asked, *, exact: bool) -> Score:
    found = exporter.nearest(asked.column, asked.unit, asked.k + 1, exact=exact)
    right = np.zeros(len(asked.ids))
    for i, (own, answer) in enumerate(zip(asked.ids, found, strict=True)):
        at = items.positions([name for name in dict.fromkeys(answer) if name != own][: asked.k])
        vectors, has = items.vectors(asked.column, at[at >= 0])
        right[i] = (unit_rows(vectors[has]) @ asked.unit[i] >= asked.kth[i] - SAME).sum() / asked.k
    return interval(right, asked.k)
