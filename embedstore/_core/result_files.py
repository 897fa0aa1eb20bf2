"""Results as files: ``.csv`` for spreadsheets, ``.parquet`` and ``.jsonl`` with every value exactly as it is."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedstore._core.atomic_files import completing
from embedstore.errors import EmbedstoreError, OutputError, UsageError, next_step, reason_of

if TYPE_CHECKING:
    import pyarrow as pa

FORMATS = (".csv", ".parquet", ".jsonl")

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A text that begins so is run as a formula by spreadsheets (CWE-1236); an apostrophe before it makes it text again."""


def write_tables(path: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
    """Write `tables` of `schema` one below the other; the file appears when it is complete.

    In a ``.csv``, text that a spreadsheet would run begins with an apostrophe, booleans are ``true`` and ``false``, lists
    are JSON, and what is missing is empty.

    Parameters
    ----------
    path : Path
        Ends in one of `FORMATS`, in capitals or not.
    schema : pyarrow.Schema
        Its names are distinct: see `distinct`.

    Raises
    ------
    UsageError
        There is no such folder, or `path` is one.
    OutputError
        The disk is full, or another error of the operating system.
    """
    write = {".csv": _write_csv, ".parquet": _write_parquet, ".jsonl": _write_jsonl}[path.suffix.lower()]
    with writing(path), completing(path) as temporary:
        write(temporary, schema, tables)


def write_table(path: str | Path, table: pa.Table) -> Path:
    """Write `table` as `write_tables` does; the path.

    Raises
    ------
    UsageError
        An ending that is none of `FORMATS`, or no such folder.
    OutputError
        The file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"{path} should end in one of {', '.join(FORMATS)}.")
    write_tables(path, table.schema, [table])
    return path


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Errors of the operating system as one that names the file of results and what to do."""
    try:
        yield
    except OSError as error:
        kind: type[EmbedstoreError] = OutputError
        if isinstance(error, (FileNotFoundError, NotADirectoryError, IsADirectoryError)):
            kind = UsageError
        raise kind(f"{path} cannot be written: {reason_of(error)}.{next_step(error)}") from error


def distinct(names: Sequence[str]) -> list[str]:
    """`names`, where one that occurred before gets the first free of `` (2)``, `` (3)`` …, so that no column is lost."""
    taken, found = set(names), list[str]()
    for name in names:
        free, count = name, 2
        while free in found or (free != name and free in taken):
            free, count = f"{name} ({count})", count + 1
        found.append(free)
    return found


def _write_csv(path: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(map(_cell, schema.names))
        for table in tables:
            writer.writerows(zip(*map(_cells, table.columns), strict=True))


def _cells(column: pa.ChunkedArray) -> list[Any]:
    import pyarrow as pa

    if pa.types.is_floating(column.type) and column.type != pa.float64():
        return list(column.cast(pa.string()).to_pylist())  # 0.1, not the float64 nearest to the float32 nearest to it
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        return list(column.to_pylist())
    return [_cell(value) for value in column.to_pylist()]


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return json.dumps(value, ensure_ascii=False, default=str)
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def _write_jsonl(path: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        for table in tables:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in table.to_pylist())


def _write_parquet(path: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
    import pyarrow.parquet as pq

    with pq.ParquetWriter(path, schema) as writer:
        for table in tables:
            writer.write_table(table)
