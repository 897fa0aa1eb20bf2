"""What a search answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from embedstore.evaluation.bootstrap import Score


@dataclass(frozen=True)
class Piece:
    """What of an item is nearest to the query, in a space with several vectors an item.

    Parameters
    ----------
    unit : str
        ``"frame"``, ``"window"``, ``"token"``, …
    number : int
        From 0 on.
    start, end : float, optional
        In seconds of the item.
    """

    unit: str
    number: int
    start: float | None = None
    end: float | None = None

    def __str__(self) -> str:
        if self.start is None:
            return f"{self.unit} {self.number + 1}"
        return _clock(self.start) if self.end in (None, self.start) else f"{_clock(self.start)}-{_clock(self.end)}"

    def to_dict(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if value is not None}


def _clock(seconds: float) -> str:
    """As ``1:07.5``."""
    minutes, rest = divmod(round(seconds, 1), 60)
    return f"{int(minutes)}:{rest:04.1f}"


@dataclass(frozen=True)
class Hit:
    """One result; `score` is the cosine to the query, or the fused score of several.

    `piece` is what of it is nearest, where it has several vectors. `folded` are the ids of results that are near copies of it,
    where a search folds them. `row` is its row in the store, as ``store.space(name).take([row])`` takes it.
    """

    rank: int
    id: str
    score: float
    metadata: dict[str, Any]
    folded: list[str] = field(default_factory=list)
    piece: Piece | None = None
    row: int = field(default=-1, compare=False)


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
        hits = [{"rank": h.rank, "id": h.id, "score": h.score, **_named(h)} for h in self.results]
        told = {"note": self.note, "alignment": self.alignment, "aligned": self.aligned}
        more = {key: value for key, value in told.items() if value}
        return {"results": hits, "space": self.space, "took_ms": self.took_ms, "index": self.index, **more}


def _named(hit: Hit) -> dict[str, Any]:
    """Metadata of a hit, what of it is nearest, and what is folded into it, if anything is.

    Columns whose names are those of a hit's own values get an underscore, or as many as make them unique.
    """
    own: dict[str, Any] = {"piece": hit.piece.to_dict()} if hit.piece else {}
    if hit.folded:
        own["folded"] = hit.folded
    names = {}
    for name in hit.metadata:
        free = name
        while free in ("rank", "id", "score", *own) or (free != name and free in hit.metadata):
            free += "_"
        names[name] = free
    return {**{names[name]: value for name, value in hit.metadata.items()}, **own}


def described(kind: str, at: int, plan: str, recall: Score | None) -> dict[str, Any]:
    """How a search was answered, as `SearchResult.index` has it."""
    if recall is None:
        return {"type": kind, "exact": True, "recall": 1.0, "plan": plan}
    return {"type": kind, "exact": False, "recall": recall.value, "low": recall.low, "at": at, "plan": plan}


def certainty(used: dict[str, Any]) -> tuple[bool, float]:
    """Of several searches that make one answer, the least certain one is told."""
    return used["exact"], used["recall"]
