"""What requests to the server look like: checked when they arrive, and described in ``/openapi.json``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

IDS = 1000
"""Ids that a request may name in one list."""
DIMENSIONS = 65_536
CHARACTERS = 10_000
MOST = 1000
"""Results of one request."""
DEEPEST = 10_000
"""Results that may be skipped: who wants more wants another filter."""
FOLDED = 3000
"""Results that near copies are folded of: each is compared with all before it."""

FILES = ("image", "audio", "video")
"""What may be searched by as a file."""

Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Id = Annotated[str, StringConstraints(min_length=1, max_length=2000)]
Ids = Annotated[list[Id], Field(max_length=IDS)]
Scalar = str | int | float | bool
Count = Annotated[int, Field(ge=1, le=MOST)]
Offset = Annotated[int, Field(ge=0, le=DEEPEST)]


class Strict(BaseModel):
    """A request: nothing unknown, nothing retyped, no NaN."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True)


class Condition(Strict):
    """One condition of a filter."""

    field: Name = Field(examples=["label"])
    op: Literal["=", "!=", "<", "<=", ">", ">=", "in", "contains", "missing"] = Field(examples=["="])
    value: Scalar | Annotated[list[Scalar], Field(max_length=IDS)] | None = Field(None, examples=["animals"])


Filter = Annotated[list[Condition], Field(max_length=32)]


class Query(Strict):
    """What to search for: one of these."""

    id: Id | None = None
    text: Annotated[str, StringConstraints(max_length=CHARACTERS)] | None = Field(None, examples=["a house by the sea"])
    vector: Annotated[list[float], Field(min_length=1, max_length=DIMENSIONS)] | None = None
    image: str | None = Field(None, description="An image file's bytes in base64.")
    audio: str | None = Field(None, description="A sound file's bytes in base64.")
    video: str | None = Field(None, description="A video file's bytes in base64.")
    fingerprint: Name | None = Field(None, description="Of the encoder that made the vector.")

    @model_validator(mode="after")
    def _one(self) -> Query:
        given = [name for name in ("id", "text", "vector", *FILES) if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"name one of id, text, vector, {', '.join(FILES)}; got {' and '.join(given) or 'none'}")
        if self.fingerprint is not None and self.vector is None:
            raise ValueError("fingerprint belongs to a vector")
        return self


class Asking(Strict):
    """How to search, whatever for."""

    positive: Ids | None = Field(None, description="Ids of examples to go towards.")
    negative: Ids | None = Field(None, description="Ids of examples to keep away from.")
    space: Name | None = None
    weights: dict[Name, Annotated[float, Field(gt=0, le=1e6)]] | None = Field(
        None, max_length=16, description="Search these spaces instead of one, joined with these weights."
    )
    filter: Filter | None = None
    k: Count = 10
    offset: Offset = 0
    min_score: float | None = None
    diversity: Annotated[float, Field(ge=0, le=1)] = 0.0
    exact: bool = False
    fold: bool = Field(False, description="Show one of near copies.")
    head: Name | None = Field(None, description="Add the predictions of this head.")

    @model_validator(mode="after")
    def _spaces(self) -> Asking:
        if self.space is not None and self.weights:
            raise ValueError("name one space, or the weights of several; not both")
        return self

    @model_validator(mode="after")
    def _folded(self) -> Asking:
        if self.fold and self.offset + self.k > FOLDED:
            raise ValueError(
                f"near copies are folded among the first {FOLDED:,} results; got offset + k = {self.offset + self.k:,}: "
                "leave out fold, or ask with a filter"
            )
        return self


class SearchRequest(Asking):
    """A search; without query and examples, items come in the order of the store."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"query": {"text": "a house by the sea"}, "k": 5},
                {"query": {"id": "item-1"}, "k": 5, "filter": [{"field": "label", "op": "=", "value": "animals"}]},
            ]
        }
    )
    query: Query | None = None


class BatchRequest(Strict):
    """Many searches at once."""

    queries: Annotated[list[SearchRequest], Field(min_length=1, max_length=256)]


class FacetsRequest(Strict):
    """Values of columns with counts, among the items that match a filter."""

    filter: Filter | None = None
    columns: Annotated[list[Name], Field(max_length=64)] | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 20


class PredictRequest(Strict):
    """What a head says of some items."""

    head: Name
    ids: Annotated[list[Id], Field(min_length=1, max_length=IDS)]
    contributions: bool = False


class TeachRequest(Strict):
    """Marked items, of which a linear head is made that ranks all others."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"classes": {"+": ["item-1"], "-": ["item-2"]}, "k": 20}]})
    classes: Annotated[dict[Name, Ids], Field(min_length=1, max_length=64)]
    space: Name | None = None
    spaces: Annotated[list[Name], Field(min_length=1, max_length=8)] | None = None
    rank: Name | None = Field(None, description="Rank by this class; by default +, or the first by name but -.")
    filter: Filter | None = None
    k: Count = 50
    offset: Offset = 0
    uncertain: Annotated[int, Field(ge=0, le=100, description="How many items to mark next are named.")] = 0


class SaveRequest(Strict):
    """A head made of marked items, to be kept in the store."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=100)]
    classes: Annotated[dict[Name, Ids], Field(min_length=1, max_length=64)]
    space: Name | None = None
    spaces: Annotated[list[Name], Field(min_length=1, max_length=8)] | None = None


class DuplicatesRequest(Strict):
    """Near copies among all items of a space."""

    space: Name | None = None
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.98
    limit: Annotated[int, Field(ge=1, le=10_000)] = 100


class MapItemsRequest(Strict):
    """Items at points of a map."""

    key: Name
    rows: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=IDS)]


class Wrong(BaseModel):
    """Why a request was not answered, and what to do."""

    error: str
    next: str


Document = dict[str, Any]
