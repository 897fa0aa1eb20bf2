"""The options of `evaluate`, checked when they are made.

Defaults and help of the command come from here, so nothing heavy is imported.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from embedstore._core.arguments import check_coverage, check_least, check_types, option


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """What `evaluate` is asked besides a store and a head; its documentation says what each option means.

    Raises
    ------
    UsageError
        A value that cannot be right, whatever the store.
    """

    where: str | None = None
    group: str | None = option(None, "Column; the intervals draw its values instead of items.")
    seen: bool = option(False, "Count items that the head was fitted on, too.")
    coverage: float | None = option(None, "Measure sets or intervals that hold the truth so often.", metavar="SHARE")
    per_class: bool = option(False, "The coverage is to hold in each class.")
    report: str | os.PathLike[str] | None = option(None, "Write an HTML report here.", Path | None)
    seed: int = option(0, "Of the bootstrap.")

    def __post_init__(self) -> None:
        check_types(self)
        check_coverage(self.coverage, self.per_class)
        check_least(self, seed=0)
