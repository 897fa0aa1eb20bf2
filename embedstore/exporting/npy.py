"""One ``.npy`` file a space, whose rows are those of the Parquet files beside them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from embedstore._core.atomic_files import fsync_path
from embedstore._core.result_files import writing
from embedstore.exporting.arrow_tables import metadata_table, read_parquet, write_parquet
from embedstore.exporting.base import ID, Array, Items, Mask, Plan, Slice, VectorColumn
from embedstore.exporting.export_folder import FolderExporter
from embedstore.exporting.npy_files import make_room, put_rows, rows_of, with_nan, without_nan

if TYPE_CHECKING:
    import pyarrow as pa

STAGING = ".unfinished"
PLACING = ".complete"
"""What `STAGING` is called while its files are put in their places: whatever is left of it belongs there."""


class NpyExporter(FolderExporter):
    """A .npy file a space, with ids and metadata in Parquet, row by row"""

    kind: ClassVar[str] = "npy"
    nan_for_missing: ClassVar[bool] = True

    def column_of(self, space: str) -> str:
        return f"{space}.npy"

    def files(self, number: int) -> list[str]:
        return [f"metadata/metadata_{number:05d}.parquet"]

    def path(self, name: str) -> Path:
        return (self._staging if self._writing else self.folder) / name

    @property
    def _staging(self) -> Path:
        return self.folder / STAGING

    _writing = False

    def open(self, plan: Plan) -> None:
        super().open(plan)
        with writing(self.folder):
            if (self.folder / PLACING).is_dir():  # a kill came between two moves
                self._place()
                self._was_complete = True

    def begin(self, items: Items, digests: Sequence[str], done: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Arrays have one length: where anything changed they are written anew, beside what is there."""
        same = self._was_complete and len(done) == len(digests) and self._lie_in(self.folder, len(items))
        if same and all(self._stands(i, digest) for i, digest in enumerate(digests)):
            return done
        self._writing = True
        whole = (self._staging / "metadata").is_dir() and self._lie_in(self._staging, len(items))
        if not self._was_complete and whole:
            return done
        shutil.rmtree(self._staging, ignore_errors=True)
        (self._staging / "metadata").mkdir(parents=True)
        for column in self._plan.vectors:
            make_room(self._staging / column.column, (len(items), column.dim), column.dtype)
        self._slices = []
        self._record(complete=False)
        return []

    def _lie_in(self, folder: Path, count: int) -> bool:
        """Whether there are arrays of so many rows in `folder`."""
        try:
            shapes = [np.load(folder / column.column, mmap_mode="r").shape for column in self._plan.vectors]
        except (OSError, ValueError, EOFError):
            return False
        return all(shape == (count, column.dim) for shape, column in zip(shapes, self._plan.vectors, strict=True))

    def write(self, number: int, items: Slice) -> None:
        lo = number * self.slice_items
        for column in self._plan.vectors:
            rows = with_nan(items.vectors[column.column], items.present[column.column])
            put_rows(self._staging / column.column, lo, rows)
        write_parquet(self.path(self.files(number)[0]), metadata_table(self._plan, items))

    def finish(self) -> None:
        if not self._writing:
            return
        os.rename(self._staging, self.folder / PLACING)
        fsync_path(self.folder)
        self._place()
        self._writing = False

    def _place(self) -> None:
        """Move what `PLACING` holds over what is there from before, and as often as it takes."""
        placing = self.folder / PLACING
        for name in ("metadata", *(column.column for column in self._plan.vectors)):
            if os.path.lexists(placing / name):
                if name == "metadata":
                    shutil.rmtree(self.folder / name, ignore_errors=True)
                os.replace(placing / name, self.folder / name)
        placing.rmdir()
        fsync_path(self.folder)

    def read(self, number: int, *, vectors: bool = True) -> tuple[pa.Table, dict[str, tuple[Array, Mask]]]:
        table = read_parquet(self.folder / self.files(number)[0], None if vectors else [ID])
        lo = number * self.slice_items
        columns: Sequence[VectorColumn] = self._plan.vectors if vectors else ()
        found = {}
        for column in columns:
            found[column.column] = without_nan(rows_of(self.folder / column.column, lo, table.num_rows))
        return table, found
