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
RANGED = ("integer", "number", "date", "datetime", "datetime in UTC")
"""Of which the ends are told where not all values are."""
COUNTED = ("text", "boolean", *RANGED)


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
        names = [name for name in names if words[name] in RANGED or _distinct(session, name) <= FEW]
    else:
        names = request.columns
        for name in names:
            if name not in words:
                raise UsageError(f"No column is called {name!r}. Columns: {', '.join(words)}.")
            if words[name] not in COUNTED:
                raise UsageError(f"{name!r} holds {words[name]}, which is not counted. Leave it out.")

    def counted(name: str) -> Document:
        wide = words[name] in RANGED and _distinct(session, name) > FEW
        limit = 0 if wide and request.columns is None else request.limit
        column = _matching(session, name, where)
        values = _counted(column, limit)
        ended = wide or (words[name] in RANGED and values["other"] > 0)
        return {"column": name, **values, **(_ends(column) if ended else {})}

    key = ("facets", where, tuple(names), request.columns is None, request.limit)
    return session.keep(key, lambda: {"n": len(session.matching(where)), "facets": [counted(name) for name in names]})


def _distinct(session: Session, name: str) -> int:
    import pyarrow.compute as pc

    return session.keep(("distinct", name), lambda: int(pc.count_distinct(session.column(name)).as_py()))


def _matching(session: Session, name: str, where: str | None) -> Any:
    """The values of a column among the items that match: a pyarrow array."""
    import pyarrow as pa

    column = session.column(name)
    if where is None:
        return column
    return column.filter(pa.array(np.isin(session.rows, session.matching(where), assume_unique=True)))


def _counted(column: Any, limit: int) -> Document:
    """The most frequent values, and how many items have others or none."""
    import pyarrow.compute as pc

    counts = pc.value_counts(column.drop_null())
    values, numbers = counts.field("values"), counts.field("counts").to_numpy()
    order = np.argsort(-numbers, kind="stable")[:limit]
    top = [{"value": values[int(i)].as_py(), "count": int(numbers[i])} for i in order]
    return {
        "values": top,
        "missing": int(column.null_count),
        "other": int(numbers.sum()) - sum(one["count"] for one in top),
    }


def _ends(column: Any) -> Document:
    """The smallest and the largest finite number, or the first and the last time; None of each where there is none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    ends = pc.min_max(column if pa.types.is_temporal(column.type) else column.filter(pc.is_finite(column)))
    return {name: ends[name].as_py() for name in ("min", "max")}
