"""Datasets as streams of Arrow record batches: folders, tables, tars, Hugging Face datasets, lists, standard input."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from embedstore.errors import SourceError, UsageError
from embedstore.sources.base import MODALITY_OF, Source
from embedstore.sources.files import TIMEOUT, exists, is_url
from embedstore.sources.folder import FolderSource, holds_media
from embedstore.sources.huggingface import PREFIX, HuggingFaceSource, is_saved, open_named, open_saved
from embedstore.sources.lines import LinesSource
from embedstore.sources.memory import MemorySource
from embedstore.sources.paths import PathListSource
from embedstore.sources.table import TableSource
from embedstore.sources.tar import IS_TAR
from embedstore.sources.webdataset import WebDatasetSource, expand, shards_in

__all__ = [
    "TIMEOUT",
    "FolderSource",
    "HuggingFaceSource",
    "LinesSource",
    "MemorySource",
    "PathListSource",
    "Source",
    "TableSource",
    "WebDatasetSource",
    "leave_text",
    "open_source",
]

STDIN = "-"
LISTS = (".txt", ".lst")

KINDS = (
    "a folder (of media files, of WebDataset tars, or saved by datasets), a table (.csv, .tsv, .jsonl, .parquet), "
    "WebDataset tars (data-{000..012}.tar, 'data-*.tar'), a list of paths (.txt, .lst), a media file, hf:NAME, or - for JSON "
    "lines on standard input"
)


def open_source(
    dataset: str | os.PathLike[str] | Source, columns: Mapping[str, str] | None = None, *, timeout: float = TIMEOUT
) -> Source:
    """A source for `dataset`, by what it is.

    Parameters
    ----------
    dataset : str, path or Source
        A folder: of media files, of WebDataset tars (as img2dataset writes them), or saved by `datasets`. A table: CSV, TSV,
        JSONL or Parquet. A tar, or several: ``data-{000..012}.tar``, ``data-*.tar``. ``.txt`` or ``.lst``: a list of paths. Any
        other media file. ``hf:NAME[/CONFIG][:SPLIT]``. ``"-"``: JSON lines on standard input. Tables, tars and lists may be
        URLs.
    columns : mapping, optional
        ``"id"`` or modality → column name; in tars the extension or a metadata key.
    timeout : float
        Seconds that a read from a URL may take.

    Raises
    ------
    SourceError, UsageError, MissingDependencyError
    """
    if isinstance(dataset, Source):
        return dataset
    text = os.fspath(dataset)
    if text == STDIN:
        return LinesSource(sys.stdin.buffer, columns)
    if text.startswith(PREFIX):
        return open_named(text, columns)
    if not is_url(text) and os.path.isdir(text):
        return _open_folder(Path(text), columns)
    ending = os.path.splitext(text)[1].lower()
    if IS_TAR.search(text):
        return WebDatasetSource(expand(text, timeout=timeout), columns, name=text, timeout=timeout)
    if not is_url(text) and not os.path.exists(text) and glob.has_magic(text):
        raise SourceError(f"{text}: only tars can be named by a pattern, such as 'data-*.tar'. Expected {KINDS}.")
    if not exists(text, timeout=timeout):
        raise SourceError(f"{text} does not exist; expected {KINDS}.")
    if ending in LISTS:
        _refuse_columns(text, "a list of paths", columns)
        return PathListSource(text, timeout=timeout)
    if modality := MODALITY_OF.get(ending):
        _refuse_columns(text, "a media file", columns)
        path = text if is_url(text) else os.path.abspath(text)
        return MemorySource({"id": [os.path.basename(text)], modality: [path]}, name=text)
    return TableSource(text, columns, timeout=timeout)


def leave_text(source: Source, names: Iterable[str]) -> None:
    """Have metadata columns come as the text that they are written as, from sources that would guess their types."""
    if hasattr(source, "leave_text"):
        source.leave_text(names)


def _open_folder(path: Path, columns: Mapping[str, str] | None) -> Source:
    if is_saved(path):
        return open_saved(path, columns)
    if (shards := shards_in(str(path))) and not holds_media(path):
        return WebDatasetSource(shards, columns, name=str(path))
    _refuse_columns(str(path), "a folder", columns)
    return FolderSource(path)


def _refuse_columns(name: str, kind: str, columns: Mapping[str, str] | None) -> None:
    if columns:
        raise UsageError(f"{name} is {kind}; columns can only be named for a table, tars or a Hugging Face dataset.")
