"""The options of `labels`, checked when they are made.

Defaults and help of the command come from here, so nothing heavy is imported.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from embedstore._core.arguments import check_least, check_types, option
from embedstore.errors import UsageError

RANKINGS = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")


@dataclass(frozen=True, kw_only=True)
class LabelsOptions:
    """What `labels` is asked besides a store and a head; its documentation says what each option means.

    Raises
    ------
    UsageError
        A value that cannot be right, whatever the store.
    """

    target: str | None = option(None, "Of a head of several targets, the one that is looked at.", metavar="COLUMN")
    n: int | None = option(None, "List so many, the worst first; default: those that are held for wrong.", flag="-n")
    disagree: bool = option(False, "Only items whose inputs alone predict different classes.")
    method: str = option(RANKINGS[0], f"What they are ranked by: {', '.join(RANKINGS)}.", metavar="NAME")
    where: str | None = None
    report: str | os.PathLike[str] | None = option(None, "Write an HTML page with their pictures here.", Path | None)

    def __post_init__(self) -> None:
        check_types(self)
        check_least(self, n=1)
        if self.method not in RANKINGS:
            raise UsageError(f"method should be {', '.join(RANKINGS[:-1])} or {RANKINGS[-1]}. Got {self.method!r} instead.")
