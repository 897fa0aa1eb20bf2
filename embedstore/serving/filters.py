"""Filters as JSON, made into the SQL that a store takes.

Clients write no SQL: names are columns of the store, values are checked and quoted.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from embedstore._core.column_types import word_of
from embedstore._core.sql import literal, quoted
from embedstore.errors import UsageError
from embedstore.sources.base import RESERVED
from embedstore.spec import MODALITIES
from embedstore.store.items import ID

if TYPE_CHECKING:
    import pyarrow as pa

    from embedstore.serving.models import Condition

COMPARED = {"=": "=", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
TIMES = {"date": "DATE", "datetime": "TIMESTAMP", "datetime in UTC": "TIMESTAMPTZ", "time": "TIME"}


def filterable(types: Mapping[str, pa.DataType]) -> dict[str, str]:
    """The columns that a filter may name, and what they hold in words."""
    own = RESERVED.difference(MODALITIES)
    return {ID: "text", **{name: word_of(kind) for name, kind in types.items() if name not in own}}


def compiled(conditions: Sequence[Condition] | None, types: Mapping[str, pa.DataType]) -> str | None:
    """The SQL condition that all of `conditions` hold; None where there are none.

    Parameters
    ----------
    types : mapping of str to pa.DataType
        Of the store's columns.

    Raises
    ------
    UsageError
        An unknown column, or a value that its column cannot be compared with.
    """
    if not conditions:
        return None
    columns = filterable(types)
    return " AND ".join(f"({_one(condition, columns)})" for condition in conditions)


def _one(condition: Condition, columns: Mapping[str, str]) -> str:
    field, op, value = condition.field, condition.op, condition.value
    if field not in columns:
        raise UsageError(f"No column is called {field!r}. Columns: {', '.join(columns)}.")
    name, kind = quoted(field), columns[field]
    if op == "missing":
        if value not in (None, True, False):
            raise UsageError(f"{field!r} missing: value should be true or false. Got {value!r} instead.")
        return f"{name} IS {'NOT ' if value is False else ''}NULL"
    if op == "in":
        if not isinstance(value, list) or not value:
            raise UsageError(f"{field!r} in: value should be a list of one or more. Got {value!r} instead.")
        return f"{name} IN ({', '.join(_value(field, kind, one) for one in value)})"
    if op == "contains":
        return _contains(field, name, kind, value)
    sql = _value(field, kind, value)
    if op in ("<", "<=", ">", ">=") and kind == "boolean":
        raise UsageError(f"{field!r} is true or false, which have no order. Use = or != instead of {op}.")
    return f"{name} IS DISTINCT FROM {sql}" if op == "!=" else f"{name} {COMPARED[op]} {sql}"


def _contains(field: str, name: str, kind: str, value: Any) -> str:
    if kind.startswith("list of "):
        return f"list_contains({name}, {_value(field, kind.removeprefix('list of '), value)})"
    if kind != "text":
        raise UsageError(f"{field!r} holds {kind}: contains is for texts and lists. Use =, <, > or in.")
    return f"contains(lower({name}), lower({_value(field, kind, value)}))"


def _value(field: str, kind: str, value: Any) -> str:
    """A value as SQL writes it, of the kind that a column holds."""
    if kind in ("integer", "number"):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UsageError(f"{field!r} holds numbers. Got {value!r} instead.")
        return f"({value!r})"
    if kind == "boolean":
        if not isinstance(value, bool):
            raise UsageError(f"{field!r} holds true or false. Got {value!r} instead.")
        return "TRUE" if value else "FALSE"
    if not isinstance(value, str):
        raise UsageError(f"{field!r} holds {kind}. Got {value!r} instead; write a text.")
    if "\0" in value:
        raise UsageError(f"{field!r}: a text with a NUL character is in no column. Leave it out.")
    if kind in TIMES:
        return f"CAST({literal(_moment(field, kind, value))} AS {TIMES[kind]})"
    if kind != "text":
        raise UsageError(f"{field!r} holds {kind}, which cannot be compared. Use missing, or another column.")
    return literal(value)


def _moment(field: str, kind: str, value: str) -> str:
    """A date or time as SQL reads it, of any form of ISO 8601."""
    reads = {"date": datetime.date.fromisoformat, "time": datetime.time.fromisoformat}
    try:
        moment: Any = reads.get(kind, datetime.datetime.fromisoformat)(value)
        if kind == "datetime in UTC":
            return str((moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).astimezone(datetime.UTC).isoformat())
    except ValueError:
        raise UsageError(f"{field!r} holds {kind}. Got {value!r} instead; write it as ISO 8601: 2026-11-28.") from None
    if kind == "datetime" and moment.tzinfo:
        raise UsageError(f"{field!r} holds times without a zone. Got {value!r} instead; leave the zone out.")
    return str(moment.isoformat())
