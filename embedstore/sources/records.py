"""Rows that come one by one, as record batches; and the types of metadata that comes as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from embedstore.errors import SourceError
from embedstore.sources.base import BATCH_BYTES, BATCH_ROWS

if TYPE_CHECKING:
    import pyarrow as pa

Record = Mapping[str, Any]

SNIFFED = 1000
"""Records from which the types of a stream's metadata are learned."""

_INT64 = range(-(2**63), 2**63)
_NUMBER, _TEXT = "a number", "text"
_KINDS: dict[type, str] = {bool: "true or false", int: "a whole number", float: _NUMBER, str: _TEXT}


class JsonColumns:
    """Metadata columns and their types, learned from the first records of a stream.

    A column whose values are all of one scalar type has that type; whole numbers and fractions together are numbers; anything
    else (nested values, mixed types) is kept as JSON text. Keys that the first records lack, or hold only null for, are left
    out.

    Parameters
    ----------
    records : iterable of mapping
        The first ones.
    without : collection of str
        Keys that are no metadata.
    """

    def __init__(self, records: Iterable[Record], without: Iterable[str] = ()) -> None:
        kinds: dict[str, set[str]] = {}
        for record in records:
            for key, value in record.items():
                if value is not None:
                    kinds.setdefault(key, set()).add(_kind(value))
        self.kinds = {key: _common(found) for key, found in kinds.items() if key not in set(without)}

    def types(self) -> dict[str, pa.DataType]:
        """Key → Arrow type."""
        import pyarrow as pa

        arrow = {_KINDS[bool]: pa.bool_(), _KINDS[int]: pa.int64(), _NUMBER: pa.float64(), _TEXT: pa.string()}
        return {key: arrow[kind] for key, kind in self.kinds.items()}

    def values(self, record: Record, where: str) -> dict[str, Any]:
        """The record's values, each of its column's type.

        Raises
        ------
        SourceError
            A value has another type than the first records led to expect; begins with `where`.
        """
        return {key: self._value(key, kind, record.get(key), where) for key, kind in self.kinds.items()}

    def _value(self, key: str, kind: str, value: Any, where: str) -> Any:
        if value is None:
            return None
        if kind == _TEXT:
            return as_text(value)
        found = _kind(value)
        if found == kind:
            return value
        if kind == _NUMBER and found == _KINDS[int]:
            return float(value)
        raise SourceError(
            f"{where}: {key!r} is {json.dumps(value)[:80]}, but the first {SNIFFED:,} records led to expect {kind}. "
            "Make the values of one type."
        )


def as_text(value: Any) -> str | None:
    """A string as it is, null as None, any other JSON value as JSON."""
    if value is None or isinstance(value, str):
        return value
    return str(value) if type(value) is int else json.dumps(value, ensure_ascii=False)


def record_of(line: bytes) -> dict[str, Any]:
    """The object in a line of JSON lines.

    Raises
    ------
    ValueError
        There is none, or UTF-8 cannot hold it; the message goes on from the line's number.
    """
    try:
        record = json.loads(line.rstrip())
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


def as_batches(rows: Iterable[Record], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Rows as record batches of at most `BATCH_ROWS` rows, each ending with the payload that reaches `BATCH_BYTES`."""
    held: list[Record] = []
    size = 0
    try:
        for row in rows:
            held.append(row)
            size += sum(len(value) for value in row.values() if isinstance(value, bytes))
            if len(held) >= BATCH_ROWS or size >= BATCH_BYTES:
                yield _batch(held, schema)
                held, size = [], 0
    except SourceError:
        if held:  # what came before the damage is good
            yield _batch(held, schema)
        raise
    if held:
        yield _batch(held, schema)


def _batch(rows: list[Record], schema: pa.Schema) -> pa.RecordBatch:
    import pyarrow as pa

    try:
        columns = [pa.array([row.get(field.name) for row in rows], field.type) for field in schema]
    except UnicodeEncodeError as error:  # JSON can escape half a character
        raise SourceError(f"{error.object[:80]!a} is not valid Unicode text. Mend it, or leave the item out.") from error
    return pa.record_batch(columns, schema=schema)


def _kind(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and value not in _INT64:
        return "a large number"
    return _KINDS.get(type(value), "nested")


def _common(kinds: set[str]) -> str:
    if kinds == {_KINDS[int], _NUMBER}:
        return _NUMBER
    return kinds.pop() if len(kinds) == 1 and kinds <= set(_KINDS.values()) else _TEXT
