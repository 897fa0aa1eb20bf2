"""Datasets as streams of Arrow record batches: folders, tables, tars, Hugging Face datasets, lists, standard input."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Mapping
from typing import Any

from embedstore._core.arguments import TIMEOUT, shown
from embedstore.errors import SourceError
from embedstore.registry import SOURCES
from embedstore.sources.arrow import ArrowSource
from embedstore.sources.base import Source, SourceRequest
from embedstore.sources.confined import Root
from embedstore.sources.files import absent
from embedstore.sources.folder import FolderSource
from embedstore.sources.lines import LinesSource
from embedstore.sources.memory import MemorySource
from embedstore.sources.paths import PathListSource
from embedstore.sources.table import TableSource
from embedstore.sources.tabular import READERS
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
    "SourceRequest",
    "TableSource",
    "WebDatasetSource",
    "leave_text",
    "open_source",
]

Dataset = str | os.PathLike[str] | Source | Any
"""What `open_source` takes; a data frame is known by what it does."""


def open_source(
    dataset: Dataset,
    columns: Mapping[str, str] | None = None,
    *,
    timeout: float = TIMEOUT,
    root: Root | None = None,
    bare: bool = False,
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
    bare : bool
        A table without a column of payloads will do.

    Raises
    ------
    SourceError, UsageError, MissingDependencyError
    """
    if isinstance(dataset, Source):
        return dataset
    asked = SourceRequest(dataset, columns, timeout, root, bare)
    for kind in SOURCES:
        source: Source | None = SOURCES.get(kind)(asked)
        if source is not None:
            return source
    raise SourceError(_not_known(asked))


def _not_known(asked: SourceRequest) -> str:
    """Why no kind of dataset took this one."""
    if asked.text and not asked.exists:
        if not asked.is_url and glob.has_magic(asked.text):
            return f"{asked.text}: only tars and Parquet files can be named by a pattern: 'data-*.tar', 'part-*.parquet'."
        return absent(asked.text)
    if not isinstance(asked.dataset, str | os.PathLike):
        return f"A dataset must be a path, a URL, a data frame or a Source. Got {shown(asked.dataset)} instead."
    if not asked.text:
        return "DATASET is empty: name a folder, a table, or another kind of dataset ('.' is this folder)."
    *kinds, last = (SOURCES.summary(kind) for kind in SOURCES)
    expected = f"{', '.join(kinds)}, or {last}"
    return f"{asked.text}: expected a file ending in {', '.join(READERS)}, or {expected}."


def leave_text(source: Source, names: Iterable[str]) -> None:
    """Have metadata columns come as the text that they are written as, from sources that would guess their types."""
    if hasattr(source, "leave_text"):
        source.leave_text(names)
