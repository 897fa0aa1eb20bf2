"""Teaching over HTTP: fit to marks, rank, ask for the next marks, save."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter, Response

from embedstore.serving.answers import items
from embedstore.serving.models import SaveRequest, TeachRequest
from embedstore.serving.replies import refused, reply
from embedstore.serving.routes_search import WRONG
from embedstore.serving.service import Service
from embedstore.serving.session import Session
from embedstore.serving.teach import Marks, lesson, ranked, save_lesson

Document = dict[str, Any]


def router(service: Service) -> APIRouter:
    """The routes of teaching."""
    routes = APIRouter(prefix="/v1/teach", responses=WRONG, tags=["teach"])

    @routes.post("", summary="Rank every item by a head of marked items")
    async def teach(request: TeachRequest) -> Response:
        return reply(await service.run(_taught, service.session, request))

    @routes.post("/save", summary="Keep a head of marked items in the store")
    async def save(request: SaveRequest) -> Response:
        if not service.options.writable:
            return refused(403, "The server does not write to the store.", "Start it with --writable.")
        return reply(await service.run(_saved, service.session, request))

    return routes


def _taught(session: Session, request: TeachRequest) -> Document:
    started = time.perf_counter()
    where = session.where(request.filter)
    learned = lesson(session, Marks.of(session, request.classes, _spaces(request)))
    fitted = time.perf_counter()
    last = request.offset + request.k
    best = ranked(session, learned, last=last, by=request.rank, where=where, uncertain=request.uncertain)
    order = time.perf_counter()
    page = slice(request.offset, last)
    results = items(session, best.rows[page], scores=best.probability[page].tolist(), offset=request.offset)
    asked = items(session, best.next_rows, scores=best.next_probability.tolist())
    ended = time.perf_counter()
    took = {"fit": fitted - started, "rank": order - fitted, "fetch": ended - order, "total": ended - started}
    return {
        "generation": session.generation,
        "classes": list(learned.marks.classes),
        "spaces": list(learned.marks.spaces),
        "results": results,
        "uncertain": asked,
        "accuracy": learned.accuracy(),
        "took_ms": {name: round(1000 * value, 2) for name, value in took.items()},
    }


def _saved(session: Session, request: SaveRequest) -> Document:
    learned = lesson(session, Marks.of(session, request.classes, _spaces(request)))
    record = save_lesson(session, learned, request.name)
    return {"head": record.name, "classes": list(learned.marks.classes), "inputs": list(record.inputs)}


def _spaces(request: TeachRequest | SaveRequest) -> list[str]:
    return list(request.spaces or ([request.space] if request.space is not None else []))
