"""Tables as DuckDB reads them: typed once by looking at every row, then streamed in little memory."""

from __future__ import annotations

import csv
import io
import os
import posixpath
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from embedstore._sql import connect, literal
from embedstore.errors import SourceError, one_line
from embedstore.sources.base import glob_escape
from embedstore.sources.files import TIMEOUT, is_url, remote, resolve

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


class Tabular:
    """A CSV, TSV, JSON lines or Parquet file.

    Parameters
    ----------
    path : path or URL
    text : names
        Columns of a CSV that are text whatever they look like, such as ids; in any case.
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
        self._scan = f"read_parquet({file})" if self.kind == "parquet" else _json_scan(file, LONGEST_LINE)
        try:
            self.types = self._described()
        except SourceError as error:
            if "maximum_object_size" not in str(error):
                raise
            self._scan = _json_scan(file, LONGEST_OBJECT)
            self.types = self._described()

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
        return SourceError(f"{self.path} cannot be read as {self.kind}: {reason}")

    def _described(self) -> dict[str, str]:
        relation = self.query("*", "LIMIT 0")
        return dict(zip(relation.columns, map(str, relation.types), strict=True))

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
        listed = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in strings)
        said = (
            f"{file}, header=true, delim={literal(delimiter)}, quote='\"', escape='\"', "
            f"max_line_size={longest}, buffer_size={longest}"
        )
        asked = "Columns, NewLineDelimiter, Comment, SkipRows, DateFormat, TimestampFormat"
        types = f", types={{{listed}}}" if strings else ""
        found = self._sniff(f"SELECT {asked} FROM sniff_csv({said}, sample_size=-1{types})")
        columns = {column["name"]: str(column["type"]) for column in found[0]}
        newline, comment, skip, date, timestamp = found[1:]
        said += f", auto_detect=false, skip={int(skip)}"
        said += f", columns={{{', '.join(f'{literal(n)}: {literal(t)}' for n, t in columns.items())}}}"
        said += f", new_line={literal(newline)}" if newline in _NEWLINES else ""
        said += f", comment={literal(comment)}" if comment and comment != "(empty)" else ""
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
                connection.register_filesystem(resolve(self.path)[0])
            return connection.sql(sql)
        except duckdb.Error as error:
            raise self.unreadable(error) from error


def _json_scan(file: str, longest: int) -> str:
    return f"read_json({file}, format='newline_delimited', sample_size=-1, maximum_object_size={longest})"
