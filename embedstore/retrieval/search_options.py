"""The options of `search`, checked when they are made.

Defaults and help of the command come from here, so nothing heavy is imported.
"""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypedDict

from embedstore._core.arguments import DEVICES, check_least, check_types, option, shown, strings
from embedstore.errors import UsageError
from embedstore.retrieval.contents import Contents

if TYPE_CHECKING:
    import numpy.typing as npt

    from embedstore.retrieval.query_vector import QueryVector


Paths = str | os.PathLike[str] | Contents | Sequence[str | os.PathLike[str] | Contents]
"""Files by their paths or contents."""
FUSIONS = ("score", "rrf")
BATCHED = ("space", "k", "where", "recall", "device")
"""Options that `search_batch` has, too; the others make one question."""


class Query(TypedDict, total=False):
    """The keywords of `Searcher.search`."""

    text: str | Sequence[str] | None
    image: Paths | None
    audio: Paths | None
    video: Paths | None
    id: str | Sequence[str] | None
    vector: "QueryVector | npt.NDArray[Any] | None"
    like: Sequence[str] | None
    unlike: Sequence[str] | None
    weights: Sequence[float] | None
    fusion: str
    space: str | None
    spaces: Mapping[str, float] | None
    k: int
    offset: int
    where: str | None
    columns: Sequence[str] | None
    min_score: float | None
    diversity: float
    group_by: str | None
    per_group: int
    fold: float | None
    recall: float | None


class Question(Query, total=False):
    """The keywords of `search`: the fields of `SearchOptions`."""

    device: str


@dataclass(frozen=True, kw_only=True, eq=False)
class SearchOptions:
    """What to search for, and how to answer; the documentation of `search` says what each option means.

    Raises
    ------
    UsageError
        A value that cannot be right, whatever the store.
    """

    text: str | Sequence[str] | None = None
    image: Paths | None = None
    audio: Paths | None = None
    video: Paths | None = None
    id: str | Sequence[str] | None = None
    vector: "QueryVector | npt.NDArray[Any] | None" = None
    like: Sequence[str] | None = None
    unlike: Sequence[str] | None = None
    weights: Sequence[float] | None = None
    fusion: str = option(FUSIONS[0], "How spaces are joined: score or rrf.")
    space: str | None = option(None, "The space to search.")
    spaces: Mapping[str, float] | None = None
    k: int = option(10, "How many results.", flag="-k")
    offset: int = option(0, "How many results to skip: the next page.")
    where: str | None = None
    columns: Sequence[str] | None = None
    min_score: float | None = option(None, "Leave out results below.")
    diversity: float = option(0.0, "0 nearest, 1 most different from one another.")
    group_by: str | None = option(None, "Column; each value is shown once.")
    per_group: int = 1
    fold: float | None = option(None, "Show one of results nearer to one another than this cosine, such as 0.98.")
    recall: float | None = option(None, "Operating point of the index; 1 is exact.")
    device: str = option("auto", DEVICES)

    @classmethod
    def of(cls, query: Mapping[str, Any]) -> "SearchOptions":
        """From keywords; an unknown one is refused with those there are."""
        known = [field.name for field in fields(cls)]
        if unknown := [word for word in query if word not in known]:
            raise UsageError(f"A search has no option {unknown[0]!r}. It has: {', '.join(known)}.")
        return cls(**query)

    def __post_init__(self) -> None:
        check_types(self)
        check_least(self, k=1, offset=0, per_group=1)
        if not 0 <= self.diversity <= 1:
            raise UsageError(f"diversity must lie between 0 (nearest) and 1 (most different). Got {self.diversity} instead.")
        if self.recall is not None and not 0 < self.recall <= 1:
            raise UsageError(f"recall must lie between 0 and 1. Got {self.recall} instead.")
        if self.fold is not None and not 0 < self.fold <= 1:
            raise UsageError(f"fold must be a cosine above 0 and at most 1, such as 0.98. Got {self.fold} instead.")
        if self.spaces is not None:
            self._check_spaces(self.spaces)
        if self.min_score is not None and math.isnan(self.min_score):
            raise UsageError("min_score must be a number. Got nan instead.")
        if self.fusion not in FUSIONS:
            raise UsageError(f"fusion must be one of {', '.join(FUSIONS)}. Got {self.fusion!r} instead.")
        if self.vector is not None and not _is_vector(self.vector):
            raise UsageError(f"vector must be a QueryVector, or numbers of shape (dim,). Got {shown(self.vector)} instead.")

    def _check_spaces(self, spaces: Mapping[str, float]) -> None:
        if self.space is not None:
            raise UsageError("Name one space, or spaces and the weight of each; not both.")
        if not spaces or not all(0 < weight < math.inf for weight in spaces.values()):
            raise UsageError(f"spaces must name spaces with weights above 0. Got {shown(dict(spaces))} instead.")

    @property
    def last(self) -> int:
        """How many results have to be known."""
        return self.offset + self.k


def _is_vector(value: Any) -> bool:
    """Whether it may be a vector: its numbers are looked at with the store."""
    known = any(hasattr(value, name) for name in ("__array__", "__len__", "values"))
    return known and not isinstance(value, str | bytes | Mapping)


def several(given: Any, what: str) -> list[Any]:
    """Ids, texts, or files: their paths, or bytes."""
    if given is None:
        return []
    several: list[Any] = list(given) if isinstance(given, Iterable) and not isinstance(given, (str, bytes)) else [given]
    if what in ("id", "text"):
        return strings(several, what)
    if wrong := [one for one in several if not isinstance(one, (str, os.PathLike, Contents))]:
        raise UsageError(f"{what} should be paths. Got {wrong[0]!r} ({type(wrong[0]).__name__}) instead.")
    return several
