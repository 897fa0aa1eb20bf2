"""Pairs of fingerprints of sounds that are copies. Arrays in, arrays out; knows no store and no file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.duplicates.pairs import DECIMALS, Pairs, pairs_above
from embedstore.encoders.payloads.fingerprint import HOP, RATE

Bits = npt.NDArray[np.uint32]
Positions = npt.NDArray[np.int64]

OUTLINE = 0.95
"""Cosine of two outlines from which on bits are compared."""
LIMIT = 0.35
"""Share of the bits that differ in a copy at most; the limit of Haitsma & Kalker. Half of them differ by chance.

With `OUTLINE` all of 240 copies of captions in other formats were found, and by mistake 1 of 275,653 pairs
(benchmarks/copies.py).
"""
SHIFT = round(0.15 * RATE / HOP)
"""Numbers of bits by which one sound is shifted against the other at most: encoders add silence."""
OVERLAP = 0.8
"""Share of the longer sound that is compared at least."""
SECONDS, LONGER = 0.2, 0.1
"""Copies may differ in length by that, or by this share of the longer one."""
BITS = 32


def alike_sounds(
    outlines: npt.NDArray[Any],
    bits: Sequence[Bits],
    seconds: npt.NDArray[np.float64],
    *,
    outline: float = OUTLINE,
    limit: float = LIMIT,
    on_progress: Callable[[float], None] | None = None,
) -> Pairs:
    """Every pair of sounds of about one length, whose outlines are near and whose bits differ by at most `limit`.

    Parameters
    ----------
    outlines : (n, d) float
    bits : n arrays (m,) uint32
    seconds : (n,)

    Returns
    -------
    Pairs
        Their scores are the share of the bits that are equal.

    Raises
    ------
    UsageError
        More pairs of near outlines than could be copies.
    """
    near = pairs_above([outlines], outline, on_progress=on_progress)
    left, right = near.left, near.right
    apart = np.abs(seconds[left] - seconds[right])
    fits = apart <= np.maximum(SECONDS, LONGER * np.maximum(seconds[left], seconds[right]))
    left, right = left[fits], right[fits]
    scores = np.array([1 - difference(bits[i], bits[j]) for i, j in zip(left.tolist(), right.tolist(), strict=True)])
    return Pairs(left, right, np.round(scores.reshape(len(left)), DECIMALS)).at_least(round(1 - limit, DECIMALS))


def difference(a: Bits, b: Bits) -> float:
    """Share of the bits that differ where `a` and `b` fit best onto one another, from 0 to 1; 1 where there are none."""
    least = max(1.0, OVERLAP * max(len(a), len(b)))
    lowest = 1.0
    for shift in range(-SHIFT, SHIFT + 1):
        mine, other = a[max(0, shift) :], b[max(0, -shift) :]
        length = min(len(mine), len(other))
        if length >= least:
            differing = int(np.bitwise_count(mine[:length] ^ other[:length]).sum())
            lowest = min(lowest, differing / (BITS * length))
    return lowest
