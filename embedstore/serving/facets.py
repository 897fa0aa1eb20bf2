"""Values of columns with counts, among the items that match a filter."""

from __future__ import annotations

from typing import Any

import numpy as np

from embedstore.errors import UsageError
from embedstore.serving.models import FacetsRequest
from embedstore.serving.session import Session

Document = dict[str, Any]

FEW = 200
"""Distinct values up to which a column is offered without being named."""
COUNTED = ("text", "boolean", "integer", "number", "date")


def facets(session: Session, request: FacetsRequest) -> Document:
    """The document of ``POST /v1/facets``.

    Raises
    ------
    UsageError
        An unknown column, or one whose values are not counted.
    """
    where = session.where(request.filter)
    words = session.store.items.column_words()
    if request.columns is None:
        names = [name for name, kind in words.items() if kind in COUNTED]
        names = [name for name in names if _distinct(session, name) <= FEW]
    else:
        names = request.columns
        for name in names:
            if name not in words:
                raise UsageError(f"No column is called {name!r}. Columns: {', '.join(words)}.")
            if words[name] not in COUNTED:
                raise UsageError(f"{name!r} holds {words[name]}, which is not counted. Leave it out.")
    key = ("facets", where, tuple(names), request.limit)
    return session.keep(key, lambda: {"facets": [_counted(session, name, where, request.limit) for name in names]})


def _distinct(session: Session, name: str) -> int:
    import pyarrow.compute as pc

    return session.keep(("distinct", name), lambda: int(pc.count_distinct(session.column(name)).as_py()))


def _counted(session: Session, name: str, where: str | None, limit: int) -> Document:
    import pyarrow as pa
    import pyarrow.compute as pc

    column = session.column(name)
    if where is not None:
        mask = np.isin(session.rows, session.matching(where), assume_unique=True)
        column = column.filter(pa.array(mask))
    counts = pc.value_counts(column.drop_null())
    values, numbers = counts.field("values"), counts.field("counts").to_numpy()
    order = np.argsort(-numbers, kind="stable")[:limit]
    top = [{"value": values[int(i)].as_py(), "count": int(numbers[i])} for i in order]
    return {
        "column": name,
        "values": top,
        "missing": int(column.null_count),
        "other": int(numbers.sum()) - sum(one["count"] for one in top),
    }
