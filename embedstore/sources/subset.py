"""`Subset`: some of the items of another source."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from embedstore.sources.base import ID, Source

if TYPE_CHECKING:
    import pyarrow as pa


class Subset:
    """The items of `source` whose ids are kept, in its order.

    Parameters
    ----------
    source : Source
    keep : callable
        From ids (n,) to which of them are kept (n,) bool.
    """

    def __init__(self, source: Source, keep: Callable[[Sequence[str]], npt.NDArray[np.bool_]]) -> None:
        self._source = source
        self._keep = keep

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)  # what else a source may have: see `Source`

    @property
    def name(self) -> str:
        return self._source.name

    @property
    def modalities(self) -> tuple[str, ...]:
        return self._source.modalities

    def count(self) -> int | None:
        return None

    def batches(self) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        for batch in self._source.batches():
            kept = batch.filter(pa.array(self._keep(batch.column(batch.schema.get_field_index(ID)).to_pylist()), pa.bool_()))
            if kept.num_rows:
                yield kept
