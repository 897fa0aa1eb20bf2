"""A table as a source: CSV, TSV, JSONL or Parquet, read by DuckDB as a stream."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from embedstore._core.arguments import TIMEOUT
from embedstore._core.column_values import blank
from embedstore._core.sql import quoted
from embedstore.errors import DuplicateIdError, SourceError, UsageError
from embedstore.sources.base import BATCH_BYTES, BATCH_ROWS, BYTES, ID, TEXT_FAILED, kept_names, renamed
from embedstore.sources.features import PATH, features_of, named_labels, payload_bytes, payload_uris
from embedstore.sources.files import absolute, folder_of, is_url, natural, relative_to, remote
from embedstore.sources.left_out import LeftOut, files_below
from embedstore.sources.tabular import Tabular
from embedstore.sources.text_files import decoded
from embedstore.spec import MODALITIES

if TYPE_CHECKING:
    import pyarrow as pa

PARQUET = (".parquet", ".pq")
_HASHES = 65536
_READ_AHEAD = 1 << 20
_ROW_NUMBER = "CAST(row_number() OVER () - 1 AS VARCHAR)"


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
    files : sequence of str, optional
        The Parquet files that `path`, a folder or a pattern, stands for: one table, in this order.
    beside : LeftOut, optional
        What lies beside them and is not read.
    timeout : float
        Seconds that opening a URL may take.
    bare : bool
        Whether it needs none of the columns image, text, audio and video.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        columns: Mapping[str, str] | None = None,
        *,
        files: Sequence[str] | None = None,
        beside: LeftOut | None = None,
        timeout: float = TIMEOUT,
        bare: bool = False,
    ) -> None:
        self._beside = beside or LeftOut()
        self.path = os.fspath(path)
        self._timeout = timeout
        named = dict(columns or {})
        self._table = Tabular(path, {ID, *MODALITIES, *named.values()}, files=files, timeout=timeout)
        self._folder = folder_of(self.path) if files is None else _folder_of_parts(self.path)
        self._types = self._table.types
        self._columns = self._assign_columns(named)
        if not self.modalities and not bare:
            raise SourceError(
                f"{self.path} has no column called {', '.join(MODALITIES)}. Columns: {', '.join(self._types)}. "
                "Name one, such as --image-column NAME."
            )

        taken = set(self._columns.values())
        self._kept = kept_names((c for c in self._types if c not in taken), self.path)

    unique_ids: ClassVar = True

    def leave_text(self, names: Iterable[str]) -> None:
        """See `embedstore.sources.base.Source`."""
        wanted = set(names)
        self._table.leave(column for column, name in self._kept.items() if name in wanted)

    @property
    def notes(self) -> list[str]:
        """The columns that have another name in the store, and what is not read."""
        return [*renamed(self._kept), *self._beside.notes()]

    @property
    def name(self) -> str:
        return self.path

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(m for m in MODALITIES if m in self._columns)

    def count(self) -> int | None:
        return int(self._table.fetched(self._table.query("count(*)"))[0][0])

    def batches(self) -> Iterator[pa.RecordBatch]:
        self._refuse_duplicates()
        if not (held := self._payload_columns()):
            yield from (self._finish(batch, {}) for batch in self._rows())
            return
        for batch, payloads in _side_by_side(self._rows(), self._payloads(list(held.values()))):
            yield self._finish(batch, {m: payloads.column(column) for m, column in held.items()})

    def _rows(self) -> Iterator[pa.RecordBatch]:
        """All but the payloads that the table holds itself."""
        return self._table.batches(self._select(), BATCH_ROWS)

    def _payload_columns(self) -> dict[str, str]:
        """Modality → column, of those that hold the files themselves."""
        return {m: c for m, c in self._columns.items() if m not in (ID, "text") and _holds_bytes(self._types[c])}

    def _payloads(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Columns of payloads in batches of about `BATCH_BYTES`; DuckDB would hold whole row groups of them."""
        import pyarrow as pa

        try:
            for path in self._table.files:
                with self._parquet(path) as file:
                    mean = _bytes_of(file.metadata, columns) / max(1, file.metadata.num_rows)
                    rows = min(BATCH_ROWS, max(1, int(BATCH_BYTES / max(1, mean))))
                    for batch in file.iter_batches(batch_size=rows, columns=columns, use_threads=False):
                        yield _with_columns(batch, columns, path)
        except (pa.ArrowException, OSError) as error:
            raise self._table.unreadable(error) from error

    def _parquet(self, path: str) -> Any:
        import pyarrow.parquet as pq

        options = {"pre_buffer": False, "buffer_size": _READ_AHEAD}
        if not is_url(path):
            return pq.ParquetFile(path, **options)
        return remote(path, self._timeout, lambda fs, inner: pq.ParquetFile(inner, filesystem=fs, **options))

    def _assign_columns(self, named: Mapping[str, str]) -> dict[str, str]:
        by_lower = {name.strip().lower(): name for name in reversed(self._types)}
        found = {word: by_lower[word] for word in (ID, *MODALITIES) if word in by_lower}
        for word, column in named.items():
            if column not in self._types:
                raise UsageError(f"{self.path} has no column {column!r}. Columns: {', '.join(self._types)}.")
            found = {w: c for w, c in found.items() if c != column} | {word: column}
        return found

    def _select(self) -> str:
        """What is selected: id, payloads, metadata; typed, in order."""
        terms = [f"{self._id_expression()} AS {ID}"]
        for modality in self.modalities:
            column = self._columns[modality]
            if column in self._payload_columns().values():
                path = "NULL::VARCHAR" if self._types[column] == "BLOB" else f"{quoted(column)}.{PATH}"
                terms.append(f"{path} AS {modality}")
            else:
                terms.append(f"{self._string(column)} AS {modality}")
        terms += [
            f"{self._string(c) if self._types[c] == 'JSON' else quoted(c)} AS {quoted(self._kept[c])}" for c in self._kept
        ]
        return ", ".join(terms)

    def _id_expression(self) -> str:
        if ID in self._columns:
            return self._string(self._columns[ID])
        for modality in ("image", "video", "audio"):
            if modality in self._columns and self._types[self._columns[modality]] == "VARCHAR":
                return self._string(self._columns[modality])
        return _ROW_NUMBER

    def _string(self, column: str) -> str:
        """A column as text; bytes, lists and records as they are, of which `_finish` makes what other formats say."""
        kind = self._types[column]
        return quoted(column) if kind == "BLOB" or _is_nested(kind) else self._table.text(column)

    def _finish(self, batch: pa.RecordBatch, held: Mapping[str, pa.Array]) -> pa.RecordBatch:
        """Empty payloads become null, paths absolute, class labels names; payloads that the table holds are added."""
        import pyarrow as pa
        import pyarrow.compute as pc

        batch = _replaced(batch, ID, decoded(batch.column(ID))[0])
        for modality in self.modalities:
            column = batch.column(modality)
            if modality == "text":
                column, failed = decoded(column)
                if self._types[self._columns["text"]] == "BLOB":
                    batch = batch.append_column(TEXT_FAILED, failed)
            if modality in held:
                payloads = payload_bytes(held[modality])
                ids = batch.column(ID).to_pylist()
                uris = payload_uris(column.to_pylist(), payloads, ids, container=absolute(self.path), folder=self._folder)
                batch = _replaced(batch, modality, uris).append_column(modality + BYTES, payloads)
                continue
            column = pc.if_else(blank(column), pa.scalar(None, column.type), column)
            if modality != "text":
                column = pa.array([p if p is None else relative_to(self._folder, p) for p in column.to_pylist()], pa.string())
            batch = _replaced(batch, modality, column)
        for name, feature in self._features.items():
            if name in self._types and name not in self._columns.values():
                batch = _replaced(batch, self._kept[name], named_labels(batch.column(self._kept[name]), feature))
        return batch

    @cached_property
    def _features(self) -> dict[str, dict[str, Any]]:
        """Class labels that the package `datasets` described in the file."""
        import pyarrow as pa

        if self._table.kind != "parquet":
            return {}
        try:
            with self._parquet(self._table.files[0]) as file:
                features = features_of(file.schema_arrow)
        except (pa.ArrowException, OSError) as error:
            raise self._table.unreadable(error) from error
        return {name: feature for name, feature in features.items() if feature.get("_type") == "ClassLabel"}

    def _refuse_duplicates(self) -> None:
        """Before anything is embedded: every row has an id, and no two share one. Takes eight bytes a row."""
        given = self._id_expression()
        if given == _ROW_NUMBER:
            return
        if ID in self._columns and self._types[self._columns[ID]] == "BLOB":
            self._refuse_other_bytes(given)
        batches = self._table.batches(f"CASE WHEN {given} IS NULL THEN 0 ELSE hash({given}) END", _HASHES)
        hashes = np.sort(np.concatenate([np.empty(0, np.uint64), *(np.asarray(batch.column(0)) for batch in batches)]))
        suspect = np.unique(hashes[:-1][hashes[1:] == hashes[:-1]])
        if not len(suspect) and (not len(hashes) or hashes[0]):
            return
        among = ", ".join(map(str, suspect[:1000])) or "NULL"
        rows = self._table.query(f"{given} AS {ID}, row_number() OVER () AS n").filter(
            f"{ID} IS NULL OR hash({ID}) IN ({among})"
        )
        found = rows.aggregate(f"{ID}, min(n) AS first, max(n) AS last, count(*) AS times").filter(f"times > 1 OR {ID} IS NULL")
        for value, first, last, _ in self._table.fetched(found.order("first").limit(1)):
            if value is None:
                raise SourceError(f"{self.path}: row {first} has no id. Fill the column, or name another with --id-column.")
            raise DuplicateIdError(
                f"{self.path}: rows {first} and {last} both have the id {value!r}. "
                "Make ids unique, or name another column with --id-column."
            )

    def _refuse_other_bytes(self, given: str) -> None:
        """Ids that are bytes have to be UTF-8."""
        rows = self._table.query(f"{given} AS {ID}, row_number() OVER () AS n")
        wrong = rows.filter(f"{ID} IS NOT NULL AND try(decode({ID})) IS NULL").order("n").limit(1)
        for value, n in self._table.fetched(wrong):
            raise SourceError(f"{self.path}: row {n} has the id {value!r}, which is not UTF-8. Name others: --id-column.")


def parquet_parts(folder: Path, left_out: LeftOut) -> list[str]:
    """The Parquet files below a folder as Spark, Dask and others write them, in the order of their numbers."""
    found = (path for path in files_below(folder, left_out) if path.suffix in PARQUET)
    return natural(str(path) for path in found if not any(p.startswith((".", "_")) for p in path.relative_to(folder).parts))


def _folder_of_parts(path: str) -> str:
    """What paths in the parts of a table are relative to: the folder, or the part of a pattern that is no pattern."""
    while glob.has_magic(path):
        path = path.rpartition("/")[0] or "."
    return path if is_url(path) else os.path.abspath(path)


def _holds_bytes(kind: str) -> bool:
    """Whether a column of this DuckDB type holds files: bytes, or a struct of bytes and path."""
    return kind == "BLOB" or (kind.startswith("STRUCT(") and "bytes BLOB" in kind and "path VARCHAR" in kind)


def _is_nested(kind: str) -> bool:
    """Whether values of this DuckDB type are lists or records."""
    return kind.endswith("]") or kind.startswith(("STRUCT(", "MAP("))


def _with_columns(batch: pa.RecordBatch, names: list[str], path: str) -> pa.RecordBatch:
    """The columns of payloads `names`, without any where the file at `path` has no such column, or nothing in it."""
    import pyarrow as pa

    columns = {}
    for name in names:
        given = batch.column(name) if name in batch.schema.names else pa.nulls(batch.num_rows)
        columns[name] = given.cast(pa.binary()) if pa.types.is_null(given.type) else given
        if payload_bytes(columns[name]) is None:
            raise SourceError(f"{path}: column {name!r} holds {given.type}, in other files bytes. Make them alike.")
    return pa.RecordBatch.from_pydict(columns)


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
