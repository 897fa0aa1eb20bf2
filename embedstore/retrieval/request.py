"""What a search is asked for, and what it answers."""

from __future__ import annotations

import math
import numbers
import operator
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

import numpy.typing as npt

from embedstore.errors import UsageError
from embedstore.retrieval.queries import QueryVector

FUSIONS = ("score", "rrf")


class Query(TypedDict, total=False):
    """What to search for, and how to answer; see `search`."""

    text: str | Sequence[str] | None
    image: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None
    audio: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None
    id: str | Sequence[str] | None
    vector: QueryVector | npt.NDArray[Any] | None
    like: Sequence[str] | None
    unlike: Sequence[str] | None
    weights: Sequence[float] | None
    fusion: str
    space: str | None
    k: int
    offset: int
    where: str | None
    columns: Sequence[str] | None
    min_score: float | None
    diversity: float
    group_by: str | None
    per_group: int
    recall: float | None


@dataclass(frozen=True)
class Hit:
    """One result; `score` is the cosine to the query, or the fused score of several."""

    rank: int
    id: str
    score: float
    metadata: dict[str, Any]


@dataclass(frozen=True)
class SearchResult:
    """What `search` returns.

    Parameters
    ----------
    results : list of Hit
    space : str
        The space that was searched; several are joined by ``+``.
    took_ms : mapping of str to float
        ``encode`` (the query), ``load`` (indexes), ``search`` and ``fetch`` (ids and columns of the results).
    index : mapping
        ``type``, ``exact`` and ``recall``; ``plan`` in words. Where it is not exact also ``low``, the lower 95 % bound of the
        recall, and ``at``, the k that it was measured at.
    note : str, optional
        Something that the reader of the results should know.
    alignment : str, optional
        The saved alignment whose space was searched.
    aligned : list of str
        Spaces that an alignment makes and that the query could search too: ``space=NAME``. None is searched unasked.
    """

    results: list[Hit]
    space: str
    took_ms: dict[str, float] = field(default_factory=dict)
    index: dict[str, Any] = field(default_factory=lambda: {"type": "flat", "exact": True, "recall": 1.0})
    note: str | None = None
    alignment: str | None = None
    aligned: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The document of ``embedstore search --json``."""
        hits = [{"rank": h.rank, "id": h.id, "score": h.score, **_renamed(h.metadata)} for h in self.results]
        told = {"note": self.note, "alignment": self.alignment, "aligned": self.aligned}
        more = {key: value for key, value in told.items() if value}
        return {"results": hits, "space": self.space, "took_ms": self.took_ms, "index": self.index, **more}


def _renamed(metadata: dict[str, Any]) -> dict[str, Any]:
    """Metadata whose names are those of a hit's own values get an underscore, or as many as make them unique."""
    names = {}
    for name in metadata:
        free = name
        while free in ("rank", "id", "score") or (free != name and free in metadata):
            free += "_"
        names[name] = free
    return {names[name]: value for name, value in metadata.items()}


@dataclass(frozen=True)
class Wanted:
    """How to answer: the part of a `Query` that is not the question, checked."""

    fusion: str
    k: int
    offset: int
    min_score: float | None
    diversity: float
    group_by: str | None
    per_group: int
    recall: float | None

    @classmethod
    def of(cls, query: Query) -> Wanted:
        if unknown := [word for word in query if word not in Query.__annotations__]:
            raise UsageError(f"A search has no option {unknown[0]!r}. It has: {', '.join(Query.__annotations__)}.")
        k, offset = _whole(query.get("k", 10), "k", 1), _whole(query.get("offset", 0), "offset", 0)
        diversity = query.get("diversity", 0.0)
        if not _is_number(diversity) or not 0 <= diversity <= 1:
            raise UsageError(f"diversity should lie between 0 (nearest) and 1 (most different). Got {diversity!r} instead.")
        recall = query.get("recall")
        if recall is not None and (not _is_number(recall) or not 0 < recall <= 1):
            raise UsageError(f"recall should lie between 0 and 1. Got {recall!r} instead.")
        least = query.get("min_score")
        if least is not None and (not _is_number(least) or math.isnan(least)):
            raise UsageError(f"min_score should be a number. Got {least!r} instead.")
        fusion = query.get("fusion", FUSIONS[0])
        if fusion not in FUSIONS:
            raise UsageError(f"fusion should be one of {', '.join(FUSIONS)}. Got {fusion!r} instead.")
        per_group = _whole(query.get("per_group", 1), "per_group", 1)
        return cls(fusion, k, offset, least, diversity, query.get("group_by"), per_group, recall)

    @property
    def last(self) -> int:
        """How many results have to be known."""
        return self.offset + self.k


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _whole(value: Any, name: str, least: int) -> int:
    try:
        value = operator.index(value)
    except TypeError:
        raise UsageError(f"{name} should be a whole number. Got {value!r} instead.") from None
    if value < least:
        raise UsageError(f"{name} must be at least {least}. Got {value} instead.")
    return int(value)
