"""Datasets as streams of Arrow record batches: folders, tables, tars, Hugging Face datasets, lists, standard input."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from embedstore.errors import SourceError, UsageError
from embedstore.sources.arrow import ENDINGS, ArrowSource, open_arrow_file, open_table
from embedstore.sources.base import MODALITY_OF, Source
from embedstore.sources.confined import Root
from embedstore.sources.files import TIMEOUT, exists, is_url, matching, natural
from embedstore.sources.folder import FolderSource, holds_media
from embedstore.sources.huggingface import PREFIX, is_saved, open_named, open_saved
from embedstore.sources.lines import LinesSource
from embedstore.sources.memory import MemorySource
from embedstore.sources.paths import PathListSource
from embedstore.sources.table import PARQUET, TableSource, parquet_parts
from embedstore.sources.tar import IS_TAR, beside_shards, expand, shards_in
from embedstore.sources.webdataset import WebDatasetSource

__all__ = [
    "TIMEOUT",
    "ArrowSource",
    "Dataset",
    "FolderSource",
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
    "a folder (of media files, of Parquet parts, of WebDataset tars, or saved by datasets), a table (.csv, .tsv, .jsonl, "
    ".parquet, 'part-*.parquet', .arrow), WebDataset tars (data-{000..012}.tar, 'data-*.tar'), a list of paths (.txt, .lst), a "
    "media file, hf:NAME, or - for JSON lines on standard input"
)


Dataset = str | os.PathLike[str] | Source | Any
"""What `open_source` takes; a data frame is known by what it does."""


def open_source(
    dataset: Dataset, columns: Mapping[str, str] | None = None, *, timeout: float = TIMEOUT, root: Root | None = None
) -> Source:
    """A source for `dataset`, by what it is.

    Parameters
    ----------
    dataset : str, path, table or Source
        A folder: of media files, of Parquet parts, of WebDataset tars (as img2dataset writes them), or saved by `datasets`. A
        table: CSV, TSV, JSONL, Parquet (several: ``part-*.parquet``) or Arrow; or one in memory: pyarrow, pandas, Polars. A
        tar, or several: ``data-{000..012}.tar``, ``data-*.tar``. ``.txt`` or ``.lst``: a list of paths. Any other media file.
        ``hf:NAME[/CONFIG][:SPLIT]``. ``"-"``: JSON lines on standard input. Tables, tars and lists may be URLs.
    columns : mapping, optional
        ``"id"`` or modality → column name; in tars the extension or a metadata key.
    timeout : float
        Seconds that a read from a URL may take.
    root : Root, optional
        The folder that texts in files of their own may come from.

    Raises
    ------
    SourceError, UsageError, MissingDependencyError
    """
    if isinstance(dataset, Source):
        return dataset
    if hasattr(dataset, "__arrow_c_stream__"):
        return open_table(dataset, columns)
    text = os.fspath(dataset)
    if text == STDIN:
        if sys.stdin is None:
            raise SourceError("Standard input is closed; pipe JSON lines into it: ... | embedstore embed - --store STORE.")
        return LinesSource(sys.stdin.buffer, columns)
    if text.startswith(PREFIX):
        return open_named(text, columns)
    if not is_url(text) and os.path.isdir(text):
        return _open_folder(Path(text), columns, root)
    ending = os.path.splitext(text)[1].lower()
    if IS_TAR.search(text):
        return WebDatasetSource(expand(text, timeout=timeout), columns, name=text, timeout=timeout)
    if ending in PARQUET and glob.has_magic(text) and not exists(text, timeout=timeout):
        if not (files := natural(matching(text, timeout=timeout))):
            raise SourceError(f"{text}: no file matches the pattern. Expected {KINDS}.")
        return TableSource(text, columns, files=files, timeout=timeout)
    if not is_url(text) and not os.path.exists(text) and glob.has_magic(text):
        raise SourceError(
            f"{text}: only tars and Parquet files can be named by a pattern, such as 'data-*.tar'. Expected {KINDS}."
        )
    if not exists(text, timeout=timeout):
        raise SourceError(f"{text} does not exist; expected {KINDS}.")
    if ending in LISTS:
        _refuse_columns(text, "a list of paths", columns)
        return PathListSource(text, timeout=timeout, root=root)
    if ending in ENDINGS and not is_url(text):
        return open_arrow_file(text, columns)
    if modality := MODALITY_OF.get(ending):
        _refuse_columns(text, "a media file", columns)
        path = text if is_url(text) else os.path.abspath(text)
        return MemorySource({"id": [os.path.basename(text)], modality: [path]}, name=text)
    return TableSource(text, columns, timeout=timeout)


def leave_text(source: Source, names: Iterable[str]) -> None:
    """Have metadata columns come as the text that they are written as, from sources that would guess their types."""
    if hasattr(source, "leave_text"):
        source.leave_text(names)


def _open_folder(path: Path, columns: Mapping[str, str] | None, root: Root | None) -> Source:
    if is_saved(path):
        return open_saved(path, columns)
    if (shards := shards_in(str(path))) and not holds_media(path):
        return WebDatasetSource(shards, columns, name=str(path), beside=beside_shards(str(path)))
    if (files := parquet_parts(path)) and not holds_media(path):
        return TableSource(path, columns, files=files)
    _refuse_columns(str(path), "a folder", columns)
    return FolderSource(path, within=root)


def _refuse_columns(name: str, kind: str, columns: Mapping[str, str] | None) -> None:
    if columns:
        raise UsageError(f"{name} is {kind}; columns can only be named for a table, tars or a Hugging Face dataset.")
