"""Tables as DuckDB reads them: typed once by looking at every row, then streamed in little memory."""

from __future__ import annotations

import csv
import datetime
import io
import os
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from embedstore._sql import connect, literal, quoted
from embedstore.errors import SourceError, one_line
from embedstore.registry import require
from embedstore.sources.base import glob_escape
from embedstore.sources.files import TIMEOUT, is_url, remote, resolve
from embedstore.sources.records import record_of

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

T = TypeVar("T")

READERS = {
    ".csv": "csv", ".tsv": "csv", ".jsonl": "json", ".ndjson": "json", ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip
LINE, LONGEST_LINE = 2 << 20, 16 << 20
LONGEST_OBJECT = 256 << 20
"""Of JSON lines. Buffers are as large as lines may be, so the larger sizes are taken only where a line needs them."""
SNIFFING_MEMORY = "128MB"
"""What DuckDB may keep of a CSV while it looks at all of it; without a limit it keeps all of it."""
_DELIMITERS = ",;\t|"
_NEWLINES = ("\\n", "\\r\\n", "\\r")
_VALUES = ("BIGINT", "UBIGINT", "HUGEINT", "UHUGEINT", "DOUBLE", "BOOLEAN", '"NULL"')
"""Types in which values of JSON stay what they are. Others that DuckDB finds are read into strings, and rewrite them."""
_ANY_KEYS = ", map_inference_threshold=-1, field_appearance_threshold=0"
"""Rows are records however many keys they have, and however few of them each."""


class Tabular:
    """A CSV, TSV, JSON lines or Parquet file.

    Parameters
    ----------
    path : path or URL
    text : names
        Columns of a CSV or of JSON lines that are text whatever they look like, such as ids; in any case.
    timeout : float
        Seconds that opening a URL may take.

    Attributes
    ----------
    kind : str
        ``"csv"``, ``"json"`` or ``"parquet"``.
    types : dict
        Column → type, in DuckDB's words, in the file's order.

    Raises
    ------
    SourceError
    """

    def __init__(self, path: str | os.PathLike[str], text: Iterable[str] = (), *, timeout: float = TIMEOUT) -> None:
        self.path = os.fspath(path)
        self._timeout = timeout
        self.kind = READERS.get(posixpath.splitext(self.path)[1].lower(), "")
        if not self.kind:
            raise SourceError(f"{self.path}: expected a file ending in {', '.join(READERS)}.")
        if not is_url(self.path) and not os.path.isfile(self.path):
            raise SourceError(f"{self.path} does not exist.")
        if self._size() == 0:
            raise SourceError(f"{self.path} is empty (0 bytes); expected a header and rows.")
        file = literal(glob_escape(self.path))
        if self.kind == "csv":
            try:
                self._scan, self.types = self._sniffed(file, frozenset(text), LINE)
            except SourceError as error:
                if "Maximum line size" not in str(error.__cause__):
                    raise
                self._scan, self.types = self._sniffed(file, frozenset(text), LONGEST_LINE)
            return
        if self.kind == "parquet":
            self._scan = f"read_parquet({file})"
            self.types = {name: str(kind) for name, kind in self._described().items()}
            return
        try:
            self._scan, self.types = self._learned(file, frozenset(text), LONGEST_LINE)
        except SourceError as error:
            if "maximum_object_size" not in str(error):
                raise
            self._scan, self.types = self._learned(file, frozenset(text), LONGEST_OBJECT)

    def query(self, expressions: str, rest: str = "") -> duckdb.DuckDBPyRelation:
        """``SELECT expressions FROM the file rest``, on a connection of its own."""
        return self._sql(f"SELECT {expressions} FROM {self._scan} {rest}")

    def fetched(self, relation: duckdb.DuckDBPyRelation) -> list[tuple[Any, ...]]:
        """All rows of a relation made from `query`."""
        import duckdb

        try:
            return list(relation.fetchall())
        except duckdb.Error as error:
            raise self.unreadable(error) from error

    def batches(self, expressions: str, size: int) -> Iterator[pa.RecordBatch]:
        """The rows in their order, at most `size` at a time."""
        import duckdb

        try:
            reader = self.query(expressions).to_arrow_reader(size)
        except duckdb.Error as error:
            raise self.unreadable(error) from error
        while True:
            try:
                batch = reader.read_next_batch()
            except StopIteration:
                return
            except Exception as error:  # what DuckDB finds out as it goes comes as one of Arrow's errors, or its own
                raise self.unreadable(error) from error
            if batch.num_rows:
                yield batch

    def unreadable(self, error: Exception) -> SourceError:
        """What is wrong with the file, in one line."""
        said = str(error).split("Possible")[0].splitlines()
        reason = one_line(" ".join(line for line in said if not line.startswith("Original Line")))
        if self.kind == "json" and ("Malformed JSON" in reason or "record" in reason or "transform error" in reason):
            reason = self._bad_line(reason) or reason
        elif self.kind == "csv" and "when sniffing file" in reason:
            reason = self._bad_row() or reason
        return SourceError(f"{self.path} cannot be read as {self.kind}: {reason}")

    def _bad_line(self, said: str) -> str | None:
        """What is wrong with the first line that is no JSON object; DuckDB does not count blank lines."""

        def found(file: io.TextIOWrapper) -> str | None:
            raw: Any = file.buffer
            for n, line in enumerate(raw, start=1):
                if not line.strip():
                    continue
                try:
                    record = record_of(line)
                except ValueError as error:
                    return f"line {n} {error}"
                if "" in record:
                    return f"line {n} has an empty key. Give it a name."
            return "no line has a key." if "expected records" in said else None

        return self._read(found)

    def _bad_row(self) -> str | None:
        """The first row of a CSV that has not as many values as the header."""

        def found(file: io.TextIOWrapper) -> str | None:
            reader = csv.reader(file, delimiter=delimiter)
            width = len(next(reader, []))
            for row in reader:
                if row and len(row) != width:
                    return (
                        f"the row that ends in line {reader.line_num} has {len(row)} values, but the header has {width}. "
                        "Quote values that hold the delimiter, or mend the row."
                    )
            return None

        delimiter = self._delimiter()
        try:
            return self._read(found)
        except csv.Error:
            return None

    def _described(self) -> dict[str, duckdb.sqltypes.DuckDBPyType]:
        relation = self.query("*", "LIMIT 0")
        return dict(zip(relation.columns, relation.types, strict=True))

    def _learned(self, file: str, text: frozenset[str], longest: int) -> tuple[str, dict[str, str]]:
        """How to scan JSON lines with their strings as they are, and the types."""
        said = f"{file}, format='newline_delimited', records=true, maximum_object_size={longest}"
        self._scan = f"read_json({said}, sample_size=-1)"
        try:
            found = self._described()
        except SourceError as error:
            if "expected records" not in str(error.__cause__):
                raise
            self._scan = f"read_json({said}, sample_size=-1{_ANY_KEYS})"
            found = self._described()
        self._refuse_keys_twice(f"{file}, maximum_object_size={longest}", list(found))
        types = {name: "VARCHAR" if {name, name.lower()} & text else _verbatim(kind) for name, kind in found.items()}
        return f"read_json({said}, auto_detect=false, columns={_struct(types)})", types

    def _refuse_keys_twice(self, said: str, names: list[str]) -> None:
        """DuckDB calls the second of two keys that differ only in case NAME_1, under which nothing is found."""
        lower = {name.lower() for name in names}
        if not any((match := re.fullmatch(r"(.+)_\d+", name.lower())) and match[1] in lower for name in names):
            return
        keys = f"SELECT DISTINCT unnest(json_keys(json)) FROM read_ndjson_objects({said})"
        unknown = set(names) - {key for (key,) in self.fetched(self._sql(keys))}
        if unknown:
            name = min(unknown).rpartition("_")[0]
            raise SourceError(f"{self.path}: two keys are called {name!r} (case does not count). Rename one.")

    def _sniffed(self, file: str, text: frozenset[str], longest: int) -> tuple[str, dict[str, str]]:
        """How to scan a CSV without looking at all of it again, and its types."""
        delimiter = self._delimiter()
        try:
            header = self._read(lambda lines: next(csv.reader(lines, delimiter=delimiter), []))
        except csv.Error as error:
            raise self.unreadable(error) from error
        lower = [name.lower() for name in header]
        if twice := [name for i, name in enumerate(header) if name.lower() in lower[:i]]:
            raise SourceError(f"{self.path}: two columns are called {twice[0]!r} (case does not count). Rename one.")
        strings = [name for name in header if name in text or name.lower() in text]
        said = (
            f"{file}, header=true, delim={literal(delimiter)}, quote='\"', escape='\"', "
            f"max_line_size={longest}, buffer_size={longest}, comment='', skip=0"  # every line is data, with # in it or not
        )
        asked = "Columns, NewLineDelimiter, DateFormat, TimestampFormat"
        types = f", types={_struct(dict.fromkeys(strings, 'VARCHAR'))}" if strings else ""
        found = self._sniff(f"SELECT {asked} FROM sniff_csv({said}, sample_size=-1{types})")
        columns = {column["name"]: str(column["type"]) for column in found[0]}
        newline, date, timestamp = found[1:]
        said += f", auto_detect=false, columns={_struct(columns)}"
        said += f", new_line={literal(newline)}" if newline in _NEWLINES else ""
        said += f", dateformat={literal(date)}" if date else ""
        said += f", timestampformat={literal(timestamp)}" if timestamp else ""
        return f"read_csv({said})", columns

    def _sniff(self, sql: str) -> tuple[Any, ...]:
        import duckdb

        try:
            return self.fetched(self._sql(sql, SNIFFING_MEMORY))[0]
        except SourceError as error:
            if not isinstance(error.__cause__, duckdb.OutOfMemoryException):
                raise
        return self.fetched(self._sql(sql))[0]  # its lines are long

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

    def _sql(self, sql: str, memory: str | None = None) -> duckdb.DuckDBPyRelation:
        import duckdb

        connection = connect(frugal=self.kind != "parquet", memory=memory)
        try:
            if is_url(self.path):
                connection.register_filesystem(_with_modified(resolve(self.path)[0]))
            return connection.sql(sql)
        except duckdb.Error as error:
            raise self.unreadable(error) from error


def _struct(types: Mapping[str, str]) -> str:
    return f"{{{', '.join(f'{literal(name)}: {literal(kind)}' for name, kind in types.items())}}}"


def _verbatim(kind: duckdb.sqltypes.DuckDBPyType) -> str:
    """The type that DuckDB found in JSON, with all that is no number, true or false as text."""
    if kind.id not in ("list", "map", "struct"):
        return str(kind) if str(kind) in _VALUES else "VARCHAR"
    inner = [(name, _verbatim(child)) for name, child in kind.children]
    if kind.id == "list":
        return f"{inner[0][1]}[]"
    if kind.id == "map":
        return f"MAP({inner[0][1]}, {inner[1][1]})"
    return f"STRUCT({', '.join(f'{quoted(name)} {child}' for name, child in inner)})"


def _with_modified(filesystem: Any) -> Any:
    """An fsspec filesystem that says when a file was modified, which DuckDB asks; HTTP's does not know."""
    if type(filesystem).modified is not require("fsspec", extra="remote").AbstractFileSystem.modified:
        return filesystem
    options = {**filesystem.storage_options, "skip_instance_cache": True}
    own = type(filesystem)(*filesystem.storage_args, **options)  # others keep theirs as it is
    own.modified = lambda path: datetime.datetime.fromtimestamp(0, datetime.UTC)
    return own
