"""Hugging Face datasets as a source: folders written by ``save_to_disk``, and datasets by name.

A saved folder is read by pyarrow alone: its Arrow files are mapped, and their schema carries the features. Only names
(``hf:NAME``) need the package ``datasets`` (extra ``hf``).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedstore._core.hub import hub
from embedstore.errors import SourceError, UsageError, one_line
from embedstore.registry import require
from embedstore.sources.arrow import ArrowSource, Part, mapped_batches

if TYPE_CHECKING:
    import pyarrow as pa

PREFIX = "hf:"
STATE, SPLITS = "state.json", "dataset_dict.json"


def is_saved(folder: Path) -> bool:
    """Whether `folder` was written by ``save_to_disk``."""
    return (folder / SPLITS).is_file() or ((folder / STATE).is_file() and (folder / "dataset_info.json").is_file())


def open_saved(folder: Path, columns: Mapping[str, str] | None = None, *, bare: bool = False) -> ArrowSource:
    """The dataset, or the dictionary of splits, that ``save_to_disk`` wrote to `folder`.

    Raises
    ------
    SourceError
    """
    if (folder / SPLITS).is_file():
        splits = [_saved_split(folder / name, name) for name in _json(folder / SPLITS)["splits"]]
    else:
        splits = [_saved_split(folder, None)]
    return ArrowSource(splits, str(folder.absolute()), columns, str(folder.absolute()), bare=bare)


def open_named(name: str, columns: Mapping[str, str] | None = None, *, bare: bool = False) -> ArrowSource:
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
    return ArrowSource([_loaded_split(part, label) for label, part in parts], name, columns, bare=bare)


def _saved_split(folder: Path, name: str | None) -> Part:
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
        return (batch for file in files for batch in mapped_batches(file))

    return Part(name, schema, lambda: sum(batch.num_rows for batch in read()), read)


def _loaded_split(dataset: Any, name: str | None) -> Part:
    arrow = dataset.with_format("arrow")
    schema = dataset.features.arrow_schema

    def read() -> Iterator[pa.RecordBatch]:
        for table in arrow.iter(256):
            yield from table.cast(schema).to_batches()

    return Part(name, schema, lambda: len(dataset), read)


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


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise SourceError(f"{path} cannot be read as JSON: {one_line(error)}. Save the dataset again.") from error
