"""Maps, heads and duplicates over HTTP: what is looked at rather than searched."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Query, Response

from embedstore.duplicates.find import find_duplicates
from embedstore.errors import UsageError
from embedstore.serving.answers import items
from embedstore.serving.colours import Colours, by_column, by_head
from embedstore.serving.head_pages import head_items, head_page, label_errors
from embedstore.serving.maps import Map, make_map, map_of_key
from embedstore.serving.models import DEEPEST, DuplicatesRequest, MapItemsRequest
from embedstore.serving.replies import reply
from embedstore.serving.routes_search import WRONG
from embedstore.serving.service import Service
from embedstore.serving.session import Session
from embedstore.store import Store

Document = dict[str, Any]
Text = Annotated[str, Query(min_length=1, max_length=300)]
Cell = Annotated[str | None, Query(max_length=300)]
Target = Annotated[str | None, Query(max_length=300, description="Of a head of several targets, the one to look at.")]
Offset = Annotated[int, Query(ge=0, le=DEEPEST)]
Count = Annotated[int, Query(ge=1, le=1000)]

BINARY = "application/octet-stream"
PATIENCE = 10.0
"""Seconds that a request waits for a map, its colours or duplicates before it is told to come again."""


def router(service: Service) -> APIRouter:
    """The routes of maps, heads and duplicates."""
    routes = APIRouter(prefix="/v1", responses=WRONG, tags=["look"])

    @routes.get("/map", summary="Make a map of a space, or find the one that is made")
    async def draw(space: Text, method: Literal["pca", "umap"] = "pca") -> Response:
        session = service.session
        session.store.space(space)
        key = f"{session.generation}.{method}.{space}"
        writes = service.options.writable
        made = await _patient(service, session.store, ("map", key), lambda: make_map(session, space, method, keep=writes))
        return reply(made.to_dict()) if isinstance(made, Map) else reply(made, 202)

    @routes.get("/map/points", summary="The points of a map: float32 x, y", response_class=Response)
    async def points(key: Text) -> Response:
        drawn = map_of_key(service.session, key)
        headers = {"etag": f'"{quote(drawn.key)}"', "cache-control": "private, no-cache"}
        return Response(drawn.points.astype("<f4", copy=False).tobytes(), media_type=BINARY, headers=headers)

    @routes.get("/map/colour", summary="What the points are coloured by: uint16 codes", response_class=Response)
    async def colour(
        key: Text,
        column: Cell = None,
        head: Cell = None,
        what: Literal["prediction", "error"] = "prediction",
        target: Target = None,
    ) -> Response:
        session = service.session
        drawn = map_of_key(session, key)
        if (column is None) == (head is None):
            raise UsageError("Name a column or a head to colour by, one of them.")
        if column is not None:
            found = await _patient(service, session.store, ("column", key, column), lambda: by_column(session, drawn, column))
        else:
            name = str(head)
            wanted = ("head", key, name, what, target)
            found = await _patient(service, session, wanted, lambda: by_head(session, drawn, name, what, target))
        if not isinstance(found, Colours):
            return reply(found, 202)
        headers = {"x-legend": quote(json.dumps(found.legend, ensure_ascii=False))}
        return Response(found.codes.astype("<u2", copy=False).tobytes(), media_type=BINARY, headers=headers)

    @routes.post("/map/items", summary="The items at points of a map")
    async def at(request: MapItemsRequest) -> Response:
        return reply(await service.run(_map_items, service.session, request))

    @routes.get("/heads/{name}", summary="A head: metrics and confusion matrix")
    async def head(name: str, target: Target = None) -> Response:
        return reply(await service.run(head_page, service.session, name, target))

    @routes.get("/heads/{name}/items", summary="Items of a cell of the confusion matrix, or all mistakes")
    async def cell(
        name: str, truth: Cell = None, predicted: Cell = None, offset: Offset = 0, k: Count = 50, target: Target = None
    ) -> Response:
        wanted: Document = {"target": target, "truth": truth, "predicted": predicted, "offset": offset, "k": k}
        return reply(await service.run(head_items, service.session, name, **wanted))

    @routes.get("/heads/{name}/label-errors", summary="Labels that are likely wrong, the worst first")
    async def wrong(name: str, offset: Offset = 0, k: Count = 50, target: Target = None) -> Response:
        return reply(await service.run(label_errors, service.session, name, target=target, offset=offset, k=k))

    @routes.post("/duplicates", summary="Near copies among the items of a space")
    async def duplicates(request: DuplicatesRequest) -> Response:
        session = service.session
        key = ("duplicates", request.space, request.threshold)
        found = await _patient(service, session.store, key, lambda: _duplicates(session, request))
        if isinstance(found, dict):
            return reply(found, 202)
        return reply({"generation": session.generation, "groups": found[: request.limit], "n": len(found)})

    return routes


async def _patient(service: Service, owner: Store | Session, key: tuple[Any, ...], make: Any) -> Any:
    """What `make` returns, made once by one thread; where it takes long, a document that says for how long it has run."""
    work = service.once(owner, key, make)
    if not await work.within(PATIENCE):
        return {"state": "computing", "seconds": round(time.monotonic() - work.started, 1)}
    return work.future.result()


def _map_items(session: Session, request: MapItemsRequest) -> Document:
    drawn = map_of_key(session, request.key)
    if outside := [at for at in request.rows if at >= len(drawn.rows)]:
        raise UsageError(f"The map has {len(drawn.rows):,} points; there is none at {outside[0]}.")
    found = items(session, drawn.rows[request.rows])
    return {"ids": [one["id"] for one in found], "items": found}


def _duplicates(session: Session, request: DuplicatesRequest) -> list[list[str]]:
    """Groups of ids, the one to keep first."""
    report = find_duplicates(session.store, space=request.space, threshold=request.threshold)
    return [[cluster.representative, *(member.id for member in cluster.members)] for cluster in report.clusters]
