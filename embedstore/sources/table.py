"""A table as a source: CSV, TSV, JSONL or Parquet, read by DuckDB as a stream."""

from __future__ import annotations

import io
import os
import posixpath
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from embedstore._sql import connect
from embedstore.errors import DuplicateIdError, SourceError, UsageError, one_line
from embedstore.sources.base import BATCH_BYTES, BATCH_ROWS, BYTES, ID, free_name, glob_escape
from embedstore.sources.features import PATH, features_of, named_labels, payload_bytes, payload_uris
from embedstore.sources.files import TIMEOUT, absolute, folder_of, is_url, relative_to, remote, resolve
from embedstore.spec import MODALITIES

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

T = TypeVar("T")

_READERS = {
    ".csv": "csv", ".tsv": "csv", ".jsonl": "json", ".ndjson": "json", ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip
_DELIMITERS = ",;\t|"
LONGEST_LINE = 16 << 20
_READ_AHEAD = 1 << 20


class TableSource:
    """The rows of a table, in their order.

    Columns called id, image, text, audio and video are recognised; others can be named. Paths are relative to the
    table's folder; in Parquet a column may hold the files themselves (bytes, or a struct of bytes and path). Every other
    column becomes metadata with its type; class labels that `datasets` wrote become their names. Without an id, the first
    column of paths that is there gives the ids, else the row number.

    Parameters
    ----------
    path : path
        ``.csv``, ``.tsv``, ``.jsonl`` or ``.parquet``; or its URL.
    columns : mapping, optional
        ``"id"`` or modality → name of the table's column.
    timeout : float
        Seconds that opening a URL may take.
    """

    def __init__(
        self, path: str | os.PathLike[str], columns: Mapping[str, str] | None = None, *, timeout: float = TIMEOUT
    ) -> None:
        self.path = os.fspath(path)
        self._timeout = timeout
        self._kind = _READERS.get(posixpath.splitext(self.path)[1].lower(), "")
        if not self._kind:
            raise SourceError(f"{self.path}: expected a file ending in {', '.join(_READERS)}.")
        if not is_url(self.path) and not os.path.isfile(self.path):
            raise SourceError(f"{self.path} does not exist.")
        if self._size() == 0:
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
        return self.path

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(m for m in MODALITIES if m in self._columns)

    def count(self) -> int | None:
        return int(self._fetch(f"SELECT count(*) FROM {self._scan()}")[0][0])

    def batches(self) -> Iterator[pa.RecordBatch]:
        self._refuse_duplicates()
        if not (held := self._payload_columns()):
            yield from (self._finish(batch, {}) for batch in self._rows())
            return
        for batch, payloads in _side_by_side(self._rows(), self._payloads(list(held.values()))):
            yield self._finish(batch, {m: payloads.column(column) for m, column in held.items()})

    def _rows(self) -> Iterator[pa.RecordBatch]:
        """All but the payloads that the table holds itself."""
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
                yield batch

    def _payload_columns(self) -> dict[str, str]:
        """Modality → column, of those that hold the files themselves."""
        return {m: c for m, c in self._columns.items() if m not in (ID, "text") and _holds_bytes(self._types[c])}

    def _payloads(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Columns of payloads in batches of about `BATCH_BYTES`; DuckDB would hold whole row groups of them."""
        import pyarrow as pa

        try:
            with self._parquet() as file:
                mean = _bytes_of(file.metadata, columns) / max(1, file.metadata.num_rows)
                rows = min(BATCH_ROWS, max(1, int(BATCH_BYTES / max(1, mean))))
                yield from file.iter_batches(batch_size=rows, columns=columns, use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise self._unreadable(error) from error

    def _parquet(self) -> Any:
        import pyarrow.parquet as pq

        options = {"pre_buffer": False, "buffer_size": _READ_AHEAD}
        if not is_url(self.path):
            return pq.ParquetFile(self.path, **options)
        return remote(self.path, self._timeout, lambda fs, inner: pq.ParquetFile(inner, filesystem=fs, **options))

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
            if column in self._payload_columns().values():
                path = "NULL::VARCHAR" if self._types[column] == "BLOB" else f"{_quoted(column)}.{PATH}"
                terms.append(f"{path} AS {modality}")
            else:
                terms.append(f"{self._string(column)} AS {modality}")
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

    def _finish(self, batch: pa.RecordBatch, held: Mapping[str, pa.Array]) -> pa.RecordBatch:
        """Empty payloads become null, paths absolute, class labels names; payloads that the table holds are added."""
        import pyarrow as pa
        import pyarrow.compute as pc

        folder = folder_of(self.path)
        for modality in self.modalities:
            column = batch.column(modality)
            if modality in held:
                payloads = payload_bytes(held[modality])
                ids = batch.column(ID).to_pylist()
                uris = payload_uris(column.to_pylist(), payloads, ids, container=absolute(self.path), folder=folder)
                batch = _replaced(batch, modality, uris).append_column(modality + BYTES, payloads)
                continue
            blank = pc.equal(pc.utf8_trim_whitespace(column), "")
            column = pc.if_else(blank, pa.scalar(None, column.type), column)
            if modality != "text":
                column = pa.array([p if p is None else relative_to(folder, p) for p in column.to_pylist()], pa.string())
            batch = _replaced(batch, modality, column)
        for name, feature in self._features.items():
            if name in self._types and name not in self._columns.values():
                batch = _replaced(batch, free_name(name), named_labels(batch.column(free_name(name)), feature))
        return batch

    @cached_property
    def _features(self) -> dict[str, dict[str, Any]]:
        """Class labels that the package `datasets` described in the file."""
        import pyarrow as pa

        if self._kind != "parquet":
            return {}
        try:
            with self._parquet() as file:
                features = features_of(file.schema_arrow)
        except (pa.ArrowException, OSError) as error:
            raise self._unreadable(error) from error
        return {name: feature for name, feature in features.items() if feature.get("_type") == "ClassLabel"}

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
        file = _literal(glob_escape(self.path))
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
            f"sample_size=-1, max_line_size={LONGEST_LINE}, buffer_size={LONGEST_LINE}{types})"
        )

    def _header(self) -> list[str]:
        return self.__dict__.setdefault("_header_names", self._read(_header_of(self._delimiter())))  # type: ignore[no-any-return]

    def _delimiter(self) -> str:
        if self.path.lower().endswith(".tsv"):
            return "\t"
        line = self._read(lambda file: file.readline())
        best = max(_DELIMITERS, key=line.count)
        return best if best in line else "\x1f"  # one column: nothing delimits

    def _read(self, work: Callable[[io.TextIOWrapper], T]) -> T:
        """`work` of the opened text file."""

        def opened(raw: Any) -> T:
            with io.TextIOWrapper(raw, encoding="utf-8-sig", errors="replace", newline="") as file:
                return work(file)

        if is_url(self.path):
            return remote(self.path, self._timeout, lambda fs, inner: opened(fs.open(inner, "rb")))
        return opened(open(self.path, "rb"))

    def _size(self) -> int:
        if is_url(self.path):
            return remote(self.path, self._timeout, lambda fs, inner: int(fs.size(inner) or 0))
        return os.path.getsize(self.path)

    def _query(self, sql: str) -> duckdb.DuckDBPyRelation:
        import duckdb

        connection = connect()
        try:
            if is_url(self.path):
                connection.register_filesystem(resolve(self.path)[0])
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


def _header_of(delimiter: str) -> Callable[[io.TextIOWrapper], list[str]]:
    import csv

    return lambda file: next(csv.reader(file, delimiter=delimiter), [])


def _holds_bytes(kind: str) -> bool:
    """Whether a column of this DuckDB type holds files: bytes, or a struct of bytes and path."""
    return kind == "BLOB" or (kind.startswith("STRUCT(") and "bytes BLOB" in kind and "path VARCHAR" in kind)


def _bytes_of(metadata: Any, columns: list[str]) -> int:
    """Bytes of `columns` in a Parquet file, uncompressed."""
    groups = (metadata.row_group(i) for i in range(metadata.num_row_groups))
    chunks = (group.column(i) for group in groups for i in range(group.num_columns))
    return sum(c.total_uncompressed_size for c in chunks if c.path_in_schema.startswith(tuple(columns)))


def _side_by_side(
    rows: Iterator[pa.RecordBatch], payloads: Iterator[pa.RecordBatch]
) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch]]:
    """Two streams of the same rows, cut so that they go together."""
    rest = None
    for piece in payloads:
        while piece.num_rows:
            rest = rest if rest is not None and rest.num_rows else next(rows)
            n = min(piece.num_rows, rest.num_rows)
            yield rest.slice(0, n), piece.slice(0, n)
            rest, piece = rest.slice(n), piece.slice(n)


def _replaced(batch: pa.RecordBatch, name: str, column: pa.Array) -> pa.RecordBatch:
    return batch.set_column(batch.schema.get_field_index(name), name, column)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(value: Any) -> str:
    return "'" + str(value).replace("'", "''") + "'"
