"""An index as files: what FAISS writes, which vector each label is, and where walks begin."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from embedstore._core.folders import Folder
from embedstore.errors import CorruptStoreError, StoreError, one_line
from embedstore.indexing.base import Base
from embedstore.indexing.entries import Entries
from embedstore.indexing.recipe import Recipe
from embedstore.indexing.vectors import Vectors
from embedstore.registry import require

FAISS, LABELS, ENTRIES = "faiss", "labels", "entries"


def write_base(base: Base, folder: Folder, number: int) -> dict[str, str]:
    """Write the files of `base` durably; returns their names by role."""
    faiss = require("faiss", extra="cpu")
    names = {FAISS: f"base-{number:06d}.faiss"}
    names |= {} if base.plain else {LABELS: f"labels-{number:06d}.npy"}
    names |= {} if base.entries is None else {ENTRIES: f"entries-{number:06d}.faiss"}
    try:
        for role, name in names.items():
            with folder.replacing(name) as file:
                if role == FAISS:
                    faiss.write_index(base.index, file.name)
                elif role == ENTRIES and base.entries is not None:
                    base.entries.write(Path(file.name))
                else:
                    np.save(file, base.labels)
    except (RuntimeError, OSError) as error:
        raise StoreError(
            f"The index could not be written to {folder.path} ({one_line(error)}). The store itself is untouched; "
            "make room and try again."
        ) from error
    return names


def read_base(paths: dict[str, Path], recipe: Recipe, vectors: Vectors, count: int, *, resident: bool) -> Base:
    """A base from its files, whose digests were compared.

    Parameters
    ----------
    count : int
        How many vectors it holds.
    resident : bool
        Read it into memory; otherwise it is mapped, and a search touches only what it needs.
    """
    faiss = require("faiss", extra="cpu")
    try:
        index: Any = faiss.read_index(os.fspath(paths[FAISS]), 0 if resident else faiss.IO_FLAG_MMAP_IFC)
        labels = (
            np.load(paths[LABELS], mmap_mode=None if resident else "r", allow_pickle=False)
            if LABELS in paths
            else np.arange(count, dtype=np.int32)
        )
        entries = Entries.read(paths[ENTRIES], vectors.dim, count) if ENTRIES in paths else None
    except (RuntimeError, OSError, ValueError) as error:
        raise CorruptStoreError(f"{paths[FAISS]} cannot be loaded ({one_line(error)}).") from error
    if labels.shape != (count,) or labels.dtype.kind != "i" or (count and not 0 <= labels.min() <= labels.max() < len(vectors)):
        raise CorruptStoreError(f"{paths.get(LABELS, paths[FAISS])} does not label {count:,} of {len(vectors):,} vectors.")
    if index.ntotal != count or index.d != vectors.dim:
        raise CorruptStoreError(f"{paths[FAISS]} holds {index.ntotal:,} vectors of {index.d}, not {count:,} of {vectors.dim}.")
    return Base(index, recipe, labels, vectors, entries)
