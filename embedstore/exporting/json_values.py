"""Metadata as JSON can hold it, for engines that keep JSON beside vectors."""

from __future__ import annotations

import base64
import datetime
import math
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

INT64 = 1 << 63


def json_rows(table: pa.Table) -> list[dict[str, Any]]:
    """Rows of `table` as objects of JSON values: dates and times in ISO 8601, bytes in base64, and null for NaN.

    Whole numbers that no int64 holds, and decimals, become text, so that no digit is lost.
    """
    columns = {name: column_values(table.column(name)) for name in table.column_names}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)] or [{}] * table.num_rows


def column_values(column: pa.ChunkedArray) -> list[Any]:
    """The values of a column as JSON has them."""
    import pyarrow as pa

    values: list[Any] = column.to_pylist()
    types = pa.types
    if types.is_string(column.type) or types.is_int64(column.type) or types.is_boolean(column.type):
        return values  # nothing to change, whatever they are
    return [json_value(value) for value in values]


def json_value(value: Any) -> Any:
    """One value as JSON has it."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int):
        return value if -INT64 <= value < INT64 else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {str(key): json_value(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(inner) for inner in value]
    return str(value)
