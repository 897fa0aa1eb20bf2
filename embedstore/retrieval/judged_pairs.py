"""Judged pairs of a query and an item that answers it: CSV, TSV, JSONL or Parquet, read by DuckDB."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.errors import SourceError, UsageError
from embedstore.sources.tabular import READERS, Tabular

__all__ = ["QueryPairs", "read_pairs"]

QUERY, QUERY_ID, ID, GRADE = "query", "query_id", "id", "grade"


@dataclass(frozen=True)
class QueryPairs:
    """The rows of a file of pairs, in their order; row n of the file is position n - 1.

    Parameters
    ----------
    path : Path
    texts : bool
        Whether queries are texts rather than ids of items.
    queries, ids : list of str, (p,)
    grades : (p,) float64
        1 where the file has no grades.
    """

    path: Path
    texts: bool
    queries: list[str]
    ids: list[str]
    grades: npt.NDArray[np.float64]


def read_pairs(path: str | os.PathLike[str]) -> QueryPairs:
    """Read columns ``query`` (a text) or ``query_id`` (an item), ``id`` and optionally ``grade`` (a number above 0).

    Raises
    ------
    SourceError
        The file cannot be read, or a value in it cannot be right; names the row.
    UsageError
        It lacks a column.
    """
    file = Path(path)
    if file.suffix.lower() not in READERS:
        raise UsageError(f"{file}: expected a file of pairs ending in {', '.join(READERS)}.")
    table = Tabular(file, {QUERY, QUERY_ID, ID, GRADE})
    queries = [name for name in (QUERY, QUERY_ID) if name in table.types]
    if len(queries) != 1 or ID not in table.types:
        raise UsageError(
            f"{file} should have a column {ID!r} and one of {QUERY!r} (a text) and {QUERY_ID!r} (an item). "
            f"Columns: {', '.join(table.types)}."
        )
    query, graded = queries[0], GRADE in table.types
    texts = [table.text(name) for name in (query, ID, *((GRADE,) if graded else ()))]
    rows = table.fetched(table.query(", ".join([*texts, *([f"TRY_CAST({texts[-1]} AS DOUBLE)"] if graded else [])])))
    if not rows:
        raise SourceError(f"{file} has no rows; expected pairs of {query} and {ID}.")
    for n, row in enumerate(rows, start=1):
        _check(file, n, query, row)
    grades = np.array([row[3] for row in rows] if graded else np.ones(len(rows)), np.float64)
    return QueryPairs(file, query == QUERY, [row[0] for row in rows], [row[1] for row in rows], grades)


def _check(file: Path, n: int, query: str, row: tuple[Any, ...]) -> None:
    for name, value in zip((query, ID), row[:2], strict=True):
        if value is None or not value.strip():
            raise SourceError(f"{file}: row {n} has no {name}. Fill it, or remove the row.")
    if len(row) > 2 and not (row[3] is not None and np.isfinite(row[3]) and row[3] > 0):
        given = "nothing" if row[2] is None else repr(row[2])
        raise SourceError(f"{file}: the grade of row {n} should be a number above 0. Got {given} instead.")
