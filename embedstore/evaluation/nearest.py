"""The nearest items by mean cosine over the inputs that both have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore._core.unit import unit_rows

Array = npt.NDArray[Any]
BLOCK = 512


def nearest_items(
    inputs: Mapping[str, Array],
    present: Mapping[str, Array],
    among: Mapping[str, Array],
    among_present: Mapping[str, Array],
    k: int,
    *,
    never: tuple[Array, Array],
) -> list[list[int]]:
    """Positions of the k nearest of `among` (m items) for each of n items, nearest first.

    Parameters
    ----------
    inputs, present, among, among_present : mapping of input to (n, d), (n,), (m, d), (m,)
    never : (n,), (m,) int64
        Names of the items; one is never its own neighbour.
    """
    units = {name: unit(x, among_present[name]) for name, x in among.items()}
    found: list[list[int]] = []
    n = len(never[0])
    for lo in range(0, n, BLOCK):
        at = slice(lo, min(lo + BLOCK, n))
        total = np.zeros((at.stop - lo, len(never[1])), np.float32)
        shared = np.zeros_like(total)
        for name, x in inputs.items():
            total += unit(x[at], present[name][at]) @ units[name].T
            shared += np.outer(present[name][at], among_present[name])
        similarity = np.where(shared > 0, total / np.maximum(shared, 1), -2)
        similarity[never[0][at][:, None] == never[1][None]] = -np.inf
        order = np.argsort(-similarity, axis=1)[:, :k]
        found += [row[np.isfinite(s[row])].tolist() for row, s in zip(order, similarity, strict=True)]
    return found


def unit(x: Array, present: Array) -> npt.NDArray[np.float32]:
    """Vectors (n, d) of unit length, zeros where absent."""
    return unit_rows(np.where(present[:, None], x, 0))
