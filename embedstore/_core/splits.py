"""Splits that do not move: by hashed id, by a column, stratified folds. Arrays in, arrays out."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.errors import UsageError

SPLITS = ("train", "val", "test")
_ALIASES = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test", "eval": "test",
}  # fmt: skip


def hashed_fraction(ids: Iterable[str], *, seed: int = 0) -> npt.NDArray[np.float64]:
    """A number in [0, 1) for each id (n,), the same wherever and in whatever order it is asked for."""
    key = str(seed).encode()
    digests = b"".join([hashlib.blake2b(str(i).encode(), digest_size=8, key=key).digest() for i in ids])
    return np.frombuffer(digests, dtype="<u8") / 2.0**64


def hashed_split(ids: Iterable[str], *, val: float = 0.15, test: float = 0.15, seed: int = 0) -> npt.NDArray[np.str_]:
    """``"train"``, ``"val"`` or ``"test"`` (n,) by hashed id: adding items never moves one."""
    fraction = hashed_fraction(ids, seed=seed)
    return np.array(SPLITS)[np.where(fraction < test, 2, np.where(fraction < test + val, 1, 0))]


def parse_split(values: Sequence[Any], *, default: npt.NDArray[np.str_]) -> npt.NDArray[np.str_]:
    """Splits (n,) from a column; `default` where it is null.

    Raises
    ------
    UsageError
        A value that is not a split.
    """
    out: npt.NDArray[np.str_] = default.copy()
    for i, value in enumerate(values):
        if value is None or value == "":
            continue
        name = _ALIASES.get(str(value).strip().lower())
        if name is None:
            raise UsageError(f"Column 'split' holds {value!r}; expected one of {sorted(_ALIASES)}.")
        out[i] = name
    return out


def stratified_folds(labels: npt.NDArray[Any], ids: Sequence[str], k: int, *, seed: int = 0) -> npt.NDArray[np.int64]:
    """Fold (n,) in 0…k-1 of each item: classes spread evenly, items ordered by hashed id within a class.

    Raises
    ------
    UsageError
        `k` is not in 2…n.
    """
    if not 2 <= k <= len(labels):
        raise UsageError(f"cv must be between 2 and the number of items ({len(labels)}). Got {k} instead.")
    fraction = hashed_fraction(ids, seed=seed)
    _, codes = np.unique(labels.astype(str), return_inverse=True)
    order = np.lexsort((fraction, codes))
    folds = np.empty(len(labels), dtype=np.int64)
    folds[order] = np.arange(len(labels)) % k
    return folds


def grouped_folds(labels: npt.NDArray[Any], groups: npt.NDArray[Any], k: int, *, seed: int = 0) -> npt.NDArray[np.int64]:
    """Fold (n,) in 0…k-1 of each item: all items of a group in one fold, classes spread as evenly as that allows.

    Raises
    ------
    UsageError
        There are fewer groups than folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    names, codes = np.unique(groups.astype(str), return_inverse=True)
    if not 2 <= k <= len(names):
        raise UsageError(f"cv must be between 2 and the number of groups ({len(names)}). Got {k} instead.")
    _, y, counts = np.unique(labels.astype(str), return_inverse=True, return_counts=True)
    if counts.max() < k:
        y = np.zeros_like(y)  # no class is large enough to be spread
    folds = np.empty(len(labels), np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # classes with fewer items than folds are noted in the report
        for fold, (_, held_out) in enumerate(StratifiedGroupKFold(k, shuffle=True, random_state=seed).split(y, y, codes)):
            folds[held_out] = fold
    return folds


def is_split(name: str) -> bool:
    """Whether `name` is a usual name of a split, such as ``"valid"``."""
    return name.strip().lower() in _ALIASES
