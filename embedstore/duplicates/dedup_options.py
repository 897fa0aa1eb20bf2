"""The options of `find_duplicates`, checked when they are made.

Defaults and help of the command come from here, so nothing heavy is imported.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from embedstore._core.arguments import check_types, option, strings
from embedstore.errors import UsageError

THRESHOLD = 0.98
"""Finds 96 % of pictures that were merely saved again; what lower ones add are series of drawings (benchmarks/dedup.py)."""


@dataclass(frozen=True, kw_only=True)
class DedupOptions:
    """What `find_duplicates` is asked besides a store; its documentation says what each option means.

    Raises
    ------
    UsageError
        A value that cannot be right, whatever the store.
    """

    space: str | Sequence[str] | None = option(
        None, "Where to compare; several by commas, then all must agree. Default: image, else text, else the first.", str | None
    )
    threshold: float | None = option(None, f"Compare vectors: cosine from which on items are near copies; default {THRESHOLD}.")
    pixels: bool | None = option(
        None,
        "Compare pictures and films by their pixels, sounds by their spectra; files are read again. Default: yes, unless "
        "--threshold is given.",
        flag="--pixels/--no-pixels",
    )
    where: str | None = None
    exact_only: bool = option(False, "Look for the same bytes alone; reads no vectors.", flag="--exact")

    def __post_init__(self) -> None:
        check_types(self)
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise UsageError(
                f"threshold must be a cosine above 0 and at most 1, such as {THRESHOLD}. Got {self.threshold} instead."
            )
        _ = self.spaces  # refused here rather than when they are needed

    @cached_property
    def spaces(self) -> list[str] | None:
        """Where to compare, each named once; None where nothing is said."""
        return None if self.space is None else list(dict.fromkeys(strings(self.space, "space")))

    @property
    def cosine(self) -> float:
        """From which on two vectors are near."""
        return THRESHOLD if self.threshold is None else float(self.threshold)

    @property
    def by_pixels(self) -> bool:
        """Whether what files hold is compared."""
        return self.threshold is None if self.pixels is None else self.pixels
