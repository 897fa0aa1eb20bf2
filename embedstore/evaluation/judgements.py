"""Which items answer which query: by an equal value, or by judged pairs. Arrays only.

A gallery is the ascending rows (g,) of the items that are ranked; -1 stands for a result that is not there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from embedstore.evaluation.ranking import binary_ideal

Array = npt.NDArray[Any]
Rows = npt.NDArray[np.int64]
Float = npt.NDArray[np.float64]

__all__ = ["Judgements", "PairedAnswers", "SameValue"]


class Judgements(Protocol):
    """What is relevant to each of m queries."""

    @property
    def relevant(self) -> npt.NDArray[np.int64]:
        """How many items of the gallery are (m,)."""

    @property
    def total(self) -> Float:
        """The sum of their grades (m,)."""

    def grades(self, queries: slice, rows: Rows) -> Array:
        """Grades (b, r) of results (b, r) of some of the queries."""

    def ideal(self, k: int) -> Array:
        """The best `k` grades of each query (m, k), descending, zeros behind."""


@dataclass(frozen=True)
class SameValue:
    """Items that have one of a query's values are relevant, with grade 1.

    Parameters
    ----------
    gallery : (g,) int64, ascending
    values : (g, c) int64
        One or two codes of each item.
    queries : (m, c) int64
        Those of each query.
    own : (m,) bool
        Whether the query is in the gallery itself and left out.
    """

    gallery: Rows
    values: npt.NDArray[np.int64]
    queries: npt.NDArray[np.int64]
    own: npt.NDArray[np.bool_]

    @property
    def relevant(self) -> npt.NDArray[np.int64]:
        counts = sum(_count(self.values[:, [c]], self.queries[:, [c]]) for c in range(self.values.shape[1]))
        if self.values.shape[1] == 2:  # counted twice
            counts = counts - _count(self.values, self.queries)
        return np.asarray(counts - self.own, np.int64)

    @property
    def total(self) -> Float:
        return self.relevant.astype(np.float64)

    def grades(self, queries: slice, rows: Rows) -> Array:
        at = np.searchsorted(self.gallery, rows)
        same = self.values[np.minimum(at, len(self.gallery) - 1)] == self.queries[queries][:, None]
        return np.asarray(same.any(axis=2) & (rows >= 0), np.float32)

    def ideal(self, k: int) -> Array:
        return binary_ideal(self.relevant, k)


@dataclass(frozen=True)
class PairedAnswers:
    """Pairs of a query and a relevant row, each with a grade above 0.

    Parameters
    ----------
    queries, rows : (p,) int64
        Positions of queries in 0…count-1, and rows of the gallery; a pair that occurs twice has its highest grade.
    pair_grades : (p,) float64
    count : int
        How many queries there are.
    """

    queries: npt.NDArray[np.int64]
    rows: Rows
    pair_grades: Float
    count: int

    @classmethod
    def of(cls, queries: npt.NDArray[np.int64], rows: Rows, grades: Float, count: int) -> PairedAnswers:
        """Pairs by query and row, each once."""
        order = np.lexsort([-grades, rows, queries])
        queries, rows, grades = queries[order], rows[order], grades[order]
        first = np.ones(len(rows), bool)
        first[1:] = (np.diff(queries) != 0) | (np.diff(rows) != 0)
        return cls(queries[first], rows[first], grades[first], count)

    @property
    def relevant(self) -> npt.NDArray[np.int64]:
        return np.bincount(self.queries, minlength=self.count)

    @property
    def total(self) -> Float:
        return np.asarray(np.bincount(self.queries, self.pair_grades, minlength=self.count), np.float64)

    def grades(self, queries: slice, rows: Rows) -> Array:
        span = int(max(self.rows.max(initial=0), rows.max(initial=0))) + 2
        asked = np.arange(self.count)[queries][:, None] * span + rows + 1
        keys = self.queries * span + self.rows + 1
        at = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
        return np.where((keys[at] == asked) & (rows >= 0), self.pair_grades[at], 0.0)

    def ideal(self, k: int) -> Array:
        order = np.lexsort([-self.pair_grades, self.queries])
        queries = self.queries[order]
        rank = np.arange(len(queries)) - np.searchsorted(queries, queries)
        best = np.zeros((self.count, k))
        best[queries[rank < k], rank[rank < k]] = self.pair_grades[order][rank < k]
        return best


def _count(values: npt.NDArray[np.int64], queries: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """How many of `values` (g, c) equal each of `queries` (m, c) in every column."""
    _, code = np.unique(np.concatenate([values, queries]), axis=0, return_inverse=True)
    code = code.reshape(-1)
    return np.asarray(np.bincount(code[: len(values)], minlength=int(code.max(initial=0)) + 1)[code[len(values) :]])
