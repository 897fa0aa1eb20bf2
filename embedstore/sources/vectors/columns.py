"""Columns of tables beside, or with, vectors: Parquet, CSV, TSV and JSON lines, read in blocks of rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from embedstore._core.sql import quoted
from embedstore.errors import SourceError, one_line, reason_of
from embedstore.sources.files import natural_paths
from embedstore.sources.tabular import READERS, Tabular

if TYPE_CHECKING:
    import pyarrow as pa

PARQUET = (".parquet", ".pq")
BUFFER = 1 << 20
"""Bytes of a column that are read at once. Without it those of all row groups are in memory before the first row comes."""
TEXT = tuple(ending for ending, kind in READERS.items() if kind != "parquet")


class Columns(Protocol):
    """Rows of a table in a fixed order."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def names(self) -> Sequence[str]: ...

    @property
    def files(self) -> Sequence[tuple[str, int]]:
        """Name and rows of each file."""

    def blocks(self, size: int, names: Sequence[str]) -> Iterator[pa.Table]:
        """The columns `names`, in tables of `size` rows; the last may be shorter.

        Raises
        ------
        SourceError
        """


class MemoryColumns:
    """A table in memory."""

    def __init__(self, table: pa.Table, name: str) -> None:
        self.name = name
        self._table = table
        self.names: Sequence[str] = table.column_names
        self.files: Sequence[tuple[str, int]] = [(name, table.num_rows)]

    def blocks(self, size: int, names: Sequence[str]) -> Iterator[pa.Table]:
        table = self._table.select(list(names))
        for lo in range(0, table.num_rows, size):
            yield table.slice(lo, size)


class ParquetColumns:
    """Parquet files one after the other; a column that a file lacks is null there."""

    def __init__(self, name: str, paths: Sequence[Path]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.name = name
        self._paths = paths
        schemas, self.files = [], []
        for path in paths:
            try:
                with pq.ParquetFile(path) as file:
                    schemas.append(file.schema_arrow.remove_metadata())
                    self.files.append((str(path), file.metadata.num_rows))
            except (pa.ArrowException, OSError) as error:
                raise _unreadable(path, error) from error
        try:
            self.schema = pa.unify_schemas(schemas, promote_options="permissive")
        except pa.ArrowException as error:
            raise SourceError(f"{name}: its files disagree about a column ({one_line(error, 160)}).") from error

    @property
    def names(self) -> Sequence[str]:
        """All but pandas' index, and columns that hold nothing."""
        import pyarrow as pa

        return [f.name for f in self.schema if not f.name.startswith("__index_level_") and not pa.types.is_null(f.type)]

    def numbers(self, column: str) -> int:
        """How many numbers the lists of lists in a column hold, as the files' footers count them."""
        import pyarrow.parquet as pq

        total = 0
        for path in self._paths:
            footer = pq.read_metadata(path)
            for group in (footer.row_group(i) for i in range(footer.num_row_groups)):
                for leaf in (group.column(i) for i in range(group.num_columns)):
                    inner = leaf.path_in_schema.removeprefix(f"{column}.")
                    if inner != leaf.path_in_schema and inner.count(".") == 3:  # list.element.list.element
                        total += leaf.num_values
        return total

    def blocks(self, size: int, names: Sequence[str]) -> Iterator[pa.Table]:
        import pyarrow as pa

        schema = pa.schema([self.schema.field(name) for name in names])
        for table in regrouped(self.batches(size, names), size, schema):
            try:
                yield table.cast(schema)
            except pa.ArrowException as error:
                raise SourceError(
                    f"{self.name}: a column changes its type from file to file ({one_line(error, 160)})."
                ) from error

    def batches(self, size: int, names: Sequence[str]) -> Iterator[pa.Table]:
        """Tables of at most `size` rows with those of the columns that each file has."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        for path in self._paths:
            try:
                with pq.ParquetFile(path, pre_buffer=False, buffer_size=BUFFER) as file:
                    present = [name for name in names if name in file.schema_arrow.names]
                    if not present:
                        yield pa.table({"": pa.nulls(file.metadata.num_rows)})
                        continue
                    for batch in file.iter_batches(size, columns=present):
                        table = pa.Table.from_batches([batch]).select(present)  # "a" stands for a column "a.b", too
                        yield table.replace_schema_metadata(None)
            except (pa.ArrowException, OSError) as error:
                raise _unreadable(path, error) from error


class TextColumns:
    """A CSV, TSV or JSON lines file, read by DuckDB as a stream.

    Parameters
    ----------
    path : Path
    text : sequence of str
        Columns that are text whatever they look like, such as ids.
    """

    def __init__(self, path: Path, text: Sequence[str] = ()) -> None:
        self._table = Tabular(path, text)
        self.path = path
        self.name = str(path)

    @property
    def names(self) -> Sequence[str]:
        return list(self._table.types)

    @property
    def types(self) -> Mapping[str, str]:
        """Column → type, in DuckDB's words."""
        return self._table.types

    def leave_text(self, names: Iterable[str]) -> None:
        """Have these columns come as text, as they are written."""
        self._table.leave(names)

    @cached_property
    def files(self) -> Sequence[tuple[str, int]]:
        return [(self.name, int(self.row("count(*)")[0]))]

    def blocks(self, size: int, names: Sequence[str]) -> Iterator[pa.Table]:
        return self.select(size, [quoted(name) for name in names])

    def select(self, size: int, expressions: Sequence[str]) -> Iterator[pa.Table]:
        """Tables of `size` rows of SQL expressions over the columns."""
        import pyarrow as pa

        batches = self._table.batches(", ".join(expressions), 8192)
        return regrouped((pa.Table.from_batches([batch]) for batch in batches), size)

    def unconvertible(self, column: str, kind: str) -> tuple[int, str] | None:
        """Row (from 0) and value of the first cell that is not of `kind`, in DuckDB's words; None where that cannot be told."""
        name = quoted(column)
        found = f"QUALIFY {name} IS NOT NULL AND TRY_CAST({name} AS {kind}) IS NULL LIMIT 1"
        try:
            cells = self._table.fetched(self._table.query(f"row_number() OVER () - 1, CAST({name} AS VARCHAR)", found))
        except SourceError:
            return None
        return cells[0] if cells else None

    def row(self, expressions: str) -> tuple[Any, ...]:
        """SQL aggregates of the columns."""
        return self._table.fetched(self._table.query(expressions))[0]


def open_columns(path: Path, text: Sequence[str] = ()) -> ParquetColumns | TextColumns:
    """The table at `path`, or the Parquet files in that folder."""
    if path.is_dir():
        if not (found := natural_paths(path.rglob("*.parquet"))):
            raise SourceError(f"{path} holds no .parquet file.")
        return ParquetColumns(str(path), found)
    if path.suffix.lower() in PARQUET:
        return ParquetColumns(str(path), [path])
    if path.suffix.lower() in TEXT:
        return TextColumns(path, text)
    raise SourceError(f"{path}: expected a table (.parquet, {', '.join(TEXT)}) or a folder of .parquet files.")


def regrouped(tables: Iterator[pa.Table], size: int, schema: pa.Schema | None = None) -> Iterator[pa.Table]:
    """The rows of `tables` in tables of `size` rows; columns of `schema` that a table lacks are null."""
    import pyarrow as pa

    held: list[pa.Table] = []
    rows = 0
    for table in tables:
        whole = table if schema is None else _completed(table, schema)
        held.append(whole)
        rows += whole.num_rows
        if rows >= size:
            joined = pa.concat_tables(held, promote_options="permissive")
            yield from (joined.slice(lo, size) for lo in range(0, rows - rows % size, size))
            held, rows = [joined.slice(rows - rows % size)], rows % size
    if rows:
        yield pa.concat_tables(held, promote_options="permissive")


def _completed(table: pa.Table, schema: pa.Schema) -> pa.Table:
    import pyarrow as pa

    present = set(table.column_names)
    columns = [table.column(f.name) if f.name in present else pa.nulls(table.num_rows, f.type) for f in schema]
    return pa.table(columns, names=schema.names)


def _unreadable(path: Path, error: Exception) -> SourceError:
    reason = reason_of(error) if isinstance(error, OSError) else one_line(error, 160)
    return SourceError(f"{path} cannot be read as Parquet: {reason}")
