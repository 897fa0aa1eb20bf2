"""The options of `eval_search`, checked when they are made.

Defaults and help of the command come from here, so nothing heavy is imported.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from embedstore._core.arguments import DEVICES, check_least, check_types, option
from embedstore.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class EvalSearchOptions:
    """What `eval_search` is asked besides a store; its documentation says what each option means.

    Raises
    ------
    UsageError
        A value that cannot be right, whatever the store.
    """

    relevance: str | None = option(None, "Column; items with a query's value are relevant to it.")
    pairs: str | os.PathLike[str] | None = option(
        None, "Table of query (a text) or query_id, id, and grade if there is one.", Path | None
    )
    source: str | None = option(None, "Space of the queries, where it is another.", flag="--from")
    target: str | None = option(None, "Space that they search.", flag="--to")
    k: int | Sequence[int] = (1, 5, 10)
    queries: int = option(5000, "At most so many, drawn at random.")
    where: str | None = None
    seed: int = option(0, "Of the sample, the order of ties and the bootstrap.")
    device: str = option("auto", DEVICES)

    def __post_init__(self) -> None:
        check_types(self)
        check_least(self, queries=1, seed=0)
        _ = self.cut_offs  # refused here rather than when they are needed
        if self.relevance is not None and self.pairs is not None:
            raise UsageError("Say what is relevant by --relevance or by --pairs, not by both.")

    @cached_property
    def cut_offs(self) -> list[int]:
        """Every k once, ascending."""
        ks = sorted({self.k} if isinstance(self.k, int) else {*self.k})
        if not ks or ks[0] < 1:
            raise UsageError(f"k must be at least 1. Got {self.k!r} instead.")
        return ks
