"""Datasets as streams of Arrow record batches: a folder, a table, one file, or items in memory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from embedstore.errors import SourceError, UsageError
from embedstore.sources.base import MODALITY_OF, Source
from embedstore.sources.folder import FolderSource
from embedstore.sources.memory import MemorySource
from embedstore.sources.table import TableSource

__all__ = ["FolderSource", "MemorySource", "Source", "TableSource", "open_source"]


def open_source(dataset: str | os.PathLike[str] | Source, columns: Mapping[str, str] | None = None) -> Source:
    """A source for `dataset`: a folder, a table, or anything that already is a source.

    Parameters
    ----------
    columns : mapping, optional
        For a table: ``"id"`` or modality → column name.
    """
    if isinstance(dataset, Source):
        return dataset
    path = Path(dataset)
    if not path.exists():
        raise SourceError(f"{path} does not exist; expected a folder, a media file, or a table (.csv, .tsv, .jsonl, .parquet).")
    if path.is_dir():
        if columns:
            raise UsageError(f"{path} is a folder; columns can only be named for a table.")
        return FolderSource(path)
    if (modality := MODALITY_OF.get(path.suffix.lower())) and modality != "text":
        return MemorySource({"id": [path.name], modality: [str(path.absolute())]}, name=str(path))
    return TableSource(path, columns)
