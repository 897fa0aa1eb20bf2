"""Folds of labelled items that keep copies and groups together."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore._core.splits import grouped_folds, stratified_folds

__all__ = ["made_folds"]

Array = npt.NDArray[Any]
Codes = npt.NDArray[np.int64]


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
