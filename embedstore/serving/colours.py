"""What the points of a map are coloured by: codes of a column's values, of a head's predictions, or of its errors."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from embedstore.errors import UsageError
from embedstore.serving.maps import Map
from embedstore.serving.session import Session
from embedstore.store.items import ID
from embedstore.training.kept import kept_with
from embedstore.training.predict import predict_rows
from embedstore.training.predictions import Predictions
from embedstore.training.tasks.values import Predicted

Codes = npt.NDArray[np.uint16]

MISSING = 65_535
MOST = 100
"""Names of a legend; values that are rarer share the last one."""
LONGEST = 80
"""Characters of a name: the legend is a header."""
BINS = 12
"""Of numbers that have more values."""
OTHER = "other"
RIGHT, WRONG = "right", "wrong"


class Colours(NamedTuple):
    """Codes (n,) and the name of each."""

    codes: Codes
    legend: list[str]


def by_column(session: Session, drawn: Map, column: str) -> Colours:
    """By the values of a column.

    Raises
    ------
    UsageError
        No such column.
    """
    values = _values(session, drawn, column)
    kind = session.store.items.column_words().get(column, "text")
    if kind in ("number", "integer"):
        numbers = np.asarray([np.nan if value is None else float(value) for value in values])
        if len(np.unique(numbers[np.isfinite(numbers)])) > BINS:
            return _binned(numbers)
    return _named([None if value is None else str(value) for value in values])


def by_head(session: Session, drawn: Map, head: str, what: str, target: str | None = None) -> Colours:
    """By what a head predicts (of `target`, if it has several), or by whether models that did not see an item are right.

    Raises
    ------
    UsageError
        No such head, or no such target.
    HeadError
        It keeps no predictions of items that it was not fitted on.
    """
    record = session.head(head)
    if what == "error":
        _, kept = kept_with(session.store, record, target)
        if not len(kept.classes):
            raise UsageError(f"Head {head!r} predicts numbers, which are seldom right to the last digit. Colour by prediction.")
        row_of = {item: row for row, item in zip(drawn.rows.tolist(), _values(session, drawn, ID), strict=True)}
        at = {row_of[item]: i for i, item in enumerate(kept.ids.tolist()) if item in row_of}
        wrong = kept.predicted != kept.target
        return Colours(
            np.asarray([int(wrong[at[row]]) if row in at else MISSING for row in drawn.rows.tolist()], np.uint16),
            [RIGHT, WRONG],
        )
    has = session.sees(record, drawn.rows)
    found: Predictions | Predicted = predict_rows(record, session.store, drawn.rows[has])
    if isinstance(found, Predictions) and found.targets:
        if target is None or target not in found.targets:
            raise UsageError(f"Head {head!r} has the targets {', '.join(found.targets)}. Say which, as target.")
        found = found.targets[target]
    if not len(found.classes) and found.labels.dtype.kind == "f":
        numbers = np.full(len(has), np.nan)
        numbers[has] = found.labels
        return _binned(numbers)
    labels = iter(found.labels.tolist())
    return _named([str(next(labels)) if there else None for there in has.tolist()])


def _values(session: Session, drawn: Map, column: str) -> list[Any]:
    import pyarrow as pa

    every = session.column(column)
    at = np.searchsorted(session.rows, drawn.rows)
    values: list[Any] = every.take(pa.array(at)).to_pylist()
    return values


def _named(values: Sequence[str | None]) -> Colours:
    """Codes by how often a value occurs, the most frequent first."""
    counts: dict[str, int] = {}
    for value in values:
        if value is not None:
            counts[value] = counts.get(value, 0) + 1
    order = sorted(counts, key=lambda value: -counts[value])
    legend = order if len(order) <= MOST else [*order[: MOST - 1], OTHER]
    code = {value: min(i, len(legend) - 1) for i, value in enumerate(order)}
    codes = np.asarray([MISSING if v is None else code[v] for v in values], np.uint16)
    return Colours(codes, [name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…" for name in legend])


def _binned(numbers: npt.NDArray[np.float64]) -> Colours:
    """Numbers by ranges that hold about as many items each."""
    known = np.isfinite(numbers)
    if not known.any():
        return Colours(np.full(len(numbers), MISSING, np.uint16), [])
    edges = np.unique(np.quantile(numbers[known], np.linspace(0, 1, BINS + 1)))
    if len(edges) == 1:
        return Colours(np.where(known, 0, MISSING).astype(np.uint16), [f"{edges[0]:.4g}"])
    codes = np.clip(np.searchsorted(edges, numbers, side="right") - 1, 0, len(edges) - 2)
    legend = [f"{low:.4g} – {high:.4g}" for low, high in pairwise(edges)]
    return Colours(np.where(known, codes, MISSING).astype(np.uint16), legend)
