"""Tables as DuckDB reads them: typed once by looking at every row, then streamed in little memory."""

from __future__ import annotations

import datetime
import io
import os
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from embedstore._core.arguments import TIMEOUT
from embedstore._core.sql import connect, literal, quoted
from embedstore.errors import SourceError, one_line
from embedstore.registry import require
from embedstore.sources.base import glob_escape
from embedstore.sources.delimited import TEXT, Delimited
from embedstore.sources.files import is_url, open_file, remote, resolve
from embedstore.sources.records import record_of

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

T = TypeVar("T")

READERS = {
    ".csv": "csv", ".tsv": "csv", ".jsonl": "json", ".ndjson": "json", ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip
LONGEST_LINE = 16 << 20
LONGEST_OBJECT = 256 << 20
"""Of JSON lines. Buffers are as large as lines may be, so the larger sizes are taken only where a line needs them."""
_VALUES = ("BIGINT", "DOUBLE", "BOOLEAN", '"NULL"')
"""Types in which values of JSON stay what they are. Of the others that DuckDB finds, strings would be rewritten, and whole
numbers beyond int64 rounded: they are text."""
_LARGE = ("UBIGINT", "HUGEINT", "UHUGEINT")
_NESTED = ("list", "map", "struct")
_ANY_KEYS = ", map_inference_threshold=-1, field_appearance_threshold=0"
"""Rows are records however many keys they have, and however few of them each."""


class Tabular:
    """A CSV, TSV, JSON lines or Parquet file, or several Parquet files as one table.

    Parameters
    ----------
    path : path or URL
    text : names
        Columns of a CSV or of JSON lines that are text whatever they look like, such as ids; in any case.
    files : sequence of paths, optional
        The Parquet files that `path`, a folder or a pattern, stands for.
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

    def __init__(
        self,
        path: str | os.PathLike[str],
        text: Iterable[str] = (),
        *,
        files: Sequence[str] | None = None,
        timeout: float = TIMEOUT,
    ) -> None:
        self.path = os.fspath(path)
        self.files = list(files) if files is not None else [self.path]
        self._timeout = timeout
        self._fault: SourceError | None = None
        self.kind = "parquet" if files is not None else READERS.get(posixpath.splitext(self.path)[1].lower(), "")
        if not self.kind:
            raise SourceError(f"{self.path}: expected a file ending in {', '.join(READERS)}.")
        if files is None and not is_url(self.path) and not os.path.isfile(self.path):
            raise SourceError(f"{self.path} does not exist.")
        if files is None and self._size() == 0:
            raise SourceError(f"{self.path} is empty (0 bytes); expected a header and rows.")
        file = f"{literal(glob_escape(self.path))}, hive_partitioning=false"  # a folder above it may be called NAME=VALUE
        if self.kind == "csv":
            self._delimited = Delimited(self.path, self._open)
            self.types = {name: TEXT if _named(name, text) else kind for name, kind in self._delimited.types.items()}
        elif self.kind == "parquet":
            self._scan = f"read_parquet([{', '.join(literal(glob_escape(f)) for f in self.files)}], union_by_name=true, "
            self._scan += f"hive_partitioning={str(bool(self._partitions())).lower()}, hive_types_autocast=false)"
            self._refuse_twins()
            self._refuse_folders_above()
            self.types = {name: str(kind) for name, kind in self._described().items()}
        else:
            self._refuse_wide_characters()
            try:
                self._learn(file, frozenset(text), LONGEST_LINE)
            except SourceError as error:
                if "maximum_object_size" not in str(error):
                    raise
                self._learn(file, frozenset(text), LONGEST_OBJECT)

    def leave(self, names: Iterable[str]) -> None:
        """Have columns of a CSV or of JSON lines come as text, as they are written: somebody else knows their types."""
        if self.kind != "parquet":
            self.types |= {name: TEXT for name in names if name in self.types}

    def query(self, expressions: str, rest: str = "") -> duckdb.DuckDBPyRelation:
        """``SELECT expressions FROM the file rest``, on a connection of its own."""
        return self._sql(f"SELECT {expressions} FROM {self._table()} {rest}")

    def text(self, name: str) -> str:
        """A column as text, in SQL; bytes are UTF-8."""
        column, kind = quoted(name), self.types[name]
        if kind == "BLOB":
            return f"decode({column})"
        return f"({column} ->> '$')" if kind == "JSON" else f"CAST({column} AS VARCHAR)"

    def _table(self) -> str:
        """What is selected from, in SQL."""
        if self.kind == "csv":
            columns = (f"CAST({quoted(name)} AS {kind}) AS {quoted(name)}" for name, kind in self.types.items())
            return f"(SELECT {', '.join(columns)} FROM delimited)"
        return f"read_json({self._scan}, columns={_struct(self.types)})" if self.kind == "json" else self._scan

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
        if self._fault is not None:
            return self._fault
        said = str(error).split("Possible")[0].splitlines()
        reason = one_line(" ".join(line for line in said if not line.startswith("Original Line")))
        if self.kind == "json" and ("Malformed JSON" in reason or "record" in reason or "transform error" in reason):
            reason = self._bad_line(reason) or reason
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

    def _described(self) -> dict[str, duckdb.sqltypes.DuckDBPyType]:
        relation = self._sql(f"SELECT * FROM {self._scan} LIMIT 0")
        return dict(zip(relation.columns, relation.types, strict=True))

    def _learn(self, file: str, text: frozenset[str], longest: int) -> None:
        """Find out how to scan JSON lines with their strings as they are, and the types."""
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
        self.types = {name: TEXT if _named(name, text) else _verbatim(kind) for name, kind in found.items()}
        self._scan = f"{said}, auto_detect=false"

    def _partitions(self) -> set[str]:
        """The columns that the folders of the parts give, as ``label=cat/part-0.parquet`` does."""
        if len(self.files) == 1 and self.files[0] == self.path:
            return set()
        names = (file.removeprefix(self.path).split("/")[:-1] for file in self.files)
        return {name.partition("=")[0] for parts in names for name in parts if "=" in name}

    def _refuse_folders_above(self) -> None:
        """Where folders of the parts give values, DuckDB takes those above the table for such, too, before all others."""
        above = [name for name in self.path.split("/") if "=" in name] if self.files[0].startswith(self.path) else []
        partitions = self._partitions()
        if not above or not partitions:
            return
        given = partitions.union(*map(self._names_in, self.files))
        for folder in above:
            if (name := folder.partition("=")[0]) in given:
                raise SourceError(
                    f"{self.path}: the folder {folder!r} above the table would fill its column {name!r}. Rename the folder."
                )

    def _refuse_twins(self) -> None:
        """DuckDB calls the second of two columns whose names differ in case only NAME_1, or takes both for one."""
        by_lower: dict[str, str] = {}
        for file in self.files:
            for name in self._names_in(file):
                if by_lower.setdefault(name.lower(), name) != name:
                    raise SourceError(
                        f"{file}: columns {by_lower[name.lower()]!r} and {name!r} differ in case only. Rename one."
                    )

    def _names_in(self, file: str) -> list[str]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            if is_url(file):
                return list(remote(file, self._timeout, lambda fs, inner: pq.read_schema(inner, filesystem=fs).names))
            return list(pq.read_schema(file).names)
        except (pa.ArrowException, OSError) as error:
            raise self.unreadable(error) from error

    def _refuse_wide_characters(self) -> None:
        with self._open() as file:
            head = file.read(4)
        if head.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in head:
            raise SourceError(f"{self.path} cannot be read as json: it is UTF-16 or UTF-32. Save it as UTF-8.")

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

    def _read(self, work: Callable[[io.TextIOWrapper], T]) -> T:
        """`work` of the opened text file."""

        def opened(raw: Any) -> T:
            with io.TextIOWrapper(raw, encoding="utf-8-sig", errors="replace", newline="") as file:
                return work(file)

        return opened(self._open())

    def _open(self) -> Any:
        return open_file(self.path, timeout=self._timeout)

    def _delimited_rows(self) -> Iterator[pa.RecordBatch]:
        try:
            yield from self._delimited.batches()
        except SourceError as error:
            self._fault = error  # on its way through DuckDB the error becomes another one
            raise

    def _size(self) -> int:
        if is_url(self.path):
            return remote(self.path, self._timeout, lambda fs, inner: int(fs.size(inner) or 0))
        return os.path.getsize(self.path)

    def _sql(self, sql: str) -> duckdb.DuckDBPyRelation:
        import duckdb

        connection = connect(frugal=self.kind != "parquet")
        try:
            if self.kind == "csv":
                import pyarrow as pa

                reader = pa.RecordBatchReader.from_batches(self._delimited.schema(), self._delimited_rows())
                connection.register("delimited", reader)
            elif is_url(self.path):
                connection.register_filesystem(_with_modified(resolve(self.path)[0]))
            return connection.sql(sql)
        except duckdb.Error as error:
            raise self.unreadable(error) from error


def _named(name: str, names: Iterable[str]) -> bool:
    """Whether `name` is one of `names`, or is when written small and without blanks around it."""
    return bool({name, name.strip().lower()} & set(names))


def _struct(types: Mapping[str, str]) -> str:
    return f"{{{', '.join(f'{literal(name)}: {literal(kind)}' for name, kind in types.items())}}}"


def _verbatim(kind: duckdb.sqltypes.DuckDBPyType) -> str:
    """The type of a column in which DuckDB found `kind`: numbers, true and false, lists of them and of text; else text.

    Records are kept as JSON: read as such they would get every key that any of them has.
    """
    if kind.id == "list":
        (_, inner), *_ = kind.children
        keeps = inner.id not in _NESTED and str(inner) not in ("JSON", *_LARGE)
        return f"{_verbatim(inner)}[]" if keeps else TEXT
    return str(kind) if str(kind) in _VALUES else TEXT


def _with_modified(filesystem: Any) -> Any:
    """An fsspec filesystem that says when a file was modified, which DuckDB asks; HTTP's does not know."""
    if type(filesystem).modified is not require("fsspec", extra="remote").AbstractFileSystem.modified:
        return filesystem
    options = {**filesystem.storage_options, "skip_instance_cache": True}
    own = type(filesystem)(*filesystem.storage_args, **options)  # others keep theirs as it is
    own.modified = lambda path: datetime.datetime.fromtimestamp(0, datetime.UTC)
    return own
