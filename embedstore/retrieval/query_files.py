"""Vectors of queries in files, for whoever asks many at once."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import numpy.typing as npt

from embedstore.errors import SourceError, UsageError
from embedstore.sources.vectors.arrays import read_array, read_member


def read_queries(path: Path, *, spaces: Iterable[str], dim: int | None = None, mapped: bool = False) -> npt.NDArray[Any]:
    """The array of a ``.npy``, or ``values`` of an ``.npz`` as `QueryVector.save` writes it; its shape is not looked at.

    Parameters
    ----------
    path : Path
        What the user named, which is no space.
    spaces : iterable of str
        Names that could have been meant.
    dim : int, optional
        For messages.
    mapped : bool
        Leave a ``.npy`` on the disk.

    Raises
    ------
    UsageError
        It is no such file.
    """
    try:
        return read_member(path, "values") if is_zipfile(path) else read_array(path, mapped=mapped)
    except (SourceError, OSError, KeyError) as error:
        if not path.exists():
            raise UsageError(f"{str(path)!r} is neither a file nor a space. Spaces: {', '.join(spaces)}.") from None
        shape = f"(m, {dim or 'dim'})"
        raise UsageError(f"{path} is not an array of queries: expected .npy of shape {shape}.") from error
