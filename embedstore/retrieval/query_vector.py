"""`QueryVector`: a vector to search for, that says which encoder made it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import numpy as np
import numpy.typing as npt

from embedstore.errors import FingerprintError, SourceError, UsageError
from embedstore.sources.vectors.arrays import read_array, read_member

__all__ = ["QueryVector"]


@dataclass(frozen=True)
class QueryVector:
    """A vector that says which encoder made it.

    Parameters
    ----------
    values : (dim,) float
    fingerprint : str, optional
        Of the encoder; without it only the dimension can be checked.
    """

    values: npt.NDArray[Any]
    fingerprint: str | None = None

    @classmethod
    def load(cls, path: str | os.PathLike[str], fingerprint: str | None = None) -> QueryVector:
        """From ``.npy``, or from ``.npz`` with ``values`` and ``fingerprint`` (as `save` writes it).

        Raises
        ------
        UsageError
            It is no vector.
        SourceError
            There is no such file, or it cannot be read.
        """
        try:
            if not is_zipfile(path):
                return cls(read_array(Path(path)), fingerprint)
            inside = str(read_member(Path(path), "fingerprint")) or None
            if fingerprint and inside and fingerprint != inside:
                raise FingerprintError(f"{path} says fingerprint {inside}, but {fingerprint} was given. Leave one of them out.")
            return cls(read_member(Path(path), "values"), fingerprint or inside)
        except (OSError, KeyError, SourceError) as error:
            if not os.path.exists(path):
                raise SourceError(f"{path} does not exist.") from None
            if isinstance(error.__cause__, OSError):
                raise
            raise UsageError(f"{path} is not a vector: expected .npy, or .npz with 'values' and 'fingerprint'.") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write ``.npz`` with ``values`` and ``fingerprint``."""
        np.savez(path, values=self.values, fingerprint=np.asarray(self.fingerprint or ""))
