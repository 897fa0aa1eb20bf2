"""Rows that come one by one, as record batches; and the types of metadata that comes as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from embedstore._core.column_types import as_text
from embedstore.errors import SourceError
from embedstore.sources.base import BATCH_BYTES, BATCH_ROWS

if TYPE_CHECKING:
    import pyarrow as pa

Record = Mapping[str, Any]

SNIFFED = 1000
"""Records that are read ahead, so that what a stream has is known when it begins."""

_INT64 = range(-(2**63), 2**63)
_BOOLEAN, _WHOLE, _NUMBER, _TEXT = "boolean", "integer", "number", "text"
_KINDS: dict[type, str] = {bool: _BOOLEAN, int: _WHOLE, float: _NUMBER, str: _TEXT}
_NOTHING = "nothing"
_LIST = "list of "
_EMPTY = _LIST + _NOTHING


class JsonColumns:
    """Metadata columns and their types, learned from the records of a stream as they come.

    A column whose values are all of one scalar type has that type, and so has one of lists; whole numbers and fractions
    together are numbers; anything else (records, mixed types) is kept as JSON text. What a column is when its first values
    come, it stays: a later value of another type is an error, unless the column is text.

    Parameters
    ----------
    records : iterable of mapping
        The first ones.
    without : collection of str
        Keys that are no metadata.
    """

    def __init__(self, records: Iterable[Record], without: Iterable[str] = ()) -> None:
        self._without = frozenset(without)
        self._as_text: frozenset[str] = frozenset()
        self._name_of: Callable[[str], str] = str
        self.kinds: dict[str, str] = {}
        self.learn(records)

    def learn(self, records: Iterable[Record]) -> None:
        """Add the keys that are new in `records`, or had no value so far, with the types that their values have there."""
        found: dict[str, set[str]] = {}
        for record in records:
            for key, value in record.items():
                if self.kinds.get(key, _NOTHING) is _NOTHING and key not in self._without:
                    found.setdefault(key, set()).update(() if value is None else (_kind(value),))
        self.kinds |= {
            key: _TEXT if kinds and self._name_of(key) in self._as_text else _common(kinds) for key, kinds in found.items()
        }

    def leave_text(self, names: Iterable[str], name_of: Callable[[str], str]) -> None:
        """Keep the values of keys as text whose `name_of` is one of `names`: somebody else knows their types."""
        self._as_text, self._name_of = frozenset(names), name_of
        self.kinds |= {key: _TEXT for key in self.kinds if name_of(key) in self._as_text}

    def types(self) -> dict[str, pa.DataType]:
        """Key → Arrow type."""
        import pyarrow as pa

        arrow = {_BOOLEAN: pa.bool_(), _WHOLE: pa.int64(), _NUMBER: pa.float64(), _TEXT: pa.string()}
        arrow |= {_NOTHING: pa.null()} | {_LIST + kind: pa.list_(inner) for kind, inner in arrow.items()}
        return {key: arrow[kind] for key, kind in self.kinds.items()}

    def values(self, record: Record, where: str) -> dict[str, Any]:
        """The record's values, each of its column's type.

        Raises
        ------
        SourceError
            A value has another type than the records before led to expect; begins with `where`.
        """
        return {key: self._value(key, kind, record.get(key), where) for key, kind in self.kinds.items()}

    def _value(self, key: str, kind: str, value: Any, where: str) -> Any:
        if value is None:
            return None
        if kind == _TEXT:
            return as_text(value)
        found = _kind(value)
        if found == kind or (found == _EMPTY and kind.startswith(_LIST)):
            return value
        if kind == _NUMBER and found == _WHOLE:
            return float(value)
        if kind == _LIST + _NUMBER and found == _LIST + _WHOLE:
            return [None if inner is None else float(inner) for inner in value]
        other = _NUMBER if {kind, found} == {_WHOLE, _NUMBER} else _TEXT
        raise SourceError(
            f"{where}: {key!r} is {json.dumps(value)[:80]}, no {kind} like the values before it. "
            f"Declare what the column is: --type {key}={other}."
        )


def record_of(line: bytes) -> dict[str, Any]:
    """The object in a line of JSON lines.

    Raises
    ------
    ValueError
        There is none, or UTF-8 cannot hold it; the message goes on from the line's number.
    """
    try:
        record = json.loads(line.rstrip())
    except RecursionError as error:
        raise ValueError("is nested too deeply; expected one JSON object a line.") from error
    except ValueError as error:
        fault = f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else error
        raise ValueError(f"is not JSON ({fault}); expected one JSON object a line.") from error
    if not isinstance(record, dict):
        raise ValueError(f"is {json.dumps(record)[:80]}; expected a JSON object.")
    if (b"\\u" in line or b"\xed" in line) and (half := _half_character(record)):  # elsewhere there is none
        raise ValueError(f"holds {half}, which is not valid Unicode text. Mend it, or leave the line out.")
    return record


def _half_character(record: Any) -> str | None:
    """The first half of a surrogate pair that stands alone in the record, escaped; JSON can hold one, UTF-8 cannot."""
    try:
        json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        return ascii(error.object[error.start])
    return None


def as_batches(rows: Iterable[Record], schema: pa.Schema | Callable[[], pa.Schema]) -> Iterator[pa.RecordBatch]:
    """Rows as record batches of at most `BATCH_ROWS` rows, each ending with the payload that reaches `BATCH_BYTES`.

    Parameters
    ----------
    rows : iterable of mapping
    schema : Schema, or callable
        Where columns may come later, what they are is asked for each batch.
    """

    def batch() -> pa.RecordBatch:
        return _batch(held, schema() if callable(schema) else schema)

    held: list[Record] = []
    size = 0
    try:
        for row in rows:
            held.append(row)
            size += sum(len(value) for value in row.values() if isinstance(value, bytes))
            if len(held) >= BATCH_ROWS or size >= BATCH_BYTES:
                yield batch()
                held, size = [], 0
    except SourceError:
        if held:  # what came before the damage is good
            yield batch()
        raise
    if held:
        yield batch()


def _batch(rows: list[Record], schema: pa.Schema) -> pa.RecordBatch:
    import pyarrow as pa

    try:
        columns = [pa.array([row.get(field.name) for row in rows], field.type) for field in schema]
    except UnicodeEncodeError as error:  # JSON can escape half a character
        raise SourceError(f"{error.object[:80]!a} is not valid Unicode text. Mend it, or leave the item out.") from error
    return pa.record_batch(columns, schema=schema)


def _kind(value: Any) -> str:
    if isinstance(value, list):
        kinds = {_kind(inner) for inner in value if inner is not None}
        kind = _common(kinds)
        one = kind in _KINDS.values() and (kind != _TEXT or kinds == {_TEXT})
        return _LIST + kind if one or not kinds else "nested"
    if isinstance(value, int) and not isinstance(value, bool) and value not in _INT64:
        return "a large number"
    return _KINDS.get(type(value), "nested")


def _common(kinds: set[str]) -> str:
    """The type of a column that holds values of these kinds; text where they are several."""
    if not kinds:
        return _NOTHING
    if kinds == {_WHOLE, _NUMBER}:
        return _NUMBER
    if kinds == {_EMPTY}:
        return _LIST + _TEXT
    lists = kinds - {_EMPTY}
    if lists == {_LIST + _WHOLE, _LIST + _NUMBER}:
        return _LIST + _NUMBER
    if len(lists) > 1 or (len(kinds) > 1 and not min(lists).startswith(_LIST)):
        return _TEXT
    (kind,) = lists
    return kind if kind.removeprefix(_LIST) in _KINDS.values() else _TEXT
