"""The options of `export`, checked when they are made.

Defaults and help of the command come from here, so nothing heavy is imported.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from embedstore._core.arguments import check_types, option
from embedstore.errors import UsageError

DTYPES = ("float16", "float32")


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What `export` is asked besides a store and a target; its documentation says what each option means.

    Raises
    ------
    UsageError
        A value that cannot be right, whatever the store.
    """

    space: str | Sequence[str] | None = option(None, "Spaces, separated by commas; default all.", str | None, metavar="SPACE,…")
    where: str | None = None
    name: str | None = option(None, "Table or collection in the engine; default the store's name.")
    dtype: str | None = option(None, "float16 or float32; default as stored, where the target can.")

    def __post_init__(self) -> None:
        check_types(self)
        if self.dtype is not None and self.dtype not in DTYPES:
            raise UsageError(f"dtype must be one of {', '.join(DTYPES)}. Got {self.dtype!r} instead.")
        if self.name is not None and not self.name.strip():
            raise UsageError("name must not be empty: it names the table or collection in the engine.")

    @property
    def spaces(self) -> list[str] | None:
        """Names of spaces, once each; None for all."""
        if self.space is None:
            return None
        given = self.space.split(",") if isinstance(self.space, str) else self.space
        return list(dict.fromkeys(name.strip() for name in given))
