"""What rounding to the stored dtype costs a vector: too large a value becomes infinite, too small ones lose the direction."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

LEAST_COSINE = 0.999
"""Between a vector and itself as it is stored; ordinary rounding to float16 costs less than 1e-6."""


def lost_direction(given: Array, stored: Array, largest: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Which vectors point elsewhere once they are stored, or nowhere: their values are too small for the stored dtype.

    Parameters
    ----------
    given : (n, dim) float16, float32 or float64
    stored : (n, dim) float16 or float32
        `given`, rounded.
    largest : (n,)
        The largest magnitude in each row of `given`.

    Returns
    -------
    lost : (n,) bool
        False for a vector that was all zeros before.
    """
    lost = np.zeros(len(given), bool)
    if stored.dtype.itemsize >= given.dtype.itemsize:
        return lost
    # A value is off by half a unit of the smallest numbers, or by 2^-12 of itself: longer vectors keep the cosine.
    bound = 16 * math.sqrt(given.shape[1]) * float(np.finfo(stored.dtype).smallest_subnormal)
    at = np.flatnonzero((largest > 0) & (largest < bound))
    if len(at):
        scale = largest[at, None].astype(np.float64)
        before, after = given[at].astype(np.float64) / scale, stored[at].astype(np.float64) / scale
        product = np.einsum("ij,ij->i", before, after)
        lengths = np.sqrt(np.einsum("ij,ij->i", before, before) * np.einsum("ij,ij->i", after, after))
        lost[at] = ~(product >= LEAST_COSINE * lengths) | (lengths == 0)
    return lost


def refusal(dtype: np.dtype[Any], largest: float, *, again: str) -> str:
    """The end of a message about a vector whose largest magnitude is `largest`.

    Parameters
    ----------
    again : str
        Options that store such vectors as float32.
    """
    limits = np.finfo(dtype)
    if largest > float(limits.max):
        what = f"holds {largest:.6g}; {dtype.name} holds up to {float(limits.max):.6g}"
    else:
        what = (
            f"holds nothing above {largest:.6g}, so small that {dtype.name} would change its direction (it rounds below "
            f"{float(limits.smallest_normal):.3g})"
        )
    if dtype == np.float32:
        return f"{what}. Multiply the vectors by a constant first; only their direction is compared."
    return f"{what}. Store the vectors as float32: {again}"
