"""Pairs of ids to predict: from a table of two columns, or as they are given."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from embedstore.errors import HeadError, SourceError, UsageError
from embedstore.sources.tabular import Tabular
from embedstore.store import Store
from embedstore.store.items import Rows
from embedstore.training.predict_options import as_pairs

Pairs = str | os.PathLike[str] | Sequence[tuple[str, str]]


def rows_of_pairs(store: Store, pairs: Pairs, sides: Sequence[str]) -> tuple[Rows, Rows]:
    """The rows (n,) of the items that give the first and the second of two spaces.

    Parameters
    ----------
    pairs : path, or sequence of (id, id)
        A CSV, TSV, JSON lines or Parquet file: its columns called like the `sides`, or else its only two.

    Raises
    ------
    UsageError, SourceError, HeadError
        Naming the row, from 1, and the id.
    """
    ids = _from_table(pairs, sides) if isinstance(pairs, str | os.PathLike) else as_pairs(pairs)
    found = []
    for side, column in zip(sides, zip(*ids, strict=True), strict=True) if ids else [(side, ()) for side in sides]:
        rows = _rows(store, list(column), pairs)
        has = store.space(side).has(rows)
        if not has.all():
            first = int(np.flatnonzero(~has)[0])
            raise HeadError(f"{_name(pairs)}: row {first + 1}: item {column[first]!r} has no vector in {side!r}.")
        found.append(rows)
    return found[0], found[1]


def _rows(store: Store, ids: list[str], pairs: Pairs) -> Rows:
    known: Rows = store.items.known_rows(ids)
    if len(absent := np.flatnonzero(known < 0)):
        first = int(absent[0])
        raise UsageError(f"{_name(pairs)}: row {first + 1}: {store.path} has no item {ids[first]!r}.")
    return known


def _from_table(path: str | os.PathLike[str], sides: Sequence[str]) -> list[tuple[str, str]]:
    table = Tabular(path)
    names = list(table.types)
    table.leave(names)  # ids are text: 007 is none of 7
    if not set(sides) <= set(names):
        if len(names) != 2:
            raise SourceError(
                f"{os.fspath(path)} has the columns {', '.join(names)}; expected {' and '.join(sides)} (ids of items), or two "
                "columns."
            )
        sides = names
    select = ", ".join(f"{table.text(name)} AS side{k}" for k, name in enumerate(sides))
    found: list[tuple[str, str]] = []
    for batch in table.batches(select, 65536):
        found += zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True)
    return as_pairs(found, os.fspath(path))


def _name(pairs: Pairs) -> str:
    return os.fspath(pairs) if isinstance(pairs, str | os.PathLike) else "pairs"
