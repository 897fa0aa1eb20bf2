"""The options of `export_head`, checked when they are made.

Defaults and help of the command come from here, so nothing heavy is imported.
"""

from dataclasses import dataclass

from embedstore._core.arguments import check_types, option


@dataclass(frozen=True, kw_only=True)
class ExportHeadOptions:
    """What `export_head` is asked besides a store, a head and a file; its documentation says what each option means.

    Raises
    ------
    UsageError
        A value that cannot be right, whatever the store.
    """

    int8: bool = option(False, "Keep matrices as int8: a quarter of the size, nearly the same predictions.")
    anyway: bool = option(False, "Write the file even where its predictions differ too often.")

    def __post_init__(self) -> None:
        check_types(self)
