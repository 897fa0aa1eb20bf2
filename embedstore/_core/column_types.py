"""Types of columns: one Arrow type for each kind of value, and their names for people.

Tables come in many types for one kind of value (dictionaries, views, large strings, decimals, five widths of numbers). They
become the same few here, so that one record makes the same item whatever file it came in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from embedstore.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

WORDS = ("text", "number", "integer", "boolean", "date", "datetime")
"""What a user can declare a column to be."""

NUMBER = r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$"
WHOLE = r"^(0|-?[1-9][0-9]*)$"
"""Plain decimal numbers, as JSON writes them; RE2 and Python read both patterns alike."""


@dataclass(frozen=True)
class ColumnType:
    """What a user declares a column to be: ``text``, ``number``, ``integer``, ``boolean``, ``date`` or ``datetime``.

    Parameters
    ----------
    word : str
        One of `WORDS`.
    format : str, optional
        Of dates and datetimes that are not written as ISO 8601 has them, in the words of ``strptime``: ``%d.%m.%Y``.
    """

    word: str
    format: str | None = None

    @classmethod
    def parse(cls, text: str) -> ColumnType:
        """``text``, ``date``, ``date:%d.%m.%Y`` …

        Raises
        ------
        UsageError
        """
        word, _, pattern = text.partition(":")
        if word not in WORDS:
            raise UsageError(f"{text!r} is no type of a column. Types: {', '.join(WORDS)}.")
        if pattern and word not in ("date", "datetime"):
            raise UsageError(f"{text!r}: only date and datetime take a format, such as date:%d.%m.%Y.")
        return cls(word, pattern or None)

    def arrow(self) -> pa.DataType:
        import pyarrow as pa

        kinds = {
            "text": pa.string(),
            "number": pa.float64(),
            "integer": pa.int64(),
            "boolean": pa.bool_(),
            "date": pa.date32(),
            "datetime": pa.timestamp("us"),
        }
        return kinds[self.word]


def declared(given: Mapping[str, str]) -> dict[str, ColumnType]:
    """Column → type, from column → words.

    Raises
    ------
    UsageError
        Naming the column.
    """
    found = {}
    for column, text in given.items():
        try:
            found[column] = ColumnType.parse(text)
        except UsageError as error:
            raise UsageError(f"Column {column!r}: {error}") from None
    return found


def word_of(kind: pa.DataType) -> str:
    """The name of an Arrow type for people: one of `WORDS` where there is one."""
    import pyarrow as pa

    types = pa.types
    kind = unwrapped(kind)
    if is_text(kind):
        return "text"
    if types.is_boolean(kind):
        return "boolean"
    if types.is_integer(kind) or (types.is_decimal(kind) and kind.scale <= 0):
        return "integer"
    if types.is_floating(kind) or types.is_decimal(kind):
        return "number"
    if types.is_date(kind):
        return "date"
    if types.is_timestamp(kind):
        return "datetime" if kind.tz is None else "datetime in UTC"
    if types.is_time(kind):
        return "time"
    if is_list(kind):
        return f"list of {word_of(kind.value_type)}"
    if types.is_struct(kind) or types.is_map(kind):
        return "record"
    return "bytes" if is_bytes(kind) else str(kind)


def plain_type(kind: pa.DataType) -> pa.DataType | None:
    """The one type that values of `kind` are kept in; None where metadata cannot hold them.

    Text is ``string``, whole numbers ``int64``, other numbers (decimals too) ``float64``, times are in microseconds, and in
    UTC where they have a zone. Lists and records keep the width of their numbers. Bytes stay bytes.
    """
    import pyarrow as pa

    types = pa.types
    kind = unwrapped(kind)
    if types.is_integer(kind):
        return pa.int64()
    if types.is_floating(kind):
        return pa.float64()
    return _plain_inside(kind)


def _plain_inside(kind: pa.DataType) -> pa.DataType | None:
    """As `plain_type`, for what lies in a list or a record."""
    import pyarrow as pa

    types = pa.types
    kind = unwrapped(kind)
    if is_text(kind):
        return pa.string()
    if types.is_decimal(kind):
        return pa.float64() if kind.scale > 0 else pa.int64()
    if is_bytes(kind):
        return kind if types.is_binary(kind) or types.is_large_binary(kind) else pa.large_binary()
    if types.is_date(kind):
        return pa.date32()
    if types.is_timestamp(kind):
        return pa.timestamp("us", None if kind.tz is None else "UTC")
    if types.is_time(kind):
        return pa.time64("us")
    if types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_null(kind):
        return kind
    if types.is_map(kind):
        inner = [_plain_inside(kind.key_type), _plain_inside(kind.item_type)]
        return None if None in inner else pa.map_(*inner)
    if is_list(kind):
        value = _plain_inside(kind.value_type)
        return None if value is None else pa.list_(value)
    if types.is_struct(kind):
        fields = [(kind.field(i).name, _plain_inside(kind.field(i).type)) for i in range(kind.num_fields)]
        return None if any(inner is None for _, inner in fields) else pa.struct(fields)
    return None


def stored_type(kind: pa.DataType) -> pa.DataType:
    """The type in which a column is read that an older version stored as `kind`: the plain one, if it holds every value."""
    import pyarrow as pa

    types = pa.types
    wide = types.is_uint64(kind) or (types.is_decimal(kind) and kind.scale <= 0 and kind.precision > 18)
    return kind if wide or is_fine_time(kind) else plain_type(kind) or kind


def as_text(value: Any) -> str | None:
    """A value as text, the way JSON writes it: ``true``, ``5``, ``[1,2]``; a string and None stay themselves."""
    if value is None or isinstance(value, str):
        return value
    if type(value) is int:
        return str(value)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)


def shown(value: Any) -> str:
    """A value in a message: at most 80 characters, text in quotes."""
    text = repr(value) if isinstance(value, str) else str(as_text(value))
    return text if len(text) <= 80 else text[:79] + "…"


def unwrapped(kind: pa.DataType) -> pa.DataType:
    import pyarrow as pa

    if isinstance(kind, pa.BaseExtensionType):
        return unwrapped(kind.storage_type)
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return unwrapped(kind.value_type)
    return kind


def is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_bytes(kind: pa.DataType) -> bool:
    import pyarrow as pa

    types = pa.types
    tests = (types.is_binary, types.is_large_binary, types.is_binary_view, types.is_fixed_size_binary)
    return any(bool(test(kind)) for test in tests)


def is_list(kind: pa.DataType) -> bool:
    """Whether `kind` is a list of any sort: large, of a fixed size, a view."""
    import pyarrow as pa

    types = pa.types
    tests = (types.is_list, types.is_large_list, types.is_fixed_size_list, types.is_list_view, types.is_large_list_view)
    return any(bool(test(kind)) for test in tests)


def has_views(kind: pa.DataType) -> bool:
    """Whether `kind` is a list view, or holds one."""
    import pyarrow as pa

    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        return True
    return bool(pa.types.is_nested(kind)) and any(has_views(kind.field(i).type) for i in range(kind.num_fields))


def is_fine_time(kind: pa.DataType) -> bool:
    """Of nanoseconds, which Python's own types cannot hold."""
    import pyarrow as pa

    return bool(pa.types.is_temporal(kind)) and getattr(kind, "unit", "") == "ns"
