"""Texts that are bytes, in files of their own or in a column: they come with the item, and so does why there is none."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from embedstore._core.arguments import TIMEOUT
from embedstore._core.column_types import is_bytes
from embedstore._core.column_values import fitted
from embedstore.errors import PayloadError
from embedstore.sources.base import TEXT_FAILED
from embedstore.sources.confined import Root
from embedstore.sources.files import read_payload

if TYPE_CHECKING:
    import pyarrow as pa


def text_fields() -> list[tuple[str, pa.DataType]]:
    """Name and Arrow type of the columns that `text_values` fills."""
    import pyarrow as pa

    return [("text", pa.string()), (TEXT_FAILED, pa.struct([("stage", pa.string()), ("reason", pa.string())]))]


def text_values(read: Callable[[], str | None]) -> dict[str, Any]:
    """The text that `read` gives, or the `PayloadError` that it raises, as values of an item's row."""
    try:
        return {"text": read()}
    except PayloadError as error:
        reason = error.reason.encode(errors="backslashreplace").decode()  # the file's name may not be UTF-8
        return {TEXT_FAILED: {"stage": error.stage, "reason": reason}}


def read_text(path: str, *, timeout: float = TIMEOUT, root: Root | None = None) -> str | None:
    """The text in a file or at a URL; below `root` alone, where there is one.

    Raises
    ------
    PayloadError
    """
    return text_of(read_payload(path, timeout=timeout, root=root))


def text_of(content: bytes) -> str | None:
    """The text without the white space around it; None where there is nothing else.

    Raises
    ------
    PayloadError
        The bytes are not UTF-8.
    """
    return _utf8(content).removeprefix("\ufeff").strip() or None


def decoded(column: pa.Array) -> tuple[pa.Array, pa.Array]:
    """A column of texts, of bytes in UTF-8, or of what becomes JSON, as strings; and why some are none, as in `text_fields`."""
    import pyarrow as pa

    _, (_, kind) = text_fields()
    if not is_bytes(column.type):
        return fitted(column, pa.string()), pa.nulls(len(column), kind)
    try:
        return column.cast(pa.string()), pa.nulls(len(column), kind)
    except pa.ArrowInvalid:
        found = [{} if value is None else text_values(partial(_utf8, value)) for value in column.to_pylist()]
    return pa.array([f.get("text") for f in found], pa.string()), pa.array([f.get(TEXT_FAILED) for f in found], kind)


def _utf8(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise PayloadError("decode", f"not UTF-8 text: {error.reason} at byte {error.start:,} (from 0)") from error
