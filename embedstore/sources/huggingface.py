"""Hugging Face datasets as a source: folders written by ``save_to_disk``, and datasets by name.

A saved folder is read by pyarrow alone: its Arrow files are mapped, and their schema carries the features. Only names
(``hf:NAME``) need the package ``datasets`` (extra ``hf``).
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedstore._hub import hub
from embedstore.errors import SourceError, UsageError, one_line
from embedstore.registry import require
from embedstore.sources.base import BATCH_BYTES, BATCH_ROWS, BYTES, ID, free_name
from embedstore.sources.features import PATH, features_of, holds_payloads, named_labels, payload_bytes, payload_uris
from embedstore.spec import MODALITIES

if TYPE_CHECKING:
    import pyarrow as pa

PREFIX = "hf:"
STATE, SPLITS = "state.json", "dataset_dict.json"

_FEATURES = {"Image": "image", "Audio": "audio", "Video": "video"}


@dataclass(frozen=True)
class Split:
    """One split: its name (None where there are none), its schema; `count` and `read` give its rows, in order."""

    name: str | None
    schema: pa.Schema
    count: Callable[[], int]
    read: Callable[[], Iterator[pa.RecordBatch]]


class HuggingFaceSource:
    """The rows of a dataset, split after split; more than one split gives a column ``split``.

    Columns called id, image, text, audio and video are recognised, and the only column with an Image, Audio or Video feature,
    whatever its name. Class labels become their names. Without an id, the row number is the id (after the split's name,
    where there are several).

    Parameters
    ----------
    splits : sequence of Split
    name : str
        What messages call it.
    columns : mapping, optional
        ``"id"`` or modality → column.
    folder : str
        What relative paths in the dataset are relative to.
    """

    def __init__(
        self, splits: Sequence[Split], name: str, columns: Mapping[str, str] | None = None, folder: str | None = None
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
        if not self.modalities:
            raise SourceError(
                f"{name} has no column called {', '.join(MODALITIES)}. Columns: {', '.join(schema.names)}. "
                "Name one, such as --image-column NAME."
            )
        self._schema = schema

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
                    except pa.ArrowException as error:
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
                columns[free_name(name)] = named_labels(batch.column(name), self._features.get(name))
        if split is not None:
            columns["split"] = pa.array([split] * n, pa.string())
        return pa.RecordBatch.from_pydict(columns)

    def _ids(self, batch: pa.RecordBatch, split: str | None, start: int) -> pa.Array:
        import pyarrow as pa

        if ID not in self._columns:
            prefix = f"{split}/" if split is not None else ""
            return pa.array([f"{prefix}{i}" for i in range(start, start + batch.num_rows)], pa.string())
        ids = batch.column(self._columns[ID]).cast(pa.string())
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
            paths = column.cast(pa.string()).to_pylist() if payloads is None else [None] * len(column)
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


def is_saved(folder: Path) -> bool:
    """Whether `folder` was written by ``save_to_disk``."""
    return (folder / SPLITS).is_file() or ((folder / STATE).is_file() and (folder / "dataset_info.json").is_file())


def open_saved(folder: Path, columns: Mapping[str, str] | None = None) -> HuggingFaceSource:
    """The dataset, or the dictionary of splits, that ``save_to_disk`` wrote to `folder`.

    Raises
    ------
    SourceError
    """
    if (folder / SPLITS).is_file():
        splits = [_saved_split(folder / name, name) for name in _json(folder / SPLITS)["splits"]]
    else:
        splits = [_saved_split(folder, None)]
    return HuggingFaceSource(splits, str(folder.absolute()), columns, str(folder.absolute()))


def open_named(name: str, columns: Mapping[str, str] | None = None) -> HuggingFaceSource:
    """The dataset that ``hf:NAME[/CONFIG][:SPLIT]`` names: ``hf:ORG/DATASET``, or a local folder that ``datasets`` can read.

    Raises
    ------
    SourceError
        It cannot be had.
    MissingDependencyError
    """
    datasets = require("datasets", extra="hf")
    path, config, split = _parse(name)
    with hub() as absent:
        try:
            loaded = datasets.load_dataset(path, config, split=split)
        except Exception as error:  # the library's own, those of its builders and of the hub's client
            if absent and not os.path.exists(path):
                raise SourceError(
                    f"{name} is not in the cache, and {absent}. Name a local folder (saved by save_to_disk, or hf:./FOLDER), "
                    "or fill the cache on a machine that reaches the hub (HF_HOME says where it is)."
                ) from error
            raise SourceError(
                f"{name}: datasets.load_dataset({path!r}, {config!r}, split={split!r}) failed: {one_line(error, 200)} "
                "Expected hf:NAME, hf:ORG/NAME/CONFIG or hf:NAME:SPLIT."
            ) from error
    parts = loaded.items() if isinstance(loaded, dict) else [(None, loaded)]
    return HuggingFaceSource([_loaded_split(part, label) for label, part in parts], name, columns)


def _saved_split(folder: Path, name: str | None) -> Split:
    import pyarrow as pa

    state = _json(folder / STATE)
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise SourceError(f"{folder} keeps row indices of an old format; load it with datasets and save it again.")
    files = [folder / entry["filename"] for entry in state["_data_files"]]
    if not files:
        raise SourceError(f"{folder} holds no rows.")
    try:
        with pa.memory_map(str(files[0])) as source:
            schema = pa.ipc.open_stream(source).schema
    except (OSError, pa.ArrowException) as error:
        raise SourceError(f"{files[0]} cannot be read as an Arrow stream: {one_line(error)}") from error

    def read() -> Iterator[pa.RecordBatch]:
        return (batch for file in files for batch in _mapped(file))

    return Split(name, schema, lambda: sum(batch.num_rows for batch in read()), read)


def _mapped(file: Path) -> Iterator[pa.RecordBatch]:
    """The batches of an Arrow stream, without a copy; pages that were read are given back."""
    import pyarrow as pa

    try:
        with open(file, "rb") as opened:
            mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)  # closed with the last batch that looks into it
        for batch in pa.ipc.open_stream(pa.py_buffer(mapped)):
            yield batch
            mapped.madvise(mmap.MADV_DONTNEED)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise SourceError(f"{file} cannot be read as an Arrow stream: {one_line(error)}") from error


def _loaded_split(dataset: Any, name: str | None) -> Split:
    arrow = dataset.with_format("arrow")
    schema = dataset.features.arrow_schema

    def read() -> Iterator[pa.RecordBatch]:
        for table in arrow.iter(256):
            yield from table.cast(schema).to_batches()

    return Split(name, schema, lambda: len(dataset), read)


def _parse(name: str) -> tuple[str, str | None, str | None]:
    """Path, configuration and split of ``hf:NAME[/CONFIG][:SPLIT]``."""
    text = name.removeprefix(PREFIX)
    path, _, split = text.partition(":")
    if not path:
        raise UsageError(f"{name}: expected hf:NAME, hf:ORG/NAME/CONFIG or hf:NAME:SPLIT.")
    parts = path.split("/")
    if os.path.exists(path) or len(parts) < 3:
        return path, None, split or None
    return "/".join(parts[:2]), "/".join(parts[2:]), split or None


def _not_blank(column: pa.Array) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = column.cast(pa.string())
    return pc.if_else(pc.equal(pc.utf8_trim_whitespace(texts), ""), pa.scalar(None, pa.string()), texts)


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise SourceError(f"{path} cannot be read as JSON: {one_line(error)}. Save the dataset again.") from error
