"""A file of an item as the answer to a request: all of it, the range that is asked for, or that it is what the browser has."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import ExitStack
from email.utils import formatdate

from fastapi import Response
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from embedstore.serving.playable import Playable
from embedstore.serving.replies import CACHED, refused, unchanged

CHUNK = 256 << 10
DIGITS = 18
"""Of a number of bytes."""
NEXT = "Send Range: bytes=0-99, bytes=100- or bytes=-100, or none for the whole file."


class RangeError(Exception):
    """A range that is not one, or that the file does not have."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(said)
        self.status = status


def sent(found: Playable, *, wanted: str | None, if_range: str | None, if_none_match: str | None) -> Response:
    """The answer to a request for a file, which is closed with it.

    Parameters
    ----------
    wanted, if_range, if_none_match : str, optional
        The headers ``Range``, ``If-Range`` and ``If-None-Match``.
    """
    size, modified = found.status.st_size, formatdate(found.status.st_mtime, usegmt=True)
    headers = {"etag": found.etag, "cache-control": CACHED, "last-modified": modified, "accept-ranges": "bytes"}
    with ExitStack() as closing:
        closing.callback(found.file.close)
        if unchanged(found.etag, if_none_match):
            return Response(status_code=304, headers=headers)
        try:
            part = None if if_range not in (None, found.etag, modified) else asked_range(wanted, size)
        except RangeError as error:
            ends = {"content-range": f"bytes */{size}"} if error.status == 416 else {}
            return refused(error.status, str(error), NEXT, ends)
        closing.pop_all()
    if part is None:
        return _Part(found, range(size), 200, headers)
    return _Part(found, part, 206, {**headers, "content-range": f"bytes {part.start}-{part.stop - 1}/{size}"})


def asked_range(wanted: str | None, size: int) -> range | None:
    """The bytes that a ``Range`` header asks for; None for all, which several ranges get as well.

    Raises
    ------
    RangeError

    Examples
    --------
    >>> asked_range("bytes=-10", 100)
    range(90, 100)
    """
    if wanted is None:
        return None
    unit, _, ranges = wanted.partition("=")
    if unit.strip().lower() == "bytes" and "," in ranges:
        return None
    first, dash, last = (part.strip() for part in ranges.partition("-"))
    numbers = [part for part in (first, last) if part]
    if unit.strip().lower() != "bytes" or not dash or not numbers or not all(_counts(part) for part in numbers):
        raise RangeError(400, f"Range {wanted[:60]!r} is no range of bytes.")
    if not first:
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < start:
            raise RangeError(400, f"Range {wanted[:60]!r} ends before it begins.")
    if start >= size:
        raise RangeError(416, f"The file has {size:,} bytes, none in the range {wanted[:60]!r}.")
    return range(start, stop)


def _counts(part: str) -> bool:
    return part.isascii() and part.isdigit() and len(part) <= DIGITS


class _Part(StreamingResponse):
    """Some bytes of a file that is open, and is the one that was looked at, whatever lies at its path by now."""

    def __init__(self, found: Playable, part: range, status: int, headers: dict[str, str]) -> None:
        headers = {**headers, "content-length": str(len(part))}
        super().__init__(_chunks(found.file, part), status, headers, found.media_type)
        self._file = found.file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._file.close()


def _chunks(file: io.FileIO, part: range) -> Iterator[bytes]:
    file.seek(part.start)
    left = len(part)
    while left and (chunk := file.read(min(CHUNK, left))):
        left -= len(chunk)
        yield chunk
