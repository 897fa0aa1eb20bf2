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
from embedstore.training.predict import predict_rows

Codes = npt.NDArray[np.uint16]

MISSING = 65_535
MOST = 100
"""Names of a legend; values that are rarer share the last one."""
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


def by_head(session: Session, drawn: Map, head: str, what: str) -> Colours:
    """By what a head predicts, or by whether it is right about the items that have a label.

    Raises
    ------
    UsageError
        No such head; or its target is no column of the store.
    """
    record = session.head(head)
    predicted = [str(label) for label in predict_rows(record, session.store, drawn.rows).labels.tolist()]
    if what == "prediction":
        return _named(predicted)
    if record.target not in session.columns:
        raise UsageError(f"Head {head!r} was taught, and the store has no column {record.target!r} to compare with.")
    truth = _values(session, drawn, record.target)
    pairs = zip(predicted, truth, strict=True)
    codes = [MISSING if label is None else int(own != str(label)) for own, label in pairs]
    return Colours(np.asarray(codes, np.uint16), [RIGHT, WRONG])


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
    return Colours(np.asarray([MISSING if v is None else code[v] for v in values], np.uint16), legend)


def _binned(numbers: npt.NDArray[np.float64]) -> Colours:
    """Numbers by ranges that hold about as many items each."""
    known = np.isfinite(numbers)
    edges = np.unique(np.quantile(numbers[known], np.linspace(0, 1, BINS + 1)))
    codes = np.clip(np.searchsorted(edges, numbers, side="right") - 1, 0, len(edges) - 2)
    legend = [f"{low:.4g} – {high:.4g}" for low, high in pairwise(edges)]
    return Colours(np.where(known, codes, MISSING).astype(np.uint16), legend)
