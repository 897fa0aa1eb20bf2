"""What every request passes: who asks, from where, how much, and how long; and the headers of every answer.

The body is read here, whole, before anything looks at it: a body that is too large or too slow never reaches a handler.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import orjson

from embedstore.serving.gauges import Gauges
from embedstore.serving.serve_options import LOOPBACK, ServeOptions

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = ("/", "/health", "/ready")
"""Paths that need no token: they tell nothing of the store."""
STATIC, API = "/static/", "/v1/"
READING = ("GET", "HEAD", "OPTIONS")
TYPES = ("application/json", "multipart/form-data")
OWN_SITES = (b"same-origin", b"none")
"""Where a browser says that a request comes from: this server's page, or its user's own hand."""
BODY_SECONDS = 10.0
HELD_BYTES = 256 << 20
"""Of bodies that are being worked on; beyond, the next ones are refused."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]


class RefusedError(Exception):
    """A request that goes no further: its status, why, and what to do."""

    def __init__(self, status: int, error: str, next_step: str) -> None:
        super().__init__(error)
        self.status, self.error, self.next_step = status, error, next_step


class Guards:
    """ASGI middleware around the application.

    Parameters
    ----------
    app : ASGI application
    options : ServeOptions
    token : str, optional
        What every request has to bring; None where only this machine reaches the server and no token was asked for.
    gauges : Gauges
    """

    def __init__(self, app: App, options: ServeOptions, token: str | None, gauges: Gauges) -> None:
        self._app, self._options, self._gauges = app, options, gauges
        self._token = None if token is None else token.encode()
        self._held = 0
        self._hosts = {host.encode() for host in (*LOOPBACK, options.host)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status, held = 500, 0

        def hold(count: int) -> None:
            nonlocal held
            held += count
            self._held += count

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *HEADERS]
            await send(message)

        try:
            headers = dict(scope["headers"])
            self._admit(scope, headers)
            body = b"" if scope["method"] in READING else await self._body(headers, receive, hold)
            await self._app(scope, _replayed(body, receive), sending)
        except RefusedError as refused:
            await _send(sending, refused)
        finally:
            self._held -= held
            route = getattr(scope.get("route"), "path", "other")
            self._gauges.count(route, status, time.perf_counter() - started)

    def _admit(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        """Raise `RefusedError` unless who asks may ask."""
        host = headers.get(b"host", b"")
        if self._token is None:
            if _name(host) not in self._hosts:  # a page that had its own name resolved to this machine
                raise RefusedError(421, "This server answers as localhost alone.", "Start it with --token-file to use names.")
        elif not (scope["path"] in OPEN or scope["path"].startswith(STATIC)):
            given = headers.get(b"authorization", b"")
            if not hmac.compare_digest(given, b"Bearer " + self._token):
                raise RefusedError(401, "The token is missing or wrong.", "Send the header Authorization: Bearer TOKEN.")
        reading = scope["method"] in READING
        if _foreign(headers, host) and (not reading or scope["path"].startswith(API)):
            raise RefusedError(
                403, "The request comes from another site's page.", "Use the page of this server, or send no Origin."
            )
        if reading:
            return
        kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower().decode("latin-1")
        if kind not in TYPES:
            raise RefusedError(415, f"Content-Type is {kind[:60] or 'missing'}.", f"Send {' or '.join(TYPES)}.")

    async def _body(self, headers: dict[bytes, bytes], receive: Receive, hold: Callable[[int], None]) -> bytes:
        """The whole body; `hold` is told of each part, so that bodies that are still coming count as well."""
        most = self._options.max_body
        told = headers.get(b"content-length", b"0")
        if told.isdigit() and (len(told) > 15 or int(told) > most):
            raise RefusedError(413, f"The body has {told[:20].decode()} bytes, of at most {most:,}.", "Send less.")
        if told == b"0" and b"transfer-encoding" not in headers:
            return b""
        parts, size = [], 0
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        raise RefusedError(400, "The connection was closed before the body ended.", "Send the whole body.")
                    if self._held > HELD_BYTES:
                        raise RefusedError(503, "The server is busy with large requests.", "Try again in a second.")
                    hold(len(message.get("body", b"")))
                    size += len(message.get("body", b""))
                    if size > most:
                        raise RefusedError(413, f"The body has more than {most:,} bytes.", "Send less.")
                    parts.append(message.get("body", b""))
                    if not message.get("more_body"):
                        return b"".join(parts)
        except TimeoutError:
            raise RefusedError(
                408, f"The body did not arrive in {BODY_SECONDS:g} s.", "Send it faster, or send less."
            ) from None


def _foreign(headers: dict[bytes, bytes], host: bytes) -> bool:
    """Whether a browser says that another site's page asks; no page can make it say otherwise.

    Its own word comes first: behind a proxy the host may be another than the page's.
    """
    if (site := headers.get(b"sec-fetch-site")) is not None:
        return site not in OWN_SITES
    origin = headers.get(b"origin")
    return origin is not None and origin.partition(b"://")[2] != host


def _name(host: bytes) -> bytes:
    """A Host header without its port and brackets."""
    if host.startswith(b"["):
        return host[1:].partition(b"]")[0]
    return host.partition(b":")[0].lower()


def _replayed(body: bytes, receive: Receive) -> Receive:
    """`receive` for an application whose request body was read already."""
    left = [body]

    async def received() -> Message:
        if left:
            return {"type": "http.request", "body": left.pop(), "more_body": False}
        return await receive()

    return received


async def _send(send: Send, refused: RefusedError) -> None:
    body = orjson.dumps({"error": refused.error, "next": refused.next_step})
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers.append((b"connection", b"close"))  # what is left of the body is not read
    if refused.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
