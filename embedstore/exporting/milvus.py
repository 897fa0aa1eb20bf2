"""Milvus: a collection of a server, or of one file through Milvus Lite.

Metadata are dynamic fields, so that filters name them and a column of any kind can come later.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from embedstore.errors import UsageError
from embedstore.exporting.base import ID, RECORD, VERSION, Array, Found, Int, Plan, Slice, VectorColumn, check_record
from embedstore.exporting.engine import OPENING, EngineExporter, engine_errors
from embedstore.exporting.json_values import json_rows
from embedstore.registry import require
from embedstore.spec import EncoderSpec

if TYPE_CHECKING:
    import pyarrow as pa

ROW = "embedstore_row"
"""The item's row in the store, by ranges of which a collection is read: an iterator over texts stumbles over some of them."""
TOKEN = "MILVUS_TOKEN"
LONGEST = 65535  # bytes of a VARCHAR
WINDOW = 8192  # rows read at once; a query answers with 16,384 items at most
LOGS = ("pymilvus", "milvus_lite", "grpc._server")
"""What they log as an error is raised, too, or was asked of Milvus Lite in vain."""
FLAT, DEFAULT = "FLAT", "AUTOINDEX"
NUMBERED = 256
"""Items in one filter."""


class MilvusExporter(EngineExporter):
    """A collection of Milvus 3: http://HOST:19530 (token in MILVUS_TOKEN), or a file NAME.db"""

    def __init__(self, out: str) -> None:
        super().__init__(out)
        self._lite = "://" not in out
        if self._lite and not out.endswith(".db"):
            raise UsageError(
                f"{out}: Milvus Lite keeps a database in a file that ends in .db; for a server give http://HOST:PORT."
            )
        if self._lite:
            self.dtypes, self.missing_is_zeros = ("float32",), True
        self._client: Any = None
        self._columns: list[str] = []

    def column_of(self, space: str) -> str:
        plain = re.sub(r"[^0-9A-Za-z_]", "_", f"{space}_vector")
        return f"v_{plain}" if plain[0].isdigit() else plain

    def spaces(self, specs: Mapping[str, EncoderSpec]) -> list[str]:
        self._columns = [self.column_of(space) for space in specs]
        if len(set(self._columns)) < len(self._columns):
            raise UsageError("Two spaces have one name in Milvus, which takes letters, digits and '_'. Name one: --space NAME.")
        return list(specs)

    def metadata_name(self, column: str) -> str:
        return column.lstrip("$") or "unnamed"  # such names are Milvus's own

    @property
    def own_columns(self) -> tuple[str, ...]:
        return (*super().own_columns, ROW, *map(_present, self._columns))

    def open(self, plan: Plan) -> None:
        pymilvus = require("pymilvus", extra="milvus")
        if self._lite:
            require("milvus_lite", extra="milvus")
        for log in LOGS:
            logging.getLogger(log).setLevel(logging.CRITICAL + 1)
        self._plan, self._types = plan, pymilvus.DataType
        self.begin(plan)
        if plan.longest_id > LONGEST:
            raise UsageError(
                f"An id of the store has {plan.longest_id:,} bytes; a key of Milvus holds {LONGEST:,}. Give it a shorter id."
            )
        with engine_errors(self.where, OPENING):
            self._client = pymilvus.MilvusClient(self.out, token=os.environ.get(TOKEN, ""))
            if self._client.has_collection(plan.name):
                check_record(self._record(), plan, self.where, "Choose another collection: --name NAME.")
            else:
                self._create()
            if not self._client.list_indexes(plan.name):  # a run was killed between two indexes
                self._client.create_index(plan.name, self._indexes(FLAT))
            self._client.load_collection(plan.name)

    def _record(self) -> Any:
        """What the collection keeps: in its description, and, for Milvus Lite, which drops that, in a property."""
        told = self._client.describe_collection(self._plan.name)
        kept = (told.get("properties") or {}).get(RECORD) or told.get("description") or "null"
        try:
            return json.loads(kept)
        except ValueError:
            return None

    def _create(self) -> None:
        record = json.dumps(self._plan.record)
        schema = self._client.create_schema(enable_dynamic_field=True, auto_id=False, description=record)
        schema.add_field(ID, self._types.VARCHAR, is_primary=True, max_length=LONGEST)
        schema.add_field(VERSION, self._types.INT64)
        schema.add_field(ROW, self._types.INT64)
        for column in self._plan.vectors:
            kind = self._types.FLOAT16_VECTOR if column.dtype == np.float16 else self._types.FLOAT_VECTOR
            schema.add_field(column.column, kind, dim=column.dim, nullable=True)
            schema.add_field(_present(column.column), self._types.BOOL)
        self._client.create_collection(
            self._plan.name,
            schema=schema,
            index_params=self._indexes(FLAT),
            properties={RECORD: record},
            consistency_level="Strong",
        )

    def _indexes(self, kind: str) -> Any:
        params = self._client.prepare_index_params()
        for column in self._plan.vectors:
            params.add_index(column.column, index_type=kind, metric_type="COSINE", index_name=column.column)
        return params

    def held(self) -> Iterator[tuple[list[str], Int]]:
        lo = 0
        while lo <= self._plan.last_row or self._count(f"{ROW} >= {lo}"):  # an earlier export may have been of a longer store
            yield self._ids(f"{ROW} >= {lo} and {ROW} < {lo + WINDOW}")
            lo += WINDOW

    def _ids(self, condition: str) -> tuple[list[str], Int]:
        found = self._client.query(self._plan.name, filter=condition, output_fields=[ID, VERSION], limit=2 * WINDOW)
        return [entity[ID] for entity in found], np.asarray([entity[VERSION] for entity in found], np.int64)

    def write(self, items: Slice, known: Sequence[str]) -> None:
        payloads = json_rows(items.metadata)
        vectors = {column.column: self._values(items, column) for column in self._plan.vectors}
        entities = [
            {
                **payloads[i],
                ID: name,
                VERSION: int(items.versions[i]),
                ROW: int(items.rows[i]),
                **{column: values[i] for column, values in vectors.items()},
                **{_present(column): bool(items.present[column][i]) for column in vectors},
            }
            for i, name in enumerate(items.ids)
        ]
        self._client.upsert(self._plan.name, entities)

    def _values(self, items: Slice, column: VectorColumn) -> list[Any]:
        """Vectors as pymilvus takes them, None where an item has none."""
        vectors, present = items.vectors[column.column], items.present[column.column]
        values: list[Any] = list(vectors) if column.dtype == np.float16 else vectors.tolist()
        if self._lite and not present.any():
            return values  # it takes no request without a vector in a column; the zeros are what it would give back for None
        return [value if there else None for value, there in zip(values, present, strict=True)]

    def remove(self, ids: Sequence[str]) -> None:
        for condition in _among(ids):
            self._client.delete(self._plan.name, filter=condition)

    def finish(self) -> None:
        self._client.flush(self._plan.name)

    def counts(self) -> tuple[int, dict[str, int] | None]:
        return self._count(""), {c.column: self._count(_with(c.column)) for c in self._plan.vectors}

    def _count(self, condition: str) -> int:
        return int(self._client.query(self._plan.name, filter=condition, output_fields=["count(*)"])[0]["count(*)"])

    def fetch(self, ids: Sequence[str]) -> dict[str, Found]:
        found = {}
        for condition in _among(ids):
            for entity in self._client.query(self._plan.name, filter=condition, output_fields=["*"]):
                vectors = {column.column: _vector(entity.get(column.column), column) for column in self._plan.vectors}
                found[entity[ID]] = Found(entity, vectors)
        return found

    def prepare(self, exact: bool) -> bool:
        """A search is exact over a FLAT index, which a new collection has; then it gets the index that Milvus chooses."""
        column = self._plan.vectors[0].column
        held = (self._client.describe_index(self._plan.name, column) or {}).get("index_type")
        if exact and held != FLAT and not self._lite:
            self.notes.append("exact search was not measured: the collection has its index already")
            return False
        if held != (wanted := FLAT if exact else DEFAULT):
            self._client.release_collection(self._plan.name)
            while names := self._client.list_indexes(self._plan.name):  # Milvus Lite drops all of them at once
                self._client.drop_index(self._plan.name, names[0])
            self._client.create_index(self._plan.name, self._indexes(wanted))
            self._client.load_collection(self._plan.name)
        return True

    def nearest(self, column: str, queries: Array, k: int, *, exact: bool) -> list[list[str]]:
        dtype = next(planned.dtype for planned in self._plan.vectors if planned.column == column)
        data = list(queries.astype(dtype)) if dtype == np.float16 else queries.tolist()
        condition = _with(column) if self._lite else ""  # which keeps zeros for what is not there, and finds them
        found = self._client.search(self._plan.name, data, anns_field=column, limit=k, output_fields=[ID], filter=condition)
        return [[hit["entity"][ID] for hit in hits] for hits in found]

    def kept(self, metadata: pa.Table) -> list[dict[str, Any]]:
        return json_rows(metadata)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()


def _present(column: str) -> str:
    """The field that says whether an item has a vector in a column."""
    return f"{column}_present"


def _with(column: str) -> str:
    return f"{_present(column)} == true"


def _among(ids: Sequence[str]) -> Iterator[str]:
    """Filters that name all of `ids`; JSON's escapes are Milvus's, too."""
    for lo in range(0, len(ids), NUMBERED):
        yield f"{ID} in {json.dumps(list(ids[lo : lo + NUMBERED]), ensure_ascii=False)}"


def _vector(value: Any, column: VectorColumn) -> Array | None:
    """A vector as Milvus returns it."""
    if isinstance(value, list) and value and isinstance(value[0], bytes):
        value = value[0]
    if isinstance(value, bytes):
        return np.frombuffer(value, column.dtype)
    return None if value is None else np.asarray(value, column.dtype)
