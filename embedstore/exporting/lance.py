"""LanceDB: a table of a database, on disk or in object storage."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from embedstore._core.sql import literal
from embedstore.errors import UsageError
from embedstore.exporting.arrow_tables import arrow_schema, arrow_table, found_in
from embedstore.exporting.base import ID, RECORD, VERSION, Array, Found, Int, Plan, Slice, check_record
from embedstore.exporting.engine import OPENING, EngineExporter, engine_errors, not_a_file
from embedstore.registry import require

if TYPE_CHECKING:
    import pyarrow as pa

NAMED_AT_ONCE = 1000
"""Ids in one filter."""
SCANNED = 65536


class LanceExporter(EngineExporter):
    """A table of LanceDB: a folder, or s3://, gs:// and az:// addresses"""

    holds: ClassVar[str] = "table"
    slice_bytes: ClassVar[int] = 64 << 20
    most_items: ClassVar[int] = 65536

    def metadata_name(self, column: str) -> str:
        return column.replace(".", "_")  # a dot reaches into a record there

    def column_of(self, space: str) -> str:
        return self.metadata_name(super().column_of(space))

    def open(self, plan: Plan) -> None:
        os.environ.setdefault("LANCEDB_LOG", "error")  # it warns of every new table
        lancedb = require("lancedb", extra="lance")
        self._plan = plan
        self.begin(plan)
        schema = versioned(arrow_schema(plan)).with_metadata({RECORD: json.dumps(plan.record)})
        not_a_file(self.out, "LanceDB")
        with engine_errors(self.where, OPENING):
            database = lancedb.connect(self.out)
            if plan.name in _tables(database):
                self._table = database.open_table(plan.name)
                self._check(schema)
            else:
                self._table = database.create_table(plan.name, schema=schema)

    def _check(self, schema: pa.Schema) -> None:
        """That the table is of an export like this one; columns that are new to it are added."""
        held = self._table.schema
        record = (held.metadata or {}).get(RECORD.encode())
        other = "Choose another table: --name NAME."
        check_record(json.loads(record) if record else None, self._plan, self.where, other)
        for field in schema:
            if field.name not in held.names:
                self._table.add_columns(field)
            elif held.field(field.name).type != field.type:
                raise UsageError(
                    f"{self.where} has {field.name!r} as {held.field(field.name).type}, the store as {field.type}. {other}"
                )
        for name in held.names:
            if name not in schema.names:
                self._table.drop_columns([name])

    def held(self) -> Iterator[tuple[list[str], Int]]:
        for batch in self._table.search().select([ID, VERSION]).to_batches(SCANNED):
            yield batch.column(ID).to_pylist(), np.asarray(batch.column(VERSION), np.int64)

    def write(self, items: Slice, known: Sequence[str]) -> None:
        if known:
            self.remove(known)
        table = arrow_table(self._plan, items).append_column(VERSION, [items.versions])
        self._table.add(table.select(self._table.schema.names))

    def remove(self, ids: Sequence[str]) -> None:
        for some in _parts(ids):
            self._table.delete(_among(some))

    def finish(self) -> None:
        if self._table.stats()["fragment_stats"]["num_small_fragments"] > 1:
            self._table.optimize()

    def counts(self) -> tuple[int, dict[str, int] | None]:
        names = [column.column for column in self._plan.vectors]
        return self._table.count_rows(), {name: self._table.count_rows(f"`{name}` IS NOT NULL") for name in names}

    def fetch(self, ids: Sequence[str]) -> dict[str, Found]:
        found: dict[str, Found] = {}
        for some in _parts(ids):
            found |= found_in(self._plan, self._table.search().where(_among(some)).limit(len(some)).to_arrow())
        return found

    @property
    def always_exact(self) -> bool:
        return not self._table.list_indices()

    def prepare(self, exact: bool) -> bool:
        if self.always_exact:
            self.notes.append("LanceDB looks at every vector until you make an index: create_index")
        return True

    def nearest(self, column: str, queries: Array, k: int, *, exact: bool) -> list[list[str]]:
        search: Any = self._table.search(list(queries), vector_column_name=column).distance_type("cosine").limit(k)
        if exact:
            search = search.bypass_vector_index()
        table = search.select([ID, "_distance"]).to_arrow()
        numbers = table.column("query_index").to_pylist() if len(queries) > 1 else [0] * table.num_rows
        found: list[list[str]] = [[] for _ in queries]
        for number, name in zip(numbers, table.column(ID).to_pylist(), strict=True):
            found[number].append(name)
        return found


def versioned(schema: pa.Schema) -> pa.Schema:
    """With the column of versions."""
    import pyarrow as pa

    return schema.append(pa.field(VERSION, pa.int64()))


def _tables(database: Any) -> set[str]:
    """The names of all tables, which are listed by pages."""
    found: set[str] = set()
    token = None
    while True:
        page = database.list_tables(page_token=token)
        found |= set(page.tables)
        token = page.page_token
        if not token:
            return found


def _parts(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for lo in range(0, len(ids), NAMED_AT_ONCE):
        yield ids[lo : lo + NAMED_AT_ONCE]


def _among(ids: Sequence[str]) -> str:
    return f"{ID} IN ({', '.join(map(literal, ids))})"
