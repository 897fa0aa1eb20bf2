"""Qdrant: a collection of a server, or of a folder in local mode, through one code path."""

from __future__ import annotations

import os
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from embedstore.exporting.base import ID, RECORD, VERSION, Array, Found, Int, Plan, Slice, check_record
from embedstore.exporting.engine import OPENING, EngineExporter, engine_errors, not_a_file
from embedstore.exporting.json_values import json_rows
from embedstore.registry import require

if TYPE_CHECKING:
    import pyarrow as pa

POINTS = uuid.UUID("7b1f3c62-5d0e-5a57-9a7e-2f6f0f4d8c11")
"""Namespace of point ids: an item's point is the UUIDv5 of its id."""
KEY = "QDRANT_API_KEY"
ADDRESSES = ("http://", "https://")
SCROLLED = 4096
TIMEOUT = 60


class QdrantExporter(EngineExporter):
    """A collection of Qdrant: http://HOST:6333 (key in QDRANT_API_KEY), or a folder"""

    slice_bytes: ClassVar[int] = 2 << 20  # JSON makes five times of it, and a server takes 32 MB
    most_items: ClassVar[int] = 1024
    keeps_length: ClassVar[bool] = False
    _client: Any = None

    def column_of(self, space: str) -> str:
        return space

    def open(self, plan: Plan) -> None:
        qdrant = require("qdrant_client", extra="qdrant")
        self._models, self._plan = qdrant.models, plan
        self.begin(plan)
        not_a_file(self.out, "Qdrant")
        with engine_errors(self.where, OPENING), _quiet():
            self._client = self._connected(qdrant)
            if self._client.collection_exists(plan.name):
                held = self._client.get_collection(plan.name).config.metadata
                check_record((held or {}).get(RECORD), plan, self.where, "Choose another collection: --name NAME.")
            else:
                self._create()

    @property
    def always_exact(self) -> bool:
        return not self.out.startswith(ADDRESSES)

    def _connected(self, qdrant: Any) -> Any:
        if not self.out.startswith(ADDRESSES):
            return qdrant.QdrantClient(path=self.out)
        return qdrant.QdrantClient(url=self.out, api_key=os.environ.get(KEY), timeout=TIMEOUT, check_compatibility=False)

    def _create(self) -> None:
        models = self._models
        params = {
            column.column: models.VectorParams(
                size=column.dim, distance=models.Distance.COSINE, datatype=models.Datatype(column.dtype.name)
            )
            for column in self._plan.vectors
        }
        self._client.create_collection(self._plan.name, vectors_config=params, metadata={RECORD: self._plan.record})

    def held(self) -> Iterator[tuple[list[str], Int]]:
        offset = None
        while True:
            points, offset = self._client.scroll(
                self._plan.name, limit=SCROLLED, offset=offset, with_payload=[ID, VERSION], with_vectors=False
            )
            ids = [point.payload[ID] for point in points]
            yield ids, np.asarray([point.payload[VERSION] for point in points], np.int64)
            if offset is None:
                return

    def write(self, items: Slice, known: Sequence[str]) -> None:
        models = self._models
        vectors = {name: x.astype(np.float32).tolist() for name, x in items.vectors.items()}
        payloads = json_rows(items.metadata)
        points = [
            models.PointStruct(
                id=point_of(name),
                vector={column: x[i] for column, x in vectors.items() if items.present[column][i]},
                payload={ID: name, VERSION: int(items.versions[i]), **payloads[i]},
            )
            for i, name in enumerate(items.ids)
        ]
        with _quiet():
            self._client.upsert(self._plan.name, points, wait=True)

    def remove(self, ids: Sequence[str]) -> None:
        self._client.delete(self._plan.name, self._models.PointIdsList(points=[point_of(name) for name in ids]), wait=True)

    def counts(self) -> tuple[int, dict[str, int] | None]:
        models = self._models
        found = {
            column.column: self._count(models.Filter(must=[models.HasVectorCondition(has_vector=column.column)]))
            for column in self._plan.vectors
        }
        return self._count(None), found

    def _count(self, condition: Any) -> int:
        return int(self._client.count(self._plan.name, count_filter=condition, exact=True).count)

    def fetch(self, ids: Sequence[str]) -> dict[str, Found]:
        found = {}
        for lo in range(0, len(ids), self.slice_items):
            points = [point_of(name) for name in ids[lo : lo + self.slice_items]]
            for point in self._client.retrieve(self._plan.name, points, with_payload=True, with_vectors=True):
                vectors = point.vector if isinstance(point.vector, Mapping) else {}
                arrays = {name: np.asarray(x, np.float32) for name, x in vectors.items()}
                found[point.payload[ID]] = Found(point.payload, arrays)
        return found

    def prepare(self, exact: bool) -> bool:
        return True

    def nearest(self, column: str, queries: Array, k: int, *, exact: bool) -> list[list[str]]:
        params = self._models.SearchParams(exact=True) if exact else None
        found = []
        with _quiet():
            for query in queries:
                answer = self._client.query_points(
                    self._plan.name, query=query.tolist(), using=column, limit=k, search_params=params, with_payload=[ID]
                )
                found.append([point.payload[ID] for point in answer.points])
        return found

    def kept(self, metadata: pa.Table) -> list[dict[str, Any]]:
        return json_rows(metadata)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()


def point_of(name: str) -> str:
    """The id of an item's point: the same for the same item, whoever exports it."""
    return str(uuid.uuid5(POINTS, name))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings that local mode is slow and always exact: users are told so in the docs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
