"""Judged pairs of a query and an item that answers it: CSV, TSV, JSONL or Parquet, read by DuckDB."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore._sql import connect, literal
from embedstore.errors import SourceError, UsageError, one_line
from embedstore.sources.base import glob_escape

__all__ = ["QueryPairs", "read_pairs"]

QUERY, QUERY_ID, ID, GRADE = "query", "query_id", "id", "grade"
_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".pq")
_JSON = (".jsonl", ".ndjson")
_DELIMITERS = ",;\t|"


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
    if file.suffix.lower() not in _SUFFIXES:
        raise UsageError(f"{file}: expected a file of pairs ending in {', '.join(_SUFFIXES)}.")
    if not file.is_file():
        raise SourceError(f"{file} does not exist.")
    if not file.stat().st_size:
        raise SourceError(f"{file} is empty (0 bytes); expected columns query or query_id, id, and rows.")
    query, columns = _columns(file)
    as_text = "\"{}\" ->> '$'" if file.suffix.lower() in _JSON else 'CAST("{}" AS VARCHAR)'
    terms = [as_text.format(query), as_text.format(ID)]
    if GRADE in columns:
        grade = as_text.format(GRADE)
        terms += [grade, f"TRY_CAST({grade} AS DOUBLE)"]
    rows = _fetch(file, f"SELECT {', '.join(terms)} FROM {_scan(file)}")
    if not rows:
        raise SourceError(f"{file} has no rows; expected pairs of {query} and {ID}.")
    for n, row in enumerate(rows, start=1):
        _check(file, n, query, row)
    grades = np.array([row[3] for row in rows] if GRADE in columns else np.ones(len(rows)), np.float64)
    return QueryPairs(file, query == QUERY, [row[0] for row in rows], [row[1] for row in rows], grades)


def _columns(file: Path) -> tuple[str, list[str]]:
    """Which column names the query, and all columns."""
    columns = [str(name) for name, *_ in _fetch(file, f"DESCRIBE SELECT * FROM {_scan(file)}")]
    queries = [name for name in (QUERY, QUERY_ID) if name in columns]
    if len(queries) != 1 or ID not in columns:
        raise UsageError(
            f"{file} should have a column {ID!r} and one of {QUERY!r} (a text) and {QUERY_ID!r} (an item). "
            f"Columns: {', '.join(columns)}."
        )
    return queries[0], columns


def _check(file: Path, n: int, query: str, row: tuple[Any, ...]) -> None:
    for name, value in zip((query, ID), row[:2], strict=True):
        if value is None or not value.strip():
            raise SourceError(f"{file}: row {n} has no {name}. Fill it, or remove the row.")
    if len(row) > 2 and not (row[3] is not None and np.isfinite(row[3]) and row[3] > 0):
        given = "nothing" if row[2] is None else repr(row[2])
        raise SourceError(f"{file}: the grade of row {n} should be a number above 0. Got {given} instead.")


def _scan(file: Path) -> str:
    name = literal(glob_escape(str(file)))
    kind = file.suffix.lower()
    if kind in (".parquet", ".pq"):
        return f"read_parquet({name})"
    if kind in _JSON:
        # Depth 1 keeps values as they are written: an id that looks like a date stays itself.
        return f"read_json({name}, format='newline_delimited', sample_size=-1, maximum_depth=1)"
    header, delimiter = _header(file)
    columns = ", ".join(f"{literal(column)}: 'VARCHAR'" for column in header)
    return (
        f"read_csv({name}, auto_detect=false, header=true, delim={literal(delimiter)}, quote='\"', escape='\"', "
        f"columns={{{columns}}}, max_line_size=16777216)"
    )


def _header(file: Path) -> tuple[list[str], str]:
    """The columns of a CSV or TSV, and what delimits them."""
    with open(file, encoding="utf-8-sig", errors="replace", newline="") as lines:
        first = lines.readline()
    delimiter = "\t" if file.suffix.lower() == ".tsv" else max(_DELIMITERS, key=first.count)
    columns = next(csv.reader([first], delimiter=delimiter), [])
    if twice := [c for i, c in enumerate(columns) if c in columns[:i]]:
        raise SourceError(f"{file}: two columns are called {twice[0]!r}. Rename one.")
    return columns, delimiter


def _fetch(file: Path, sql: str) -> list[tuple[Any, ...]]:
    import duckdb

    try:
        with connect() as connection:
            return list(connection.execute(sql).fetchall())
    except duckdb.Error as error:
        reason = one_line(one_line(error).split(" LINE ")[0].split(" Possible fixes")[0])
        raise SourceError(f"{file} cannot be read as pairs: {reason}") from error
