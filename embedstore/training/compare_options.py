"""The options of `compare`, checked when they are made.

Defaults and help of the command come from here, so nothing heavy is imported.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from embedstore._core.arguments import check_least, check_types, option


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """What `compare` is asked besides a store and a target; its documentation says what each option means.

    Raises
    ------
    UsageError
        A value that cannot be right, whatever the store.
    """

    inputs: Sequence[str] | None = option(
        None,
        "Spaces of one candidate, separated by commas; once a candidate. Default each space alone, and all.",
        list[str] | None,
    )
    head: str = option("linear", "The kind of head that each is given.", metavar="KIND")
    relevance: str | None = option(None, "Column; also score search, items with one value being relevant.", metavar="COLUMN")
    where: str | None = None
    task: str | None = option(None, "The task; default by the target.", metavar="NAME")
    group: str | None = option(None, "Column; items with one value stay together in splits.")
    cv: int | None = option(None, "Score by K-fold cross-validation.")
    timed: int = option(32, "Items to embed again, to learn how long one takes; 0 for none.")
    seed: int = option(0, "Of splits, folds and bootstrap.")
    device: str = option("cpu", "cpu, auto, cuda or cuda:N.")

    def __post_init__(self) -> None:
        check_types(self)
        check_least(self, timed=0, seed=0, cv=2)
