"""Pairs of thumbnails that show the same picture. Arrays in, arrays out; knows no store and no file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.errors import UsageError

Array = npt.NDArray[Any]
Float = npt.NDArray[np.float32]
Positions = npt.NDArray[np.int64]

LIMIT = 0.15
"""Root mean square difference of two thumbnails, in units of their contrast, up to which one can be a copy of the other."""
LARGEST = 0.46
"""Likewise for the one pixel that differs most: a small change that the mean hides, such as another face in the picture."""
ASPECT = 0.1
"""Of the logarithm of width / height: a stripe and a square of one colour have the same thumbnail."""
NOISE = 3.0
"""Grey levels added to the contrast, so that a picture of one colour does not differ from its copy by the noise of JPEG."""
BLOCK = 2048
CHUNK = 8192
MAX_PAIRS = 5_000_000
SLACK = 0.05
"""Of squared grey levels: what a float32 product of coarse thumbnails may be off."""


@dataclass(frozen=True)
class Thumbnails:
    """Small pictures of pictures.

    Parameters
    ----------
    pixels : (n, side, side, 3) uint8
        side is a multiple of 4.
    aspect : (n,) or (n, k) float
        Logarithm of width / height, and of whatever else copies have in common.
    """

    pixels: npt.NDArray[np.uint8]
    aspect: Array

    def __len__(self) -> int:
        return len(self.pixels)

    def take(self, positions: Array) -> Thumbnails:
        """Those at `positions`, or where a mask is true."""
        return Thumbnails(self.pixels[positions], self.aspect[positions])


@dataclass(frozen=True)
class PixelPairs:
    """Pairs of positions that look the same.

    Parameters
    ----------
    left, right : (p,) int64
        left < right.
    differences : (p,) float64
        From 0, the same thumbnail, to `LIMIT`; to five decimals.
    """

    left: Positions
    right: Positions
    differences: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.left)


def contrasts(pixels: Array) -> Float:
    """Standard deviation (n,) of each thumbnail around its mean colour, plus `NOISE`."""
    out = np.empty(len(pixels), np.float32)
    for lo in range(0, len(pixels), BLOCK):
        x = pixels[lo : lo + BLOCK].astype(np.float32)
        out[lo : lo + BLOCK] = np.sqrt(((x - x.mean(axis=(1, 2), keepdims=True)) ** 2).mean(axis=(1, 2, 3)))
    out += np.float32(NOISE)
    return out


def alike_pairs(
    thumbnails: Thumbnails,
    *,
    limit: float = LIMIT,
    largest: float = LARGEST,
    block: int = BLOCK,
    on_progress: Callable[[float], None] | None = None,
) -> PixelPairs:
    """Every pair of thumbnails that differ by at most `limit`, in no pixel by more than `largest`, of about one aspect.

    Differences are in units of the lower contrast of the two. Thumbnails are sorted by contrast, whose difference is a lower
    bound, and so is the difference of 4 × 4 means, found by matrix products: what they let through is compared in full.
    Memory, beyond the thumbnails, is that of a block and of the pairs.

    Raises
    ------
    UsageError
        More than `MAX_PAIRS` pairs.
    """
    n = len(thumbnails)
    contrast = contrasts(thumbnails.pixels)
    order = np.argsort(contrast, kind="stable")
    ordered = contrast[order]
    queries, base = _coarse(thumbnails.pixels, limit * contrast)
    found: list[tuple[Positions, Positions, Array]] = []
    total = 0
    for lo in range(0, n, block):
        at = order[lo : lo + block]
        end = int(np.searchsorted(ordered, ordered[lo : lo + block][-1] * (1 + limit), side="right"))
        for start in range(lo, end, block):
            hits = queries[at] @ base[order[start : min(start + block, end)]].T <= SLACK
            if start == lo:
                hits = np.triu(hits, 1)
            candidates = np.flatnonzero(hits)
            for first in range(0, len(candidates), CHUNK):
                rows, columns = np.divmod(candidates[first : first + CHUNK], hits.shape[1])
                pairs = _differences(thumbnails, contrast, order[rows + lo], order[columns + start], limit, largest)
                total += len(pairs[0])
                found.append(pairs)
                if total > MAX_PAIRS:
                    raise UsageError(
                        f"More than {MAX_PAIRS:,} pairs of pictures look the same. Leave some out with --where, "
                        "or compare vectors alone: --no-pixels."
                    )
        if on_progress is not None:
            on_progress(min(1.0, (lo + block) / n))
    left, right, differences = (np.concatenate([f[i] for f in found]) if found else np.empty(0) for i in range(3))
    return PixelPairs(left.astype(np.int64), right.astype(np.int64), differences.astype(np.float64))


def _coarse(pixels: Array, reach: Float) -> tuple[Float, Float]:
    """Rows (n, 50) twice, whose product is the mean squared difference of 4 × 4 means less the square of the left `reach`."""
    n, side = len(pixels), pixels.shape[1]
    means = pixels.reshape(n, 4, side // 4, 4, side // 4, 3).mean(axis=(2, 4), dtype=np.float32).reshape(n, 48)
    means = (means - 128) / np.float32(np.sqrt(48))
    square = (means**2).sum(axis=1)
    one = np.ones(n, np.float32)
    queries = np.column_stack([-2 * means, square - reach**2, one])
    return queries.astype(np.float32), np.column_stack([means, one, square])


def _differences(
    thumbnails: Thumbnails, contrast: Float, i: Positions, j: Positions, limit: float, largest: float
) -> tuple[Positions, Positions, Array]:
    """Those of the pairs (`i`, `j`) that look the same, as left, right and difference."""
    unit = np.minimum(contrast[i], contrast[j])
    difference = np.abs(thumbnails.pixels[i].astype(np.float32) - thumbnails.pixels[j])
    mean = np.round(np.sqrt((difference**2).mean(axis=(1, 2, 3))) / unit, 5)
    most = difference.mean(axis=3).max(axis=(1, 2)) / unit
    shapes = np.abs(thumbnails.aspect[i] - thumbnails.aspect[j]).reshape(len(i), -1)
    keep = (mean <= limit) & (most <= largest) & (shapes <= ASPECT).all(axis=1)
    i, j = i[keep], j[keep]
    return np.minimum(i, j), np.maximum(i, j), mean[keep]
