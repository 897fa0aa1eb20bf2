"""From a request to a question that search takes, and from what search found to the document that is sent."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.errors import UsageError
from embedstore.retrieval.contents import Contents
from embedstore.retrieval.query_vector import QueryVector
from embedstore.retrieval.search_options import SearchOptions
from embedstore.retrieval.search_result import Hit, SearchResult
from embedstore.serving.models import FILES, Asking, Query, SearchRequest
from embedstore.serving.own_files import HEARD, seen_of
from embedstore.serving.session import Session
from embedstore.serving.wording import in_json

Rows = npt.NDArray[np.int64]
Document = dict[str, Any]

COPIES = 0.98
"""Cosine from which on results are folded."""


def question(
    session: Session, asking: Asking, *, query: Query | None = None, files: Mapping[str, Contents] | None = None
) -> SearchOptions:
    """What a request asks, as search takes it; of `query` and `files` (by modality) one is given.

    Raises
    ------
    UsageError
        Something in it cannot be right for this store.
    """
    given: dict[str, Any] = dict(files) if files is not None else _queries(query)
    return SearchOptions(
        **given,
        like=asking.positive or None,
        unlike=asking.negative or None,
        space=asking.space,
        spaces=asking.weights or None,
        where=session.where(asking.filter),
        columns=[*session.payloads, *session.columns],
        k=asking.k,
        offset=asking.offset,
        min_score=asking.min_score,
        diversity=asking.diversity,
        fold=COPIES if asking.fold else None,
        recall=1.0 if asking.exact else None,
    )


def _queries(query: Query | None) -> Document:
    if query is None:
        return {}
    for modality in FILES:
        if (encoded := getattr(query, modality)) is not None:
            try:
                return {modality: Contents(base64.b64decode(encoded, validate=True))}
            except (binascii.Error, ValueError) as error:
                raise UsageError(
                    f"query.{modality} is not base64 ({error}). Upload the file: POST /v1/search/upload."
                ) from None
    if query.vector is not None:
        return {"vector": QueryVector(np.asarray(query.vector, np.float64), query.fingerprint)}
    return {"id": query.id} if query.id is not None else {"text": query.text}


def browses(request: SearchRequest) -> bool:
    """Whether nothing is searched for: items come in the order of the store."""
    return request.query is None and not request.positive and not request.negative


def browsed(session: Session, asking: Asking) -> Document:
    """A page of the items that match the filter, in the order of the store."""
    rows = session.matching(session.where(asking.filter))
    page = rows[asking.offset : asking.offset + asking.k]
    return {
        "generation": session.generation,
        "space": None,
        "results": items(session, page, offset=asking.offset),
        "total": len(rows),
        "index": {"exact": True, "type": "flat", "generation": None, "recall": 1.0},
        "fingerprint": None,
    }


def found(session: Session, result: SearchResult) -> Document:
    """What search found."""
    spaces = [session.space(name) for name in result.space.split(" + ")]
    numbers = [index["generation"] for space in spaces if (index := session.index_of(space))]
    used = result.index
    told = {"note": result.note and in_json(result.note), "alignment": result.alignment, "aligned": result.aligned}
    return {
        "generation": session.generation,
        "space": result.space,
        "results": _results(session, np.array([hit.row for hit in result.results], np.int64), result.results),
        "index": {
            **{key: used[key] for key in ("exact", "type", "recall", "low", "plan") if key in used},
            "generation": numbers[0] if numbers else None,
        },
        "fingerprint": " + ".join(space.fingerprint for space in spaces),
        **{key: value for key, value in told.items() if value},
    }


def times(took: Mapping[str, float], *, rerank: float = 0.0, total: float) -> dict[str, float]:
    """Milliseconds of each step; opening an index counts as searching, waiting for others in the total alone."""
    search = took.get("load", 0.0) + took.get("search", 0.0)
    parts = {"encode": took.get("encode", 0.0), "search": search, "rerank": rerank, "fetch": took.get("fetch", 0.0)}
    return {name: round(value, 2) for name, value in {**parts, "total": total}.items()}


def items(
    session: Session, rows: Rows, *, scores: Sequence[float] | None = None, offset: int = 0, more: Sequence[Document] = ()
) -> list[Document]:
    """Items (n,) as results, in the order given.

    Parameters
    ----------
    scores : (n,), optional
    more : sequence of n mappings, optional
        What else each has.
    """
    columns = [*session.payloads, *session.columns]
    ids, *values = session.store.items.lookup.values(rows, ["id", *columns])
    hits = [
        Hit(offset + i + 1, own, 0.0, {c: column[i] for c, column in zip(columns, values, strict=True)})
        for i, own in enumerate(ids)
    ]
    documents = _results(session, rows, hits)
    for i, document in enumerate(documents):
        document["score"] = None if scores is None else round(float(scores[i]), 6)
        document.update(more[i] if more else {})
    return documents


def _results(session: Session, rows: Rows, hits: Sequence[Hit]) -> list[Document]:
    """Hits, which are the items (n,), as they are sent."""
    payloads = {name: [hit.metadata[name] for hit in hits] for name in session.payloads}
    return [_result(session, hit, seen) for hit, seen in zip(hits, seen_of(session, rows, payloads), strict=True)]


def _result(session: Session, hit: Hit, seen: Sequence[str]) -> Document:
    return {
        "id": hit.id,
        "rank": hit.rank,
        "score": hit.score,
        "metadata": {name: hit.metadata[name] for name in session.columns},
        "kind": seen[0] if seen else "text",
        "media": [name for name in HEARD if name in seen],
        "text": hit.metadata.get("text"),
        "folded": hit.folded,
        **({"piece": hit.piece.to_dict()} if hit.piece else {}),
    }
