"""The options of `select`, checked when they are made.

Defaults and help of the command come from here, so nothing heavy is imported.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from embedstore._core.arguments import check_least, check_types, option
from embedstore.errors import UsageError

WAYS = ("diverse", "typical", "uncertain", "balanced")
BY_HEAD = ("uncertain", "balanced")
"""Ways that ask a head."""


@dataclass(frozen=True, kw_only=True)
class SelectOptions:
    """What `select` is asked besides a store; its documentation says what each option means.

    Raises
    ------
    UsageError
        A value that cannot be right, whatever the store.
    """

    n: int = option(100, "Select so many.", flag="-n")
    by: str | Sequence[str] = option(
        WAYS[0],
        f"{', '.join(WAYS)}; several, separated by commas: each among what the one before it leaves.",
        str,
        metavar="WAY,…",
    )
    space: str | None = option(None, "Space to look at; default the first.")
    head: str | None = option(None, "A saved head that says how sure it is.", metavar="HEAD")
    labelled: str | None = option(
        None,
        "Column; items with a value in it are not selected again; default the target of the head, '' for none.",
        metavar="COLUMN",
    )
    where: str | None = None
    seed: int = option(0, "Of clusters.")

    def __post_init__(self) -> None:
        check_types(self)
        check_least(self, n=1, seed=0)
        for way in self.ways:
            if way not in WAYS:
                raise UsageError(f"by should be of {', '.join(WAYS)}. Got {way!r} instead.")
            if way in BY_HEAD and self.head is None:
                raise UsageError(f"by {way} asks a head how sure it is: name a saved one, --head NAME.")

    @property
    def ways(self) -> list[str]:
        """In the order in which they are gone."""
        given = self.by.split(",") if isinstance(self.by, str) else self.by
        return [way.strip() for way in given]
