"""`VectorSource`: vectors that somebody else computed, with ids and metadata, row by row."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from embedstore._core.column_types import word_of
from embedstore._core.column_values import fitted
from embedstore.errors import SourceError
from embedstore.sources.base import ID, free_name, kept_names
from embedstore.sources.vectors.arrays import Matrix
from embedstore.sources.vectors.columns import Columns, TextColumns

if TYPE_CHECKING:
    import pyarrow as pa

Named = tuple[Columns, str]
"""A column of a table, by its name."""


@dataclass(frozen=True)
class VectorSource:
    """Vectors with ids and metadata, row by row.

    Parameters
    ----------
    name : str
    matrices : mapping
        Modality → `Matrix`, all of the same number of rows; the key is ``""`` where the source does not say the modality.
    ids : (Columns, name), optional
        The column with the ids; without it an id is the number of the row, from 0.
    metadata : sequence of (Columns, names)
    id_columns : sequence of str
        Columns that give the ids where nobody says which.
    notes : sequence of str
        What was chosen, for people.
    """

    name: str
    matrices: Mapping[str, Matrix]
    ids: Named | None = None
    metadata: Sequence[tuple[Columns, Sequence[str]]] = ()
    id_columns: Sequence[str] = (ID,)
    notes: Sequence[str] = field(default=())

    @property
    def count(self) -> int:
        return next(iter(self.matrices.values())).shape[0]

    @property
    def bytes(self) -> int:
        """Of the vectors as they come."""
        return sum(m.shape[0] * m.shape[1] * m.itemsize for m in self.matrices.values())

    def id_blocks(self, size: int) -> Iterator[pa.Array]:
        """Ids as Arrow strings, `size` at a time.

        Raises
        ------
        SourceError
            An id is null or blank, or neither text nor a whole number.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        if self.ids is None:
            for lo in range(0, self.count, size):
                yield pc.cast(pa.array(np.arange(lo, min(self.count, lo + size))), pa.string())
            return
        columns, name = self.ids
        start = 0
        for table in columns.blocks(size, [name]):
            column = table.column(0)
            if word_of(column.type) not in ("text", "integer"):
                raise SourceError(f"{columns.name}: ids should be text or whole numbers; column {name!r} is {column.type}.")
            values = fitted(column, pa.string()).combine_chunks()
            blank = pc.equal(pc.utf8_trim_whitespace(values), "")
            if pc.any(pc.fill_null(blank, True)).as_py():
                row = start + int(np.flatnonzero(np.asarray(pc.fill_null(blank, True)))[0])
                raise SourceError(f"{columns.name}: row {row} (from 0) has no id in {name!r}. Fill it, or name another: --ids.")
            yield values
            start += table.num_rows

    def leave_text(self, names: Collection[str]) -> None:
        """Have metadata columns come as the text that they are written as, from files that do not say their types."""
        for columns, mine in self.metadata:
            if isinstance(columns, TextColumns):
                columns.leave_text(name for name in mine if free_name(name) in names)

    def kept_names(self) -> dict[str, str]:
        """Metadata column → the name under which the store keeps it.

        Raises
        ------
        SourceError
            Two would have one name.
        """
        every = [name for _, names in self.metadata for name in names]
        if twice := [name for i, name in enumerate(every) if name in every[:i]]:
            raise SourceError(f"{self.name} and its metadata both have a column {twice[0]!r}. Rename one, or leave one out.")
        return kept_names(every, self.name)

    def metadata_blocks(self, size: int) -> Iterator[dict[str, pa.ChunkedArray]]:
        """Column → values, `size` rows at a time; names that the store keeps for itself get an underscore."""
        streams = [columns.blocks(size, names) for columns, names in self.metadata if names]
        if not streams:
            yield from ({} for _ in range(0, self.count, size))
            return
        kept = self.kept_names()
        for tables in zip(*streams, strict=True):
            yield {kept[name]: table.column(name) for table in tables for name in table.column_names}
