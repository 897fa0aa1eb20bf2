"""The options of `repair`, checked when they are made.

Defaults and help of the command come from here, so nothing heavy is imported.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from embedstore._core.arguments import DEVICES, check_types, option


@dataclass(frozen=True, kw_only=True)
class RepairOptions:
    """What `repair` is asked besides a store and a dataset; its documentation says what each option means.

    Raises
    ------
    UsageError
        A value of another type.
    """

    columns: Mapping[str, str] | None = None
    device: str = option("auto", DEVICES)
    allow_models: Sequence[str | os.PathLike[str]] = ()

    def __post_init__(self) -> None:
        check_types(self)
