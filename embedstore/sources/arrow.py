"""Arrow data as a source: tables in memory (pandas, Polars, pyarrow), Arrow files, and the splits of Hugging Face datasets."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedstore._core.column_types import word_of
from embedstore._core.column_values import MisfitError, blank, fitted
from embedstore.errors import SourceError, UsageError, one_line
from embedstore.sources.base import BATCH_BYTES, BATCH_ROWS, BYTES, ID, kept_names, renamed
from embedstore.sources.features import PATH, features_of, holds_payloads, named_labels, payload_bytes, payload_uris
from embedstore.sources.files import folder_of
from embedstore.spec import MODALITIES

if TYPE_CHECKING:
    import pyarrow as pa

ENDINGS = (".arrow", ".feather", ".ipc")

_FEATURES = {"Image": "image", "Audio": "audio", "Video": "video"}


@dataclass(frozen=True)
class Part:
    """One split, or all: its name (None where there are none), its schema; `count` and `read` give its rows, in order."""

    name: str | None
    schema: pa.Schema
    count: Callable[[], int]
    read: Callable[[], Iterator[pa.RecordBatch]]


class ArrowSource:
    """The rows of a dataset, split after split; more than one split gives a column ``split``.

    Columns called id, image, text, audio and video are recognised, and the only column with an Image, Audio or Video feature,
    whatever its name. Class labels become their names. Without an id, the row number is the id (after the split's name,
    where there are several), or, where `paths_are_ids`, the path of the item's file.

    Parameters
    ----------
    splits : sequence of Part
    name : str
        What messages call it.
    columns : mapping, optional
        ``"id"`` or modality → column.
    folder : str
        What relative paths in the dataset are relative to.
    paths_are_ids : bool
        As in a `embedstore.sources.table.TableSource`.
    bare : bool
        Likewise.
    """

    def __init__(
        self,
        splits: Sequence[Part],
        name: str,
        columns: Mapping[str, str] | None = None,
        folder: str | None = None,
        *,
        paths_are_ids: bool = False,
        bare: bool = False,
    ) -> None:
        self._splits = list(splits)
        self._name = name
        self._folder = folder or os.getcwd()
        schema = self._splits[0].schema
        for split in self._splits[1:]:
            if not split.schema.equals(schema):
                raise SourceError(f"{name}: split {split.name!r} has other columns than {self._splits[0].name!r}; embed one.")
        self._features = features_of(schema)
        self._columns = self._assigned(schema, columns or {})
        if not self.modalities and not bare:
            raise SourceError(
                f"{name} has no column called {', '.join(MODALITIES)}. Columns: {', '.join(schema.names)}. "
                "Name one, such as --image-column NAME."
            )
        self._kept = kept_names((c for c in schema.names if c not in self._columns.values()), name)
        named = (m for m in ("image", "video", "audio") if m in self._columns)
        first = next((m for m in named if word_of(schema.field(self._columns[m]).type) == "text"), None)
        if paths_are_ids and ID not in self._columns and first is not None:
            self._path_id: str | None = self._columns[first]
        else:
            self._path_id = None

    @property
    def notes(self) -> list[str]:
        """The columns that have another name in the store."""
        return renamed(self._kept)

    @property
    def name(self) -> str:
        return self._name

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(m for m in MODALITIES if m in self._columns)

    def count(self) -> int | None:
        return sum(split.count() for split in self._splits)

    def duplicate_hint(self, first: int, second: int) -> str:
        """What to do about an id that two rows share."""
        return "Make ids unique over all splits, or name another column with --id-column."

    def batches(self) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        for split in self._splits:
            start = 0
            for batch in split.read():
                for piece in self._pieces(batch):
                    try:
                        yield self._converted(piece, split.name, start)
                    except (pa.ArrowException, MisfitError) as error:
                        raise SourceError(f"{self._name}: rows from {start + 1} on: {one_line(error)}") from error
                    start += piece.num_rows

    def _pieces(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """Slices of at most `BATCH_ROWS` rows and about `BATCH_BYTES` of payloads."""
        import pyarrow.compute as pc

        sizes = np.ones(batch.num_rows, np.int64)
        for modality in self.modalities:
            payloads = payload_bytes(batch.column(self._columns[modality]))
            if payloads is not None:
                sizes += np.asarray(pc.fill_null(pc.binary_length(payloads), 0))
        until, low = np.cumsum(sizes), 0
        while low < batch.num_rows:
            before = until[low - 1] if low else 0
            high = min(low + BATCH_ROWS, 1 + int(np.searchsorted(until, before + BATCH_BYTES)))
            yield batch.slice(low, high - low)
            low = min(high, batch.num_rows)

    def _converted(self, batch: pa.RecordBatch, split: str | None, start: int) -> pa.RecordBatch:
        import pyarrow as pa

        n = batch.num_rows
        columns = {ID: self._ids(batch, split, start)}
        for modality in self.modalities:
            column = batch.column(self._columns[modality])
            if modality == "text":
                columns["text"] = _not_blank(column)
                continue
            payloads = payload_bytes(column)
            columns[modality] = self._uris(column, payloads, columns[ID])
            if payloads is not None:
                columns[modality + BYTES] = payloads.cast(pa.large_binary())
        for name in batch.schema.names:
            if name not in self._columns.values():
                columns[self._kept[name]] = named_labels(batch.column(name), self._features.get(name))
        if split is not None:
            columns["split"] = pa.array([split] * n, pa.string())
        return pa.RecordBatch.from_pydict(columns)

    def _ids(self, batch: pa.RecordBatch, split: str | None, start: int) -> pa.Array:
        import pyarrow as pa

        column = self._columns.get(ID, self._path_id)
        if column is None:
            prefix = f"{split}/" if split is not None else ""
            return pa.array([f"{prefix}{i}" for i in range(start, start + batch.num_rows)], pa.string())
        ids = fitted(batch.column(column), pa.string())
        if ids.null_count:
            row = start + int(np.flatnonzero(np.asarray(ids.is_null()))[0])
            raise SourceError(f"{self._name}: row {row + 1}{f' of {split}' if split else ''} has no id. Fill the column.")
        return ids

    def _uris(self, column: pa.Array, payloads: pa.Array | None, ids: pa.Array) -> pa.Array:
        """Paths of files, and ``NAME#PATH`` of payloads that are in the dataset."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if pa.types.is_struct(column.type):
            paths = pc.struct_field(column, PATH).to_pylist()
        else:
            paths = fitted(column, pa.string()).to_pylist() if payloads is None else [None] * len(column)
        return payload_uris(paths, payloads, ids.to_pylist(), container=self._name, folder=self._folder)

    def _assigned(self, schema: pa.Schema, named: Mapping[str, str]) -> dict[str, str]:
        by_lower = {name.lower(): name for name in reversed(schema.names)}
        found = {word: by_lower[word] for word in (ID, *MODALITIES) if word in by_lower}
        for kind, modality in _FEATURES.items():
            of_kind = [name for name, feature in self._features.items() if feature.get("_type") == kind]
            if modality not in found and len(of_kind) == 1:
                found[modality] = of_kind[0]
        for word, column in named.items():
            if column not in schema.names:
                raise UsageError(f"{self._name} has no column {column!r}. Columns: {', '.join(schema.names)}.")
            found = {w: c for w, c in found.items() if c != column} | {word: column}
        for word, column in found.items():
            if word not in (ID, "text") and not holds_payloads(kind := schema.field(column).type):
                raise SourceError(f"{self._name}: column {column!r} should hold paths, bytes or both, but is {kind}.")
        return found


def open_table(table: Any, columns: Mapping[str, str] | None = None, *, bare: bool = False) -> ArrowSource:
    """A table in memory: pyarrow's, a pandas or Polars data frame, or anything else that speaks Arrow's C stream interface.

    Its index is a column where it has a name.

    Raises
    ------
    SourceError
    """
    import pyarrow as pa

    kind = f"the {type(table).__module__.partition('.')[0]} {type(table).__name__}"
    try:
        arrow = pa.Table.from_pandas(table) if kind.startswith("the pandas") else pa.table(table)
    except (pa.ArrowException, TypeError, ValueError) as error:
        reason = one_line(". ".join(str(part) for part in error.args).rstrip(". "))
        raise SourceError(f"{kind}: {reason}. Make the values of each column of one type.") from error
    arrow = arrow.drop_columns([name for name in arrow.column_names if name.startswith("__index_level_")])
    part = Part(None, arrow.schema, lambda: int(arrow.num_rows), lambda: iter(arrow.to_batches()))
    return ArrowSource([part], kind, columns, paths_are_ids=True, bare=bare)


def open_arrow_file(path: str, columns: Mapping[str, str] | None = None, *, bare: bool = False) -> ArrowSource:
    """An Arrow file, or an Arrow stream in a file.

    Raises
    ------
    SourceError
    """
    import pyarrow as pa

    def read() -> Iterator[pa.RecordBatch]:
        with pa.memory_map(path) as source:
            try:
                file = pa.ipc.open_file(source)
            except pa.ArrowInvalid:  # a stream
                yield from mapped_batches(Path(path))
                return
            for i in range(file.num_record_batches):
                yield checked(file.get_batch(i))

    try:
        first = next(read(), None)
        if first is None:
            raise SourceError(f"{path} holds no rows.")
        part = Part(None, first.schema, lambda: sum(batch.num_rows for batch in read()), _told(read, path))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise SourceError(f"{path} cannot be read as an Arrow file: {one_line(error)}") from error
    return ArrowSource([part], path, columns, folder_of(path), paths_are_ids=True, bare=bare)


def _told(read: Callable[[], Iterator[pa.RecordBatch]], path: str) -> Callable[[], Iterator[pa.RecordBatch]]:
    """`read`, whose errors name the file."""
    import pyarrow as pa

    def told() -> Iterator[pa.RecordBatch]:
        try:
            yield from read()
        except (OSError, ValueError, pa.ArrowException) as error:
            raise SourceError(f"{path} cannot be read as an Arrow file: {one_line(error)}") from error

    return told


def checked(batch: pa.RecordBatch) -> pa.RecordBatch:
    """`batch`, of which no offset leads out of its buffers: those of an Arrow file are used as they are.

    Raises
    ------
    ArrowInvalid, UnicodeDecodeError
    """
    batch.validate(full=True)
    _ = batch.schema.names
    return batch


def mapped_batches(file: Path) -> Iterator[pa.RecordBatch]:
    """The batches of an Arrow stream, without a copy; pages that were read are given back."""
    import pyarrow as pa

    try:
        with open(file, "rb") as opened:
            mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)  # closed with the last batch that looks into it
        for batch in pa.ipc.open_stream(pa.py_buffer(mapped)):
            yield checked(batch)
            mapped.madvise(mmap.MADV_DONTNEED)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise SourceError(f"{file} cannot be read as an Arrow stream: {one_line(error)}") from error


def _not_blank(column: pa.Array) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = fitted(column, pa.string())
    return pc.if_else(blank(texts), pa.scalar(None, pa.string()), texts)
