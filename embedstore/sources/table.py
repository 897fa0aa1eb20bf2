"""A table as a source: CSV, TSV, JSONL or Parquet, read by DuckDB as a stream."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedstore.errors import DuplicateIdError, SourceError, UsageError, one_line
from embedstore.sources.base import BATCH_ROWS, ID, free_name, glob_escape
from embedstore.spec import MODALITIES

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

_READERS = {
    ".csv": "csv", ".tsv": "csv", ".jsonl": "json", ".ndjson": "json", ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip
_DELIMITERS = ",;\t|"


class TableSource:
    """The rows of a table, in their order.

    Columns called id, image, text, audio and video are recognised; others can be named. Paths are relative to the
    table's folder. Every other column becomes metadata with its type. Without an id, the first file column that is there
    gives the ids, else the row number.

    Parameters
    ----------
    path : path
        ``.csv``, ``.tsv``, ``.jsonl`` or ``.parquet``.
    columns : mapping, optional
        ``"id"`` or modality → name of the table's column.
    """

    def __init__(self, path: str | os.PathLike[str], columns: Mapping[str, str] | None = None) -> None:
        self.path = Path(path)
        self._kind = _READERS.get(self.path.suffix.lower(), "")
        if not self._kind:
            raise SourceError(f"{self.path}: expected a file ending in {', '.join(_READERS)}.")
        if not self.path.is_file():
            raise SourceError(f"{self.path} does not exist.")
        if self.path.stat().st_size == 0:
            raise SourceError(f"{self.path} is empty (0 bytes); expected a header and rows.")
        self._named = dict(columns or {})
        self._types = self._describe()
        self._columns = self._assign_columns(self._named)
        if not self.modalities:
            raise SourceError(
                f"{self.path} has no column called {', '.join(MODALITIES)}. Columns: {', '.join(self._types)}. "
                "Name one, such as --image-column NAME."
            )

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(m for m in MODALITIES if m in self._columns)

    def count(self) -> int | None:
        return int(self._fetch(f"SELECT count(*) FROM {self._scan()}")[0][0])

    def batches(self) -> Iterator[pa.RecordBatch]:
        self._refuse_duplicates()
        import duckdb

        try:
            reader = self._query(self._select()).to_arrow_reader(BATCH_ROWS)
        except duckdb.Error as error:
            raise self._unreadable(error) from error
        while True:
            try:
                batch = reader.read_next_batch()
            except StopIteration:
                return
            except Exception as error:
                raise self._unreadable(error) from error
            if batch.num_rows:
                yield self._finish(batch)

    def _assign_columns(self, named: Mapping[str, str]) -> dict[str, str]:
        by_lower = {name.lower(): name for name in reversed(self._types)}
        found = {word: by_lower[word] for word in (ID, *MODALITIES) if word in by_lower}
        for word, column in named.items():
            if column not in self._types:
                raise UsageError(f"{self.path} has no column {column!r}. Columns: {', '.join(self._types)}.")
            found = {w: c for w, c in found.items() if c != column} | {word: column}
        return found

    def _select(self) -> str:
        """One SELECT: id, payloads, metadata; typed, in order."""
        taken = set(self._columns.values())
        terms = [f"{self._id_expression()} AS {ID}"]
        for modality in self.modalities:
            column = self._columns[modality]
            raw = self._types[column] == "BLOB" and modality != "text"
            terms.append(f"{_quoted(column) if raw else self._string(column)} AS {modality}")
        terms += [f"{_quoted(c)} AS {_quoted(free_name(c))}" for c in self._types if c not in taken]
        return f"SELECT {', '.join(terms)} FROM {self._scan()}"

    def _id_expression(self) -> str:
        if ID in self._columns:
            return self._string(self._columns[ID])
        for modality in ("image", "video", "audio"):
            if modality in self._columns and self._types[self._columns[modality]] == "VARCHAR":
                return self._string(self._columns[modality])
        return "CAST(row_number() OVER () - 1 AS VARCHAR)"

    def _string(self, column: str) -> str:
        quoted = _quoted(column)
        return f"{quoted} ->> '$'" if self._types[column] == "JSON" else f"CAST({quoted} AS VARCHAR)"

    def _finish(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Empty payloads become null, paths absolute."""
        import pyarrow as pa
        import pyarrow.compute as pc

        folder = str(self.path.parent.absolute())
        for modality in self.modalities:
            column = batch.column(modality)
            if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
                continue
            blank = pc.equal(pc.utf8_trim_whitespace(column), "")
            column = pc.if_else(blank, pa.scalar(None, column.type), column)
            if modality != "text":
                column = pa.array([p if p is None else _absolute(folder, p) for p in column.to_pylist()], pa.string())
            batch = batch.set_column(batch.schema.get_field_index(modality), modality, column)
        return batch

    def _refuse_duplicates(self) -> None:
        """Before anything is embedded: every row has an id, and no two share one."""
        numbered = f"SELECT {self._id_expression()} AS {ID}, row_number() OVER () AS n FROM {self._scan()}"
        query = f"SELECT {ID}, min(n), max(n) FROM ({numbered}) GROUP BY {ID} HAVING count(*) > 1 OR {ID} IS NULL LIMIT 1"
        if not (found := self._fetch(query)):
            return
        value, first, last = found[0]
        if value is None:
            raise SourceError(f"{self.path}: row {first} has no id. Fill the column, or name another with --id-column.")
        raise DuplicateIdError(
            f"{self.path}: rows {first} and {last} both have the id {value!r}. "
            "Make ids unique, or name another column with --id-column."
        )

    def _describe(self) -> dict[str, str]:
        relation = self._query(f"SELECT * FROM {self._scan()} LIMIT 0")
        return dict(zip(relation.columns, map(str, relation.types), strict=True))

    def _scan(self) -> str:
        file = _literal(glob_escape(str(self.path)))
        if self._kind == "parquet":
            return f"read_parquet({file})"
        if self._kind == "json":
            return f"read_json({file}, format='newline_delimited', sample_size=-1, maximum_object_size=268435456)"
        header = self._header()
        lower = [c.lower() for c in header]
        if twice := [c for i, c in enumerate(header) if c.lower() in lower[:i]]:
            raise SourceError(f"{self.path}: two columns are called {twice[0]!r} (case does not count). Rename one.")
        strings = [c for c in header if c.lower() in (ID, *MODALITIES) or c in self._named.values()]
        types = ", types={" + ", ".join(f"{_literal(c)}: 'VARCHAR'" for c in strings) + "}" if strings else ""
        return (
            f"read_csv({file}, header=true, delim={_literal(self._delimiter())}, quote='\"', escape='\"', "
            f"sample_size=-1, max_line_size=16777216{types})"
        )

    def _header(self) -> list[str]:
        return self.__dict__.setdefault("_header_names", _read_header(self.path, self._delimiter()))  # type: ignore[no-any-return]

    def _delimiter(self) -> str:
        if self.path.suffix.lower() == ".tsv":
            return "\t"
        with open(self.path, encoding="utf-8-sig", errors="replace") as file:
            line = file.readline()
        best = max(_DELIMITERS, key=line.count)
        return best if best in line else "\x1f"  # one column: nothing delimits

    def _query(self, sql: str) -> duckdb.DuckDBPyRelation:
        import duckdb

        connection = duckdb.connect()
        try:
            return connection.sql(sql)
        except duckdb.Error as error:
            raise self._unreadable(error) from error

    def _fetch(self, sql: str) -> list[tuple[Any, ...]]:
        import duckdb

        try:
            return list(self._query(sql).fetchall())
        except duckdb.Error as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> SourceError:
        said = str(error).split("Possible Solution")[0].splitlines()
        reason = one_line(" ".join(line for line in said if not line.startswith("Original Line")))
        return SourceError(f"{self.path} cannot be read as {self._kind}: {reason}")


def _read_header(path: Path, delimiter: str) -> list[str]:
    import csv

    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        return next(csv.reader(file, delimiter=delimiter), [])


def _absolute(folder: str, path: str) -> str:
    return path if "://" in path else os.path.normpath(os.path.join(folder, path))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(value: Any) -> str:
    return "'" + str(value).replace("'", "''") + "'"
