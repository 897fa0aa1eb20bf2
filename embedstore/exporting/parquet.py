"""Parquet that DuckDB, LanceDB, pandas, polars and the external collections of Milvus read in place."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from embedstore.exporting.arrow_tables import arrow_table, numbers_of, read_parquet, write_parquet
from embedstore.exporting.base import ID, Array, Mask, Slice
from embedstore.exporting.export_folder import FolderExporter

if TYPE_CHECKING:
    import pyarrow as pa


class ParquetExporter(FolderExporter):
    """A folder of Parquet files: id, metadata, and vectors as lists of a fixed size"""

    kind: ClassVar[str] = "parquet"

    def files(self, number: int) -> list[str]:
        return [f"part-{number:05d}.parquet"]

    def table(self, items: Slice) -> pa.Table:
        """A slice as it is written."""
        return arrow_table(self._plan, items)

    def write(self, number: int, items: Slice) -> None:
        (name,) = self.files(number)
        write_parquet(self.path(name), self.table(items), self._plan.bytes_per_item)

    def read(self, number: int, *, vectors: bool = True) -> tuple[pa.Table, dict[str, tuple[Array, Mask]]]:
        (name,) = self.files(number)
        table = read_parquet(self.path(name), None if vectors else [ID])
        columns = {column.column: column.dim for column in self._plan.vectors} if vectors else {}
        return table.drop_columns(list(columns)), {name: numbers_of(table.column(name), dim) for name, dim in columns.items()}
