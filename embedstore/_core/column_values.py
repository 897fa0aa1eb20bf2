"""Values of columns: in their plain types, and as a column of a known type takes them, without changing what they mean."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from embedstore._core.column_types import (
    NUMBER,
    WHOLE,
    as_text,
    has_views,
    is_bytes,
    is_fine_time,
    is_list,
    is_text,
    plain_type,
    shown,
    stored_type,
    word_of,
)
from embedstore.errors import EmbedstoreError

if TYPE_CHECKING:
    import pyarrow as pa

EXACT_WHOLE = 2**53
"""From here on float64 does not hold every whole number."""

_TRUE, _FALSE = ("true", "t", "yes", "y", "1"), ("false", "f", "no", "n", "0")


class MisfitError(EmbedstoreError):
    """A value that a column of a known type cannot hold.

    Parameters
    ----------
    position : int
        In the column that was given, from 0.
    value : object
    expected : str
        What would have fitted, for people.
    """

    def __init__(self, position: int, value: Any, expected: str) -> None:
        super().__init__(f"{shown(value)} is no {expected}")
        self.position = position
        self.value = value
        self.expected = expected


def as_stored(table: pa.Table) -> pa.Table:
    """A table of the store with its columns in their `stored_type`."""
    for i, field in enumerate(table.schema):
        if (kind := stored_type(field.type)) != field.type:
            table = table.set_column(i, field.name, _cast(_decoded(table.column(i)), kind))
    return table


def plain(column: Any) -> Any:
    """An Arrow array or chunked array in its `plain_type`.

    Raises
    ------
    MisfitError
        A value that the plain type cannot hold: a whole number beyond int64, a time of nanoseconds.
    TypeError
        There is no plain type; the message names this one for people.
    """
    kind = plain_type(column.type)
    if kind is None:
        raise TypeError(
            f"holds {column.type} values; metadata takes text, numbers, true and false, dates, times, and lists and records of "
            "these"
        )
    return column if column.type == kind else _cast(_decoded(column), kind)


def fitted(column: Any, kind: pa.DataType, *, pattern: str | None = None, exact: bool = True) -> Any:
    """An Arrow array or chunked array as one of the known type `kind`, without changing what a value means.

    Text becomes a number only where it is written as `NUMBER` has it, a number becomes whole only where it is. What is blank
    becomes null unless it is to be text.

    Parameters
    ----------
    pattern : str, optional
        How dates and datetimes are written, in the words of ``strptime``; default: ISO 8601.
    exact : bool
        Refuse whole numbers that float64 rounds, where `kind` is float64.

    Raises
    ------
    MisfitError
        The first value that does not fit.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if column.type == kind:
        return column
    if pa.types.is_null(column.type):
        empty = pa.nulls(len(column), kind)
        return pa.chunked_array([empty]) if isinstance(column, pa.ChunkedArray) else empty
    column = _decoded(column)
    if column.type == kind:
        return column
    if pa.types.is_nested(kind) or pa.types.is_nested(column.type):
        if not _can_nest(column, kind):
            return _no(column, kind)
        return _each(column, kind, _nested if pa.types.is_nested(kind) else as_text)
    if is_bytes(column.type) or is_bytes(kind):
        return _no(column, kind)
    if pa.types.is_string(kind):
        return _as_texts(column)
    if pa.types.is_string(column.type):
        return _from_texts(_not_blank(column), kind, pattern, exact)
    if pa.types.is_boolean(kind) and pa.types.is_integer(column.type):
        return _from_texts(column.cast(pa.string()), kind, None, exact)
    if not exact and pa.types.is_integer(column.type) and pa.types.is_floating(kind):
        return pc.cast(column, kind, safe=False)
    if pa.types.is_date(kind) and pa.types.is_timestamp(column.type) and column.type.tz is None:
        days = column.cast(pa.date32())  # Arrow drops the time of day without a word
        _refuse(column, pc.fill_null(pc.equal(days.cast(column.type), column), True), kind)
        return days
    zoned = [getattr(each, "tz", None) is not None for each in (column.type, kind)]
    if _group(column.type) != _group(kind) or zoned[0] != zoned[1]:
        return _no(column, kind)
    return _cast(column, kind)


def _as_texts(column: Any) -> Any:
    import pyarrow as pa

    if pa.types.is_floating(column.type):
        return _each(column, pa.string(), as_text)  # 5.0 stays 5.0
    if not pa.types.is_timestamp(column.type) and not pa.types.is_time(column.type):
        return column.cast(pa.string())
    import pyarrow.compute as pc

    texts = (column if getattr(column.type, "tz", None) is None else column.cast(pa.timestamp("us", "UTC"))).cast(pa.string())
    return pc.replace_substring_regex(texts, r"\.0+(Z?)$", r"\1")


def _from_texts(column: Any, kind: pa.DataType, pattern: str | None, exact: bool) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    types = pa.types
    if types.is_boolean(kind):
        lower = pc.utf8_lower(column)
        true, false = (pc.is_in(lower, pa.array(words, pa.string())) for words in (_TRUE, _FALSE))
        _refuse(column, pc.or_(pc.or_(true, false), pc.is_null(column)), kind)
        return pc.if_else(pc.is_valid(column), true, pa.scalar(None, pa.bool_()))
    if types.is_integer(kind) or types.is_floating(kind):
        _refuse(column, pc.fill_null(pc.match_substring_regex(column, NUMBER), True), kind)
        numbers = column.cast(pa.float64())
        whole = pc.fill_null(pc.match_substring_regex(column, WHOLE), True)
        if types.is_integer(kind) and pc.all(whole, min_count=0).as_py():
            return _cast(column, kind)
        _refuse(column, pc.fill_null(pc.is_finite(numbers), True), kind)
        if exact or pa.types.is_integer(kind):
            inexact = pc.and_(whole, pc.greater_equal(pc.abs(numbers), float(EXACT_WHOLE)))
            _refuse(column, pc.invert(pc.fill_null(inexact, False)), kind)
        return _cast(numbers, kind, original=column)
    if pattern is not None:
        times = _located(column, kind, lambda part: pc.strptime(part, format=pattern, unit="us"), pattern)
        return _cast(times, kind, original=column)
    return _cast(column, kind)


def _cast(column: Any, kind: pa.DataType, original: Any = None) -> Any:
    """A safe cast; `MisfitError` names the first value of `original` (default: `column`) that it cannot take."""
    import pyarrow as pa

    def cast(part: Any) -> Any:
        if part.type == kind:
            return part
        if pa.types.is_decimal(part.type) or (pa.types.is_floating(part.type) and pa.types.is_float64(kind)):
            part = part.cast(pa.float32()) if pa.types.is_float16(part.type) else part
            part = part.cast(pa.string())  # the number as it is written: 0.1, not the float32 nearest to it
        if has_views(part.type):
            part = part.combine_chunks() if isinstance(part, pa.ChunkedArray) else part
            return pa.array(part.to_pylist(), kind)  # Arrow's own cast of list views gives arrays that are not valid
        return part.cast(kind)

    return _located(column, kind, cast, None, original)


def _located(column: Any, kind: pa.DataType, work: Any, pattern: str | None, original: Any = None) -> Any:
    import pyarrow as pa

    try:
        return work(column)
    except pa.ArrowException:
        shows = column if original is None else original
        for i in range(len(column)):
            try:
                work(column.slice(i, 1))
            except pa.ArrowException:
                value = str(shows[i]) if is_fine_time(shows.type) else shows[i].as_py()
                raise MisfitError(i, value, _expected(kind, pattern)) from None
        raise


def _each(column: Any, kind: pa.DataType, convert: Any) -> Any:
    """`convert` of every value that is there, as an array of `kind`."""
    import pyarrow as pa

    out = []
    for i, value in enumerate(column.to_pylist()):
        try:
            out.append(convert(value))
            pa.array(out[-1:], kind)
            if not _has_room(out[-1], kind):
                raise ValueError
        except (ValueError, TypeError, pa.ArrowException):
            raise MisfitError(i, value, _expected(kind)) from None
    array = pa.array(out, kind)
    return pa.chunked_array([array]) if isinstance(column, pa.ChunkedArray) else array


def _nested(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return json.loads(value) if value.strip() else None


def _has_room(value: Any, kind: pa.DataType) -> bool:
    """Whether `kind` has a field for every key of `value`; Arrow leaves the others out without a word."""
    import pyarrow as pa

    if pa.types.is_struct(kind) and isinstance(value, Mapping):
        fields = {kind.field(i).name: kind.field(i).type for i in range(kind.num_fields)}
        return value.keys() <= fields.keys() and all(_has_room(inner, fields[key]) for key, inner in value.items())
    if is_list(kind) and isinstance(value, list):
        return all(_has_room(inner, kind.value_type) for inner in value)
    return True


def _can_nest(column: Any, kind: pa.DataType) -> bool:
    import pyarrow as pa

    nested = pa.types.is_nested
    return bool((nested(kind) and (nested(column.type) or pa.types.is_string(column.type))) or pa.types.is_string(kind))


def _no(column: Any, kind: pa.DataType) -> Any:
    """Nothing of `column` fits; fine where all is null."""
    import pyarrow as pa
    import pyarrow.compute as pc

    _refuse(column, pc.is_null(column), kind)
    return fitted(pa.nulls(len(column)), kind)


def _refuse(column: Any, fits: Any, kind: pa.DataType) -> None:
    import pyarrow.compute as pc

    if pc.all(fits, min_count=0).as_py():
        return
    at = pc.index(fits, False).as_py()
    raise MisfitError(at, column[at].as_py(), _expected(kind))


def _expected(kind: pa.DataType, pattern: str | None = None) -> str:
    import pyarrow as pa

    if pattern is not None:
        return f"{word_of(kind)} written as {pattern}"
    if pa.types.is_date(kind):
        return "date (YYYY-MM-DD)"
    if pa.types.is_timestamp(kind):
        return f"{word_of(kind)} (YYYY-MM-DD HH:MM:SS, to the microsecond)"
    return word_of(kind)


def _decoded(column: Any) -> Any:
    """Without dictionaries, extension types and views at its top."""
    import pyarrow as pa

    if isinstance(column.type, pa.BaseExtensionType):
        storage = [chunk.storage for chunk in column.chunks] if isinstance(column, pa.ChunkedArray) else column.storage
        column = pa.chunked_array(storage, column.type.storage_type) if isinstance(storage, list) else storage
    if pa.types.is_dictionary(column.type):
        value = column.type.value_type
        views = {pa.string_view(): pa.string(), pa.binary_view(): pa.large_binary()}
        if value in views:
            column = column.cast(pa.dictionary(column.type.index_type, views[value]))
        column = column.cast(views.get(value, value))
    if pa.types.is_run_end_encoded(column.type):
        import pyarrow.compute as pc

        column = pc.run_end_decode(column)
    if is_text(column.type):
        return column.cast(pa.string())
    if is_bytes(column.type) and not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
        return column.cast(pa.large_binary())
    return column


def blank(texts: Any) -> Any:
    """Where a column has no text, or one of blanks alone, which sources leave out of the dataset's own texts: true or false."""
    import pyarrow.compute as pc

    return pc.fill_null(pc.equal(pc.utf8_trim_whitespace(texts), ""), True)


def _not_blank(column: Any) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    trimmed = pc.utf8_trim_whitespace(column)
    return pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, pa.string()), trimmed)


def _group(kind: pa.DataType) -> str:
    """Types between whose values a safe cast changes nothing."""
    import pyarrow as pa

    types = pa.types
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        return "number"
    return "day" if types.is_date(kind) or types.is_timestamp(kind) else str(kind).partition("[")[0]
