"""The store, its items, their pictures, and how values of columns are spread."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Response

from embedstore._version import __version__
from embedstore.serving.answers import items
from embedstore.serving.facets import facets
from embedstore.serving.known_files import KnownFiles
from embedstore.serving.models import FacetsRequest, Wrong
from embedstore.serving.playable import Playables
from embedstore.serving.replies import CACHED, refused, reply, unchanged
from embedstore.serving.routes_search import WRONG
from embedstore.serving.sent_files import sent
from embedstore.serving.service import Service
from embedstore.serving.session import Session
from embedstore.serving.thumbnails import SIZES, Thumbnails

Document = dict[str, Any]
ItemId = Annotated[str, Query(min_length=1, max_length=2000)]


def router(service: Service) -> APIRouter:
    """The routes of items."""
    routes = APIRouter(prefix="/v1", responses=WRONG, tags=["items"])
    files = KnownFiles()
    pictures, playables = Thumbnails(files), Playables(files)

    @routes.get("/store", summary="What the store holds, and what may be asked of it")
    async def store() -> Response:
        writable = service.options.writable
        return reply(await service.run(service.session.describe, writable=writable, version=__version__))

    @routes.get("/item", summary="One item")
    async def item(id: ItemId) -> Response:
        return reply(await service.run(_item, service.session, id))

    @routes.get("/thumbnail", summary="The picture of an item in small: an image, a waveform, a frame", response_class=Response)
    async def thumbnail(
        id: ItemId,
        size: Annotated[int, Query(ge=16, le=SIZES[-1])] = 256,
        space: Annotated[str | None, Query(max_length=200)] = None,
        if_none_match: Annotated[str | None, Header()] = None,
    ) -> Response:
        found = await service.run(pictures.of, service.session, id, size, space)
        if found is None:
            return refused(404, "The item has no picture that can be read.", "Show its text and metadata: GET /v1/item.")
        headers = {"etag": found.etag, "cache-control": CACHED}
        if unchanged(found.etag, if_none_match):
            return Response(status_code=304, headers=headers)
        return Response(found.data, media_type=found.media_type, headers=headers)

    @routes.get(
        "/media",
        summary="The sound or film of an item, whole or a range of its bytes",
        response_class=Response,
        responses={
            206: {"description": "The range that was asked for."},
            416: {"model": Wrong, "description": "There is no such range."},
        },
    )
    async def media(
        id: ItemId,
        modality: Literal["audio", "video"] | None = None,
        wanted: Annotated[str | None, Header(alias="range")] = None,
        if_range: Annotated[str | None, Header()] = None,
        if_none_match: Annotated[str | None, Header()] = None,
    ) -> Response:
        found = await service.run(playables.of, service.session, id, modality)
        if found is None:
            return refused(404, "The item has no sound or film that can be played.", "See what it has: GET /v1/item.")
        return sent(found, wanted=wanted, if_range=if_range, if_none_match=if_none_match)

    @routes.post("/facets", summary="Values of columns with counts")
    async def counted(request: FacetsRequest) -> Response:
        return reply(await service.run(facets, service.session, request))

    return routes


def _item(session: Session, id: str) -> Document:
    row = session.store.items.rows_of([id])
    (found,) = items(session, row)
    payloads = {}
    for name, space in session.store.spaces.items():
        if space.has(row)[0]:
            kind = space.spec.modality
            payloads[name] = {"kind": kind, "text": found["text"] if kind == "text" else None}
    return {"id": id, "kind": found["kind"], "text": found["text"], "metadata": found["metadata"], "payloads": payloads}
