"""The closing check of an export: what the target holds and finds, compared with the store."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np

from embedstore._core.pieces import Pieces
from embedstore._core.unit import unit_rows
from embedstore.errors import OutputError
from embedstore.exporting.base import Array, Exporter, Found, Items, Plan, Slice, VectorColumn
from embedstore.exporting.engine import engine_errors
from embedstore.exporting.recall import recall_of
from embedstore.exporting.report import Check

SAMPLED = 200
SEED = 0
ROUNDING = {"float16": 2.0**-10, "float32": 2.0**-21}
"""Share of a number that scaling to unit length and rounding to the target's dtype may change."""


def check(exporter: Exporter, items: Items, plan: Plan) -> Check:
    """Compare counts, a sample of items, and searches.

    Raises
    ------
    OutputError
        The target holds another number of items or vectors, or an item of the sample is another one there.
    """
    with engine_errors(exporter.where):
        found = _counts(exporter, items, plan)
        picked = np.random.default_rng(SEED).choice(len(items), min(SAMPLED, len(items)), replace=False)
        sample = items.take(np.sort(picked).astype(np.int64))
        _sample(exporter, plan, sample)
        recall = recall_of(exporter, items, plan, sample)
    return Check(found, len(sample), "bits" if exporter.keeps_length else "rounding", recall)


def _failed(exporter: Exporter, what: str) -> NoReturn:
    raise OutputError(
        f"{exporter.where}: the closing check failed: {what} Does something else write to it? Run the same command again, or "
        "export to a new one."
    )


def _counts(exporter: Exporter, items: Items, plan: Plan) -> int:
    found, vectors = exporter.counts()
    if found != len(items):
        _failed(exporter, f"it holds {found:,} items, expected {len(items):,}.")
    for name, here in (vectors or {}).items():
        if here != (wanted := items.count(name)):
            _failed(exporter, f"it holds {here:,} vectors in {name!r}, expected {wanted:,}.")
    return found


def _sample(exporter: Exporter, plan: Plan, sample: Slice) -> None:
    found = exporter.fetch(sample.ids)
    metadata = exporter.kept(sample.metadata)
    number = {name: np.cumsum(has) - 1 for name, has in sample.present.items()}
    for i, name in enumerate(sample.ids):
        if name not in found:
            _failed(exporter, f"item {name!r} is not there.")
        for key, value in metadata[i].items():
            if not _equal(value, found[name].metadata.get(key)):
                _failed(exporter, f"item {name!r} has {key} = {found[name].metadata.get(key)!r}, expected {value!r}.")
        for column in plan.vectors:
            vector = sample.vectors[column.column][i] if sample.present[column.column][i] else None
            if not _same_vector(exporter, column, vector, found[name]):
                _failed(exporter, f"item {name!r} has another vector in {column.column!r}.")
            if column.pieces is not None and vector is not None:
                pieces = sample.pieces[column.column].take([number[column.column][i]])
                if not _same_pieces(pieces, found[name].pieces.get(column.column)):
                    _failed(exporter, f"item {name!r} has other vectors in {column.pieces.vectors!r}.")


def _equal(value: Any, other: Any) -> bool:
    """Whether two values are one, where NaN is itself."""
    if isinstance(value, float) and isinstance(other, float) and value != value:
        return other != other
    if isinstance(value, list | tuple) and isinstance(other, list | tuple):
        return len(value) == len(other) and all(map(_equal, value, other))
    if isinstance(value, dict) and isinstance(other, dict):
        return value.keys() == other.keys() and all(_equal(value[key], other[key]) for key in value)
    return bool(value == other)


def _same_pieces(pieces: Pieces, other: Pieces | None) -> bool:
    return (
        other is not None
        and np.array_equal(pieces.vectors, other.vectors)
        and np.array_equal(pieces.places, other.places, equal_nan=True)
    )


def _same_vector(exporter: Exporter, column: VectorColumn, vector: Array | None, found: Found) -> bool:
    other = found.vectors.get(column.column)
    if vector is None and exporter.missing_is_zeros and other is not None:
        return not other.any()
    if vector is None or other is None:
        return vector is None and other is None
    if other.shape != vector.shape:
        return False
    if exporter.keeps_length:
        return bool(np.array_equal(vector, other.astype(vector.dtype)))
    mine, theirs = unit_rows(vector[None])[0], unit_rows(other[None])[0]
    share = ROUNDING[column.dtype.name]
    return bool((np.abs(mine - theirs) <= share * (np.abs(mine) + np.abs(mine).max())).all())
