"""Tables that lie in a folder and name its files: their columns would be lost if the folder were embedded without a word."""

from __future__ import annotations

import csv
import json
import os
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from embedstore.sources.base import MODALITY_OF, UNDECODED

TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".pq")

_ROWS = 50
_BYTES = 1 << 20
_DELIMITERS = ",;\t|"


@dataclass(frozen=True)
class Manifest:
    """A table that names files beside it or below it.

    Parameters
    ----------
    path : str
    columns : mapping of modality to column
    """

    path: str
    columns: Mapping[str, str]

    def command(self, store: str, encoders: Mapping[str, tuple[str, str]]) -> str:
        """The command that embeds the table with the same encoders.

        Parameters
        ----------
        encoders : mapping of space name to (modality, encoder)
        """
        words = ["embedstore", "embed", self.path, "--store", store]
        for space, (modality, encoder) in encoders.items():
            if modality in self.columns:
                words += [f"--{modality}", encoder if space == modality else f"{space}={encoder}"]
        for modality, column in self.columns.items():
            if column.lower() != modality:
                words += [f"--{modality}-column", column]
        return shlex.join(words)


def manifest_of(path: str) -> Manifest | None:
    """The table at `path`, if one of its columns names files that are there; None where none does, or it cannot be read."""
    folder = os.path.dirname(path)
    found: dict[str, str] = {}
    try:
        rows = _first_rows(path)
    except (OSError, ValueError, csv.Error):
        return None
    for column in dict.fromkeys(name for row in rows for name in row):
        kinds = Counter(kind for row in rows if (kind := _kind_of(folder, row.get(column))))
        if kinds:
            found.setdefault(kinds.most_common(1)[0][0], column)
    return Manifest(path, found) if found else None


def _kind_of(folder: str, value: object) -> str | None:
    """The modality of the file that `value` names, if there is one."""
    if not isinstance(value, str) or not 0 < len(value) < 4096 or "\0" in value:
        return None
    ending = os.path.splitext(value)[1].lower()
    kind = "image" if ending in UNDECODED else MODALITY_OF.get(ending)
    return kind if kind not in (None, "text") and os.path.isfile(os.path.join(folder, value)) else None


def _first_rows(path: str) -> list[Mapping[str, Any]]:
    """Some rows of a table, with the values that are text."""
    ending = os.path.splitext(path)[1].lower()
    if ending in (".parquet", ".pq"):
        return _parquet_rows(path)
    with open(path, "rb") as file:
        lines = file.read(_BYTES).decode("utf-8-sig", "replace").splitlines()
    if ending in (".csv", ".tsv"):
        delimiter = max(_DELIMITERS, key=lines[0].count) if lines else ","
        return list(islice(csv.DictReader(lines, delimiter=delimiter, restkey="", restval=""), _ROWS))
    return [record for record in _records(lines[:_ROWS]) if isinstance(record, dict)]


def _records(lines: Iterable[str]) -> Iterable[Any]:
    for line in lines:
        try:
            yield json.loads(line)
        except ValueError:  # the last one may be cut off
            continue


def _parquet_rows(path: str) -> list[Mapping[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        names = [f.name for f in file.schema_arrow if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)]
        return next((batch.to_pylist() for batch in file.iter_batches(_ROWS, columns=names)), []) if names else []
