"""A few items in memory as a source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from embedstore.errors import SourceError, one_line
from embedstore.sources.base import ID, kept_names
from embedstore.spec import MODALITIES

if TYPE_CHECKING:
    import pyarrow as pa


class MemorySource:
    """Items given as columns.

    Parameters
    ----------
    columns : mapping of column name to sequence
        ``id``, payloads by modality (texts, and paths or bytes of files; None: missing), metadata.
    name : str
        What messages call it.
    """

    def __init__(self, columns: Mapping[str, Sequence[Any]], name: str = "items in memory") -> None:
        self._columns = dict(columns)
        self._name = name
        if ID not in columns or not any(m in columns for m in MODALITIES):
            raise SourceError(f"{name}: expected a column 'id' and one of {list(MODALITIES)}. Got {list(columns)} instead.")

    @property
    def name(self) -> str:
        return self._name

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(m for m in MODALITIES if m in self._columns)

    def count(self) -> int | None:
        return len(self._columns[ID])

    def batches(self) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        text = {ID, *MODALITIES}
        try:
            kept = kept_names((k for k in self._columns if k not in text), self._name)
            arrays = {kept.get(k, k): pa.array(list(v), _type(k, v) if k in text else None) for k, v in self._columns.items()}
            batch = pa.RecordBatch.from_pydict(arrays)
        except (pa.ArrowException, TypeError) as error:
            raise SourceError(
                f"{self._name}: {one_line(error)} Give ids, texts and paths as strings, other payloads as bytes."
            ) from error
        if batch.column(ID).null_count:
            raise SourceError(f"{self._name}: an id is None. Every item needs one.")
        yield batch


def _type(column: str, values: Sequence[Any]) -> pa.DataType:
    import pyarrow as pa

    first = next((value for value in values if value is not None), None)
    return pa.large_binary() if isinstance(first, bytes) and column not in (ID, "text") else pa.string()
