"""How a user opened a store: what a filter may take, and which models of it are trusted."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

from embedstore._core.arguments import check_types
from embedstore.errors import UsageError

WHERE_TIMEOUT = 60.0
"""Seconds that a filter may take."""


@dataclass(frozen=True)
class Access:
    """What belongs to an opened store, not to its files.

    Parameters
    ----------
    where_timeout : float
        Seconds after which a filter (``where``) is given up.
    allow_models : sequence of path
        Models that are loaded though the store names them by a relative path, or holds them.
    check : bool
        Compare items and vectors with their checksums when they are first used on this machine.
    """

    where_timeout: float = WHERE_TIMEOUT
    allow_models: Sequence[str | os.PathLike[str]] = ()
    check: bool = True

    def __post_init__(self) -> None:
        check_types(self)
        if not (self.where_timeout > 0 and math.isfinite(self.where_timeout)):
            raise UsageError(f"--where-timeout should be seconds above 0. Got {self.where_timeout} instead.")
