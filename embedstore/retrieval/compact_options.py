"""The options of `compact`, checked when they are made.

Defaults and help of the command come from here, so nothing heavy is imported.
"""

from dataclasses import dataclass

from embedstore._core.arguments import check_types, option


@dataclass(frozen=True, kw_only=True)
class CompactOptions:
    """What `compact` is asked besides a store; its documentation says what each option means.

    Raises
    ------
    UsageError
        A value of another type.
    """

    force: bool = option(False, "Rewrite everything, needed or not.")

    def __post_init__(self) -> None:
        check_types(self)
