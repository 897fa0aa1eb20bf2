"""Of many training items the plain kNN, a baseline, knows some: which, and what is said of it. Arrays only."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["drawn", "knn_share"]

Codes = npt.NDArray[np.int64]

KNN_PRODUCTS, LEAST_KNN = 5e11, 20_000
"""Budget of the kNN baseline in multiply-adds (a few seconds on two cores), and the fewest training items it is ever given."""


def knn_share(train: int, asked: int, width: int) -> tuple[float, list[str]]:
    """The share of `train` items that the kNN baseline of `asked` items knows, and what to say about it."""
    share = min(1.0, max(LEAST_KNN, KNN_PRODUCTS / max(asked * width, 1)) / max(train, 1))
    if share == 1:
        return share, []
    return share, [f"the plain kNN knows {round(share * train):,} of the {train:,} training items, drawn at random"]


def drawn(items: Codes, share: float, seed: int) -> Codes:
    """A `share` of `items`, at random, in their order."""
    if share == 1:
        return items
    return np.sort(np.random.default_rng(seed).permutation(items)[: max(1, round(share * len(items)))])
