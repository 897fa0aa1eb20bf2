"""The kinds of dataset, in the order in which they are asked whether one is theirs.

Each is an entry point of the group ``embedstore.sources``: a function that returns a source where it knows the dataset, and
None otherwise. The first line of its docstring is what help and errors say of it.
"""

from __future__ import annotations

import glob
import os
import sys
from pathlib import Path

from embedstore.errors import SourceError, UsageError
from embedstore.sources.arrow import ENDINGS, ArrowSource, open_arrow_file, open_table
from embedstore.sources.base import MODALITY_OF, Source, SourceRequest
from embedstore.sources.files import matching, natural
from embedstore.sources.folder import FolderSource, holds_media
from embedstore.sources.huggingface import PREFIX, is_saved, open_named, open_saved
from embedstore.sources.left_out import STORE, LeftOut
from embedstore.sources.lines import LinesSource
from embedstore.sources.memory import MemorySource
from embedstore.sources.paths import PathListSource
from embedstore.sources.table import PARQUET, TableSource, parquet_parts
from embedstore.sources.tabular import READERS
from embedstore.sources.tar import IS_TAR, beside_shards, expand, shards_in
from embedstore.sources.webdataset import WebDatasetSource

STDIN = "-"
LISTS = (".txt", ".lst")


def folder(asked: SourceRequest) -> Source | None:
    """a folder (of media files, of Parquet parts, of WebDataset tars, or saved by Hugging Face datasets)"""
    if not asked.is_folder or asked.text == STDIN or asked.text.startswith(PREFIX):  # a folder of that name is ./-
        return None
    path, beside = Path(asked.text), LeftOut()
    if (path / STORE).exists():
        raise SourceError(f"{path} is a store of embedstore, no dataset: give the folder or table that it was embedded from.")
    if is_saved(path):
        return open_saved(path, asked.columns, bare=asked.bare)
    if (shards := shards_in(str(path))) and not holds_media(path):
        return WebDatasetSource(shards, asked.columns, name=str(path), beside=beside_shards(str(path)))
    if (files := parquet_parts(path, beside)) and not holds_media(path):
        return TableSource(path, asked.columns, files=files, beside=beside, bare=asked.bare)
    _refuse_columns(asked, "a folder")
    return FolderSource(path, within=asked.root)


def table(asked: SourceRequest) -> TableSource | None:
    """a table (.csv, .tsv, .jsonl, .parquet, or Parquet parts: 'part-*.parquet'), a file or a URL"""
    if asked.ending in PARQUET and glob.has_magic(asked.text) and not asked.exists:
        if not (files := natural(matching(asked.text, timeout=asked.timeout))):
            raise SourceError(
                f"{asked.text}: no file matches the pattern; expected the parts of one table, such as 'part-*.parquet'."
            )
        return TableSource(asked.text, asked.columns, files=files, timeout=asked.timeout, bare=asked.bare)
    if asked.ending not in READERS or not asked.exists:
        return None
    return TableSource(asked.text, asked.columns, timeout=asked.timeout, bare=asked.bare)


def arrow(asked: SourceRequest) -> ArrowSource | None:
    """a file in Arrow's format (.arrow, .feather, .ipc)"""
    known = asked.ending in ENDINGS and not asked.is_url and asked.exists
    return open_arrow_file(asked.text, asked.columns, bare=asked.bare) if known else None


def tars(asked: SourceRequest) -> WebDatasetSource | None:
    """WebDataset tars (data-{000..012}.tar, 'data-*.tar'), of files or URLs"""
    if not IS_TAR.search(asked.text):
        return None
    return WebDatasetSource(expand(asked.text, timeout=asked.timeout), asked.columns, name=asked.text, timeout=asked.timeout)


def paths(asked: SourceRequest) -> PathListSource | None:
    """a list of paths (.txt, .lst), a file or a URL"""
    if asked.ending not in LISTS or not asked.exists:
        return None
    _refuse_columns(asked, "a list of paths")
    return PathListSource(asked.text, timeout=asked.timeout, root=asked.root)


def media(asked: SourceRequest) -> MemorySource | None:
    """a media file, or its URL"""
    if not (modality := MODALITY_OF.get(asked.ending)) or not asked.exists:
        return None
    _refuse_columns(asked, "a media file")
    path = asked.text if asked.is_url else os.path.abspath(asked.text)
    return MemorySource({"id": [os.path.basename(asked.text)], modality: [path]}, name=asked.text)


def hub(asked: SourceRequest) -> ArrowSource | None:
    """hf:NAME[/CONFIG][:SPLIT], a dataset of Hugging Face"""
    return open_named(asked.text, asked.columns, bare=asked.bare) if asked.text.startswith(PREFIX) else None


def stdin(asked: SourceRequest) -> LinesSource | None:
    """- for JSON lines on standard input"""
    if asked.text != STDIN:
        return None
    if sys.stdin is None:
        raise SourceError("Standard input is closed; pipe JSON lines into it: ... | embedstore embed - --store STORE.")
    return LinesSource(sys.stdin.buffer, asked.columns, bare=asked.bare)


def memory(asked: SourceRequest) -> ArrowSource | None:
    """a data frame of pyarrow, pandas or Polars (in Python)"""
    return open_table(asked.dataset, asked.columns, bare=asked.bare) if hasattr(asked.dataset, "__arrow_c_stream__") else None


def _refuse_columns(asked: SourceRequest, kind: str) -> None:
    if asked.columns:
        raise UsageError(f"{asked.text} is {kind}; columns can only be named for a table, tars or a Hugging Face dataset.")
