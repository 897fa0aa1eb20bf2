"""Parts of labelled items: folds that keep copies and groups together, and items to choose on."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore._core.splits import grouped_folds, hashed_fraction, stratified_folds
from embedstore.errors import HeadError

__all__ = ["made_folds", "to_choose_on"]

Array = npt.NDArray[Any]
Codes = npt.NDArray[np.int64]
VALIDATION_SHARE = 0.15


def made_folds(strata: Array, ids: Array, same: Codes, k: int, *, seed: int, grouped: bool) -> Codes:
    """Fold (n,) in 0…k-1 of each item, balanced by `strata` (n,); items with one number in `same` (n,) are in one fold.

    Parameters
    ----------
    same : (n,)
        Of `embedstore.evaluation.copies.same_items`.
    grouped : bool
        Whether the user named groups, which may be large: folds are then balanced group by group. Without groups, copies go
        where the first of them goes.

    Raises
    ------
    UsageError
        `k` is not in 2…, the number of distinct items or groups.
    """
    if grouped:
        return grouped_folds(strata, same, k, seed=seed)
    _, first, inverse = np.unique(same, return_index=True, return_inverse=True)
    order = np.argsort(first)  # in the order of the items, as if the copies were not there
    folds = np.empty(len(first), np.int64)
    folds[order] = stratified_folds(strata[first[order]], ids[first[order]].tolist(), k, seed=seed)
    return folds[inverse]


def to_choose_on(keys: Array, ids: Array, *, seed: int) -> npt.NDArray[np.bool_]:
    """Which items (n,) a head chooses on; it is fitted on the others. Items of one key stay together, unless all have it.

    Parameters
    ----------
    keys : (n,)
        Groups; the ids where there are none.

    Raises
    ------
    HeadError
        There is only one item.
    """
    if len(set(keys.tolist())) == 1:
        keys = ids
    chosen = hashed_fraction(keys, seed=seed) < VALIDATION_SHARE
    if chosen.all() or not chosen.any():
        _, key = np.unique(keys.astype(str), return_inverse=True)
        chosen = key % 5 == 0
    if len(chosen) and chosen.all():
        raise HeadError("One item is left to fit on and to choose on; two are needed. Use more items, or a larger --cv.")
    return np.asarray(chosen, bool)
