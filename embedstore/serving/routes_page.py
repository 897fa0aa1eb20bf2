"""The page's files, and what whoever runs the server asks: health, readiness, metrics."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Header, Response

from embedstore.serving.replies import refused, reply
from embedstore.serving.service import Service

PAGE = Path(__file__).parent / "page"
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".json": "application/json",
}


def router(service: Service) -> APIRouter:
    """The routes beside ``/v1``."""
    routes = APIRouter()

    @routes.get("/", include_in_schema=False)
    async def index(if_none_match: Annotated[str | None, Header()] = None) -> Response:
        return _file("index.html", if_none_match)

    @routes.get("/static/{name}", include_in_schema=False)
    async def static(name: str, if_none_match: Annotated[str | None, Header()] = None) -> Response:
        return _file(name, if_none_match)

    @routes.get("/health", tags=["server"], summary="Whether the server runs")
    async def health() -> Response:
        return reply({"status": "ok"})

    @routes.get("/ready", tags=["server"], summary="Whether it answers from the latest generation")
    async def ready() -> Response:
        if service.problem is not None:
            return refused(503, f"The store changed, and cannot be followed: {service.problem}", "embedstore verify STORE.")
        return reply({"status": "ready", "generation": service.session.generation})

    @routes.get("/metrics", tags=["server"], summary="Counts and times for Prometheus", response_class=Response)
    async def metrics() -> Response:
        session = service.session
        text = service.gauges.text(generation=session.generation, items=len(session.store))
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    return routes


def _file(name: str, known: str | None) -> Response:
    """One of the page's own files, by its name alone."""
    path = PAGE / name
    names = {one.name for one in PAGE.iterdir()} if PAGE.is_dir() else set()
    if name not in names or path.suffix not in KINDS or not path.is_file():
        return refused(404, "There is no such file.", "GET / is the page.")
    data = path.read_bytes()
    etag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
    headers = {"etag": etag, "cache-control": "no-cache"}
    if known is not None and etag in known:
        return Response(status_code=304, headers=headers)
    return Response(data, media_type=KINDS[path.suffix], headers=headers)
