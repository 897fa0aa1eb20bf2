"""The options of `index`.

Defaults and help of the command come from here, so nothing heavy is imported.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedstore._core.arguments import check_types, option

RECORDED = ("recall", "at", "memory", "latency", "factory", "queries")
"""Options that are kept with an index, so that it can be built again in the same way."""


@dataclass(frozen=True, kw_only=True)
class IndexOptions:
    """What `index` is asked besides a store and a space; its documentation says what each option means.

    `VectorIndex` checks the values, since it can be used without a store.

    Raises
    ------
    UsageError
        A value of another type.
    """

    recall: float = option(0.95, "What the lower 95 % bound of recall@AT has to pass.")
    at: int = option(10, "The k of recall@k.")
    memory: int | str | None = option(None, "Budget for building and for the index, such as 4GB.", str | None)
    latency: float | str | None = option(None, "Wanted at the 95th percentile, such as 5ms.", str | None)
    factory: str | None = option(None, "Flat, HNSW32, IVF4096,SQ8, IVF4096,RaBitQ …; default by size.")
    queries: str | Path | None = option(None, "Real queries: a space, or a .npy of shape (m, dim).", str | None)
    device: str = option("cpu", "cpu, or cuda to build a graph on a GPU.")

    def __post_init__(self) -> None:
        check_types(self)

    def recorded(self) -> dict[str, Any]:
        """What is kept with the index, as JSON takes it."""
        return {name: getattr(self, name) for name in RECORDED} | {
            "queries": None if self.queries is None else str(self.queries)
        }
