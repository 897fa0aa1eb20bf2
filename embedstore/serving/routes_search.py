"""Search over HTTP: one question, an uploaded file, many at once; predictions of a head on what was found."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, File, Form, Response, UploadFile
from pydantic import ValidationError

from embedstore.errors import EmbedstoreError, UsageError, one_line
from embedstore.evaluation.contributions import EXACT_INPUTS
from embedstore.retrieval.contents import Contents
from embedstore.serving import answers
from embedstore.serving.batching import BusyError
from embedstore.serving.known_files import HEAD
from embedstore.serving.models import Asking, BatchRequest, PredictRequest, SearchRequest, Wrong
from embedstore.serving.playable import modality_of
from embedstore.serving.replies import reply, told
from embedstore.serving.service import Service
from embedstore.serving.session import Session
from embedstore.training.predict import predict_rows

Document = dict[str, Any]
WRONG: dict[int | str, dict[str, Any]] = {status: {"model": Wrong} for status in (400, 401, 403, 404, 408, 413, 415, 421, 422)}


def router(service: Service) -> APIRouter:
    """The routes of search."""
    routes = APIRouter(prefix="/v1", responses=WRONG, tags=["search"])

    @routes.post("/search", summary="The items nearest to a text, an item, a vector or an image")
    async def search(request: SearchRequest) -> Response:
        return reply(await _answer(service, service.session, request))

    @routes.post("/search/upload", summary="The items nearest to a file")
    async def upload(
        file: Annotated[UploadFile | None, File(description="A picture, sound or film: its bytes say which.")] = None,
        image: Annotated[UploadFile | None, File()] = None,
        audio: Annotated[UploadFile | None, File(description="A sound.")] = None,
        video: Annotated[UploadFile | None, File(description="A film.")] = None,
        request: Annotated[str, Form(description="What /v1/search takes, without query, as JSON.")] = "{}",
    ) -> Response:
        try:
            asking = Asking.model_validate_json(request)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            place = ".".join(str(part) for part in first["loc"])
            raise UsageError(one_line(f"request {place}: {first['msg']}.")) from None
        session, started = service.session, time.perf_counter()
        given = {"file": file, "image": image, "audio": audio, "video": video}
        wanted = answers.question(session, asking, files=await _uploaded(given))
        return reply(await _searched(service, session, asking, wanted, started))

    @routes.post("/search/batch", summary="Many searches in one request")
    async def batch(request: BatchRequest) -> Response:
        session = service.session
        found = await asyncio.gather(*(_answer(service, session, one) for one in request.queries), return_exceptions=True)
        return reply({"answers": [_told(one, session.store.path) for one in found]})

    @routes.post("/predict", summary="What a head says of items")
    async def predict(request: PredictRequest) -> Response:
        session = service.session
        found = await service.run(_predictions_of, session, request)
        return reply({"predictions": found})

    return routes


async def _uploaded(given: Mapping[str, UploadFile | None]) -> dict[str, Contents]:
    """The one file that was sent, under its modality."""
    files = {name: sent for name, sent in given.items() if sent is not None}
    if len(files) != 1:
        raise UsageError(f"One of {', '.join(given)} should be sent; got {' and '.join(files) or 'none'}.")
    ((name, sent),) = files.items()
    data = await sent.read()
    return {modality_of(data[:HEAD]) if name == "file" else name: Contents(data)}


def _told(found: Document | BaseException, store: Path) -> Document:
    """An answer, or why there is none; what is no error of a question is raised."""
    if isinstance(found, TimeoutError | BusyError):
        return {"error": "The server is busy. Ask again."}
    if isinstance(found, EmbedstoreError):
        return {"error": told(found, store)}
    if isinstance(found, BaseException):
        raise found
    return found


async def _answer(service: Service, session: Session, request: SearchRequest) -> Document:
    started = time.perf_counter()
    if answers.browses(request):
        document = await service.run(answers.browsed, session, request)
        return await _finished(service, session, request, document, {}, started)
    wanted = answers.question(session, request, query=request.query)
    return await _searched(service, session, request, wanted, started)


async def _searched(service: Service, session: Session, asking: Asking, wanted: Any, started: float) -> Document:
    result = await service.search(session, wanted)
    return await _finished(service, session, asking, answers.found(session, result), result.took_ms, started)


async def _finished(
    service: Service, session: Session, asking: Asking, document: Document, took: dict[str, float], started: float
) -> Document:
    """The answer with predictions, if a head was named, and with its times."""
    before = time.perf_counter()
    if asking.head is not None and document["results"]:
        ids = [result["id"] for result in document["results"]]
        for result, prediction in zip(
            document["results"], await service.run(predictions, session, asking.head, ids), strict=True
        ):
            result["prediction"] = prediction
    ended = time.perf_counter()
    rerank = 1000 * (ended - before) if asking.head is not None else 0.0
    document["took_ms"] = answers.times(took, rerank=rerank, total=1000 * (ended - started))
    return document


def _predictions_of(session: Session, request: PredictRequest) -> list[Document]:
    found = predictions(session, request.head, request.ids, contributions=request.contributions)
    missing: Document = {"class": None, "probability": None, "contributions": {}}
    return [{"id": own, **(one or missing)} for own, one in zip(request.ids, found, strict=True)]


def predictions(session: Session, head: str, ids: list[str], *, contributions: bool = True) -> list[Document | None]:
    """What a head says of items (n,): None for those that have none of its inputs.

    Raises
    ------
    UsageError
        No such head, or no such item.
    """
    record, rows = session.head(head), session.store.items.rows_of(ids)
    has = session.sees(record, rows)
    explained = contributions and len(record.head.dims_) <= EXACT_INPUTS
    told = predict_rows(record, session.store, rows[has], contributions=explained).to_rows()
    found: list[Document | None] = [None] * len(rows)
    for at, row in zip(np.flatnonzero(has).tolist(), told, strict=True):
        found[at] = {
            "class": row["prediction"],
            "probability": row.get("probability"),
            "contributions": row.get("contributions", {}),
        }
    return found
