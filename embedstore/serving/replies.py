"""Answers as JSON, whatever a store's columns hold, and errors as one line and a next step."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from embedstore.errors import (
    EmbedstoreError,
    MissingDependencyError,
    StoreError,
    StoreLockedError,
    one_line,
)
from embedstore.serving.batching import BusyError
from embedstore.serving.wording import in_json

JSON = "application/json"
AGAIN = "Change the request; /openapi.json describes it."
CACHED = "private, no-cache"
"""Browsers ask whether a picture is still the same: at this address there may be another store tomorrow."""
OPTIONS = orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY


def reply(document: Any, status: int = 200) -> Response:
    """A document as JSON; NaN becomes null, bytes base64, decimals texts."""
    return Response(orjson.dumps(document, default=_plain, option=OPTIONS), status, media_type=JSON)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    return list(value) if isinstance(value, set | frozenset) else str(value)


def refused(status: int, error: str, next_step: str, headers: Mapping[str, str] | None = None) -> Response:
    """Why a request is not answered, and what to do."""
    body = orjson.dumps({"error": error, "next": next_step}, default=str)
    return Response(body, status, media_type=JSON, headers=headers)


def unchanged(etag: str, if_none_match: str | None) -> bool:
    """Whether who asks has what would be sent."""
    return if_none_match is not None and (etag in if_none_match or if_none_match.strip() == "*")


def of_error(error: EmbedstoreError, store: Path) -> Response:
    """An error of the library: it says in one line what is wrong, and mostly what to do."""
    line = told(error, store)
    said, then = _divided(line)
    return refused(_status(error, line), said, then or AGAIN)


def told(error: EmbedstoreError, store: Path) -> str:
    """What is wrong in one line, in the words of requests, without the folder that the store lies in."""
    line = in_json(one_line(error))
    return line.replace(str(store), store.name) if store.is_absolute() else line


def _status(error: EmbedstoreError, line: str) -> int:
    if isinstance(error, StoreLockedError):
        return 409
    if isinstance(error, StoreError) and not isinstance(error, MissingDependencyError):
        return 500
    missing = re.match(r"No item has the id|.* has no (head|space) ", line)
    return 404 if missing else 400


def _divided(line: str) -> tuple[str, str]:
    """The first sentence, and the rest; a full stop inside quotes ends none."""
    for stop in re.finditer(r"[.!?] (?=[A-Z'])", line):
        if line[: stop.start()].count("'") % 2 == 0:
            return line[: stop.start() + 1], line[stop.end() :]
    return line, ""


async def of_invalid(request: Request, error: Exception) -> Response:
    """A request that is not of the form that ``/openapi.json`` describes."""
    faults = error.errors() if isinstance(error, RequestValidationError) else []
    first = faults[0] if faults else {"loc": (), "msg": "The request cannot be read"}
    place = ".".join(str(part) for part in first["loc"] if part != "body")
    said = str(first["msg"]).removeprefix("Value error, ")
    if first.get("type") == "json_invalid":
        return refused(400, "The body is not JSON.", "Send a JSON document.")
    return refused(422, one_line(f"{place}: {said}." if place else f"{said}."), AGAIN)


async def of_http(request: Request, error: Exception) -> Response:
    """What the framework refuses: unknown paths and methods, bodies that cannot be parsed."""
    status = error.status_code if isinstance(error, HTTPException) else 400
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    what = {404: "There is nothing at this path.", 405: "This path does not take this method."}
    said = what.get(status, one_line(str(getattr(error, "detail", error)), 200))
    return refused(status, said, "GET /openapi.json lists every path.", headers)


async def of_busy(request: Request, error: Exception) -> Response:
    """More requests than threads can do."""
    return refused(503, "The server is busy: too many requests wait.", "Try again in a second.", {"retry-after": "1"})


async def of_slow(request: Request, error: Exception) -> Response:
    """A request that took too long."""
    return refused(408, "The request took longer than a request may.", "Ask for less, or start the server with --timeout.")


async def of_bug(request: Request, error: Exception) -> Response:
    """An error that nobody expected; its traceback goes to the server's log alone."""
    return refused(500, "The server failed in a way that was not expected.", "Its log has the traceback; please report it.")


HANDLERS: dict[Any, Any] = {
    RequestValidationError: of_invalid,
    HTTPException: of_http,
    BusyError: of_busy,
    TimeoutError: of_slow,
    Exception: of_bug,
}
