"""Parquet that DuckDB, LanceDB, pandas, polars and the external collections of Milvus read in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from embedstore.exporting.arrow_tables import arrow_table, numbers_of, pieces_in, read_parquet, write_parquet
from embedstore.exporting.base import ID, Array, Found, Mask, PieceColumns, Slice
from embedstore.exporting.export_folder import FolderExporter

if TYPE_CHECKING:
    import pyarrow as pa


class ParquetExporter(FolderExporter):
    """A folder of Parquet files: id, metadata, and vectors as lists of a fixed size"""

    kind: ClassVar[str] = "parquet"
    keeps_pieces: ClassVar[bool] = True

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
        columns = {column.column: column.dim for column in self._plan.vectors} if vectors else {}
        table = read_parquet(self.path(name), None if vectors else [ID])
        if vectors:
            table = table.drop_columns([name for pieces in self._kept_pieces.values() for name in pieces.names])
        return table.drop_columns(list(columns)), {name: numbers_of(table.column(name), dim) for name, dim in columns.items()}

    @property
    def _kept_pieces(self) -> dict[str, PieceColumns]:
        """Column of a space → those of its pieces."""
        return {column.column: column.pieces for column in self._plan.vectors if column.pieces is not None}

    def fetch(self, ids: Sequence[str]) -> dict[str, Found]:
        import pyarrow as pa
        import pyarrow.compute as pc

        found, wanted = super().fetch(ids), pa.array(ids, pa.string())
        for column, where in self._kept_pieces.items():
            for number in range(len(self._slices)):
                table = read_parquet(self.path(self.files(number)[0]), [ID, *where.names])
                table = table.filter(pc.is_in(table.column(ID), wanted))
                names = table.column(ID).to_pylist()
                for row, pieces in pieces_in(where, table).items():
                    found[names[row]] = found[names[row]]._replace(pieces={**found[names[row]].pieces, column: pieces})
        return found
