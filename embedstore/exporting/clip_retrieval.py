"""The folder of clip-retrieval: ``img_emb/``, ``text_emb/`` and ``metadata/`` in numbered parts whose rows go together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from embedstore.errors import UsageError
from embedstore.exporting.arrow_tables import metadata_table, read_parquet, write_parquet
from embedstore.exporting.base import ID, Array, Mask, Slice
from embedstore.exporting.export_folder import FolderExporter
from embedstore.exporting.npy_files import save, with_nan, without_nan
from embedstore.sources.vectors.open import CLIP_RETRIEVAL
from embedstore.spec import EncoderSpec

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = {"image": "url", "text": "caption"}
"""Payloads as clip-retrieval calls them."""


class ClipRetrievalExporter(FolderExporter):
    """A folder as clip-retrieval and autofaiss read it: img_emb, text_emb, metadata"""

    kind: ClassVar[str] = "clip-retrieval"
    nan_for_missing: ClassVar[bool] = True

    def spaces(self, specs: Mapping[str, EncoderSpec]) -> list[str]:
        """The first space of images and the first of texts."""
        self._folders: dict[str, str] = {}
        for name, spec in specs.items():
            folder = CLIP_RETRIEVAL.get(spec.modality)
            if folder is None or folder in self._folders.values():
                self.notes.append(f"space {name!r} has no place in a folder of clip-retrieval and is left out")
                continue
            self._folders[name] = folder
            if not spec.normalized:
                self.notes.append(
                    f"vectors of {name!r} are not of unit length: clip-retrieval's inner products are no cosines of them"
                )
        if not self._folders:
            raise UsageError("A folder of clip-retrieval holds vectors of images and of texts; none of the spaces has such.")
        if len({specs[name].alignment or name for name in self._folders}) > 1:
            self.notes.append("readers compare images with texts, which makes no sense of vectors by these two encoders")
        return list(self._folders)

    def column_of(self, space: str) -> str:
        return self._folders[space]

    def metadata_name(self, column: str) -> str:
        return COLUMNS.get(column, column)

    def files(self, number: int) -> list[str]:
        arrays = [f"{column.column}/{column.column}_{number:05d}.npy" for column in self._plan.vectors]
        return [*arrays, f"metadata/metadata_{number:05d}.parquet"]

    def write(self, number: int, items: Slice) -> None:
        *arrays, metadata = (self.path(name) for name in self.files(number))
        for path, column in zip(arrays, self._plan.vectors, strict=True):
            present = items.present[column.column]
            save(path, with_nan(items.vectors[column.column], present))
        metadata.parent.mkdir(exist_ok=True)
        write_parquet(metadata, metadata_table(self._plan, items))

    def read(self, number: int, *, vectors: bool = True) -> tuple[pa.Table, dict[str, tuple[Array, Mask]]]:
        *arrays, metadata = (self.path(name) for name in self.files(number))
        found = {}
        if vectors:
            for path, column in zip(arrays, self._plan.vectors, strict=True):
                found[column.column] = without_nan(np.load(path, allow_pickle=False))
        return read_parquet(metadata, None if vectors else [ID]), found
