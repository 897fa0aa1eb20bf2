"""The options of `predict`, checked when they are made.

Defaults and help of the command come from here, so nothing heavy is imported.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedstore._core.arguments import DEVICES, check_coverage, check_types, option, shown
from embedstore.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """What `predict` is asked besides a store, a head and a dataset; its documentation says what each option means.

    Raises
    ------
    UsageError
        A value that cannot be right, whatever the store.
    """

    ids: Sequence[str] | None = option(None, "A stored item; may be repeated. Default: all.", list[str] | None, flag="--id")
    pairs: str | os.PathLike[str] | Sequence[Any] | None = option(
        None, "Of a head for matching: a table with the ids of two items a row.", Path | None
    )
    where: str | None = None
    columns: Mapping[str, str] | None = None
    explained: bool = option(False, "What each input contributed, and the nearest items.", flag="--explain")
    classes: Sequence[str] | None = option(
        None, "Names of classes, separated by commas, instead of a head: zero-shot.", str | None, metavar="NAME,NAME,…"
    )
    templates: Sequence[str] | None = option(
        None,
        "Text of a class, such as 'a photo of a {}'; may be repeated.",
        list[str] | None,
        flag="--template",
        metavar="TEXT",
    )
    inputs: Sequence[str] | None = option(None, "Spaces that classes are compared with, separated by commas.", str | None)
    alignment: str | None = option(
        None, "Saved alignment that compares images with names, if there are several.", metavar="NAME"
    )
    coverage: float | None = option(
        None, "Answer with sets of classes, or intervals, that hold the truth so often, such as 0.9.", metavar="SHARE"
    )
    per_class: bool = option(False, "The coverage is to hold in each class.")
    device: str = option("auto", DEVICES)

    def __post_init__(self) -> None:
        check_types(self)
        check_coverage(self.coverage, self.per_class)
        if self.classes is None and (self.templates or self.inputs or self.alignment):
            raise UsageError("templates, inputs and alignment say how classes are compared with items; name classes, too.")
        if self.classes is not None and len(set(self.classes)) < 2:
            raise UsageError(f"classes must be two names or more, such as 'cat,dog'. Got {list(self.classes)} instead.")
        if self.classes is not None and (self.explained or self.coverage is not None):
            raise UsageError("Explanations and coverage are of heads that were trained; leave them out with classes.")
        if self.pairs is not None and not isinstance(self.pairs, str | os.PathLike):
            object.__setattr__(self, "pairs", as_pairs(self.pairs))


def as_pairs(given: Iterable[Any], where: str = "pairs") -> list[tuple[str, str]]:
    """Pairs of ids; `UsageError` names the first row of `where` that is none."""
    found = []
    for n, pair in enumerate(given, start=1):
        two = isinstance(pair, tuple | list) and len(pair) == 2
        if not (two and all(isinstance(one, str) and one for one in pair)):
            raise UsageError(f"{where}: row {n}: expected the ids of two items. Got {shown(pair)} instead.")
        found.append((pair[0], pair[1]))
    return found
