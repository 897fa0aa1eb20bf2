"""`Pieces`: several vectors an item, such as those of a film's frames, each with its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

SLAB = 1 << 20
"""Numbers that are summed at once."""


@dataclass(frozen=True)
class Pieces:
    """The pieces of n items, m in all, those of an item one after the other.

    Parameters
    ----------
    vectors : (m, dim) float16 or float32
    counts : (n,) int64
        Pieces of each item; at least one.
    places : (m, 2) float64
        Where each begins and ends in its item, in seconds; NaN where that says nothing.

    Examples
    --------
    >>> import numpy as np
    >>> film = Pieces(np.eye(3, dtype=np.float32), np.array([2, 1]), np.zeros((3, 2)))
    >>> film.take([1]).vectors.tolist()
    [[0.0, 0.0, 1.0]]
    """

    vectors: Array
    counts: npt.NDArray[np.int64]
    places: npt.NDArray[np.float64]

    @classmethod
    def nowhere(cls, vectors: Array, counts: npt.NDArray[np.int64]) -> Pieces:
        """Pieces without places."""
        return cls(vectors, counts, np.full((len(vectors), 2), np.nan))

    @classmethod
    def joined(cls, several: Sequence[Pieces]) -> Pieces:
        """The items of several, one after the other; `several` is not empty."""
        return cls(
            np.concatenate([one.vectors for one in several]),
            np.concatenate([one.counts for one in several]),
            np.concatenate([one.places for one in several]),
        )

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def starts(self) -> npt.NDArray[np.int64]:
        """Position (n,) of each item's first piece."""
        return np.asarray(np.cumsum(self.counts) - self.counts, np.int64)

    def take(self, items: npt.ArrayLike) -> Pieces:
        """The pieces of some items (k,), by their positions, or by a mask (n,)."""
        chosen = np.arange(len(self))[np.asarray(items)] if np.size(items) else np.empty(0, np.int64)
        counts = self.counts[chosen]
        at = spans(self.starts[chosen], counts)
        return Pieces(self.vectors[at], counts, self.places[at])

    def every(self, mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Which items (n,) have all of their pieces in `mask` (m,)."""
        return np.logical_and.reduceat(mask, self.starts) if len(self) else np.empty(0, bool)

    def best(self, values: Array) -> Array:
        """The largest of `values` (q, m) in each item: (q, n)."""
        return np.maximum.reduceat(values, self.starts, axis=1) if len(self) else np.empty((len(values), 0), values.dtype)

    def means(self) -> npt.NDArray[np.float32]:
        """The mean (n, dim) of each item's vectors, summed in float64 a slab of items at a time."""
        out = np.empty((len(self), self.vectors.shape[1]), np.float32)
        ends, lo = self.starts + self.counts, 0
        while lo < len(self):
            first = int(self.starts[lo])
            hi = max(lo + 1, int(np.searchsorted(ends, first + SLAB // self.vectors.shape[1], side="right")))
            slab = self.vectors[first : ends[hi - 1]].astype(np.float64)
            out[lo:hi] = np.add.reduceat(slab, self.starts[lo:hi] - first, axis=0) / self.counts[lo:hi, None]
            lo = hi
        return out

    def padded(self, most: int) -> npt.NDArray[np.float32]:
        """Vectors (n, most, dim), zeros after an item's last piece; of more pieces, `most` at equal distances."""
        out = np.zeros((len(self), most, self.vectors.shape[1]), np.float32)
        for i, (start, count) in enumerate(zip(self.starts.tolist(), self.counts.tolist(), strict=True)):
            if count <= most:
                out[i, :count] = self.vectors[start : start + count]
            else:
                out[i] = self.vectors[start + np.linspace(0, count - 1, most).astype(np.int64)]
        return out


def spans(starts: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The positions start, start + 1, … of each span (n,), one after the other."""
    total = int(counts.sum())
    before = np.cumsum(counts) - counts
    return np.arange(total) - np.repeat(before - starts, counts)
