"""Bootstrap resamples of items or of groups of items, as counts, so that additive statistics cost one matrix product."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore._core.typed import from_json

Array = npt.NDArray[Any]
Float = npt.NDArray[np.float64]

BUCKETS = 4096


def numerals(*values: float) -> list[str]:
    """`values` for people, all with the same number of decimals, and zero without a sign.

    Three decimals; none where a value is a thousand or more, and more where each is below a thousandth: errors have the unit
    of their target, be it a price or a wavelength.
    """
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    if largest >= 1000:
        decimals = 0
    elif 0 < largest < 0.001:
        decimals = 2 - math.floor(math.log10(largest))
    else:
        decimals = 3
    form = "z.2e" if decimals > 8 or largest >= 1e12 else f"z.{decimals}f"
    return [format(value, form) for value in values]


@dataclass(frozen=True)
class Score:
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        value, low, high = numerals(self.value, self.low, self.high)
        return f"{value} [{low}, {high}]"

    @property
    def certain_gain(self) -> bool:
        """Whether the interval lies above zero."""
        return self.low > 0

    def to_dict(self) -> dict[str, float]:
        return {"value": self.value, "low": self.low, "high": self.high}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Score:
        return from_json(cls, data)

    @classmethod
    def of(cls, value: float, resampled: Float) -> Score:
        """`value` with the percentile interval of its resampled values (r,); NaN where there are none."""
        kept = resampled[np.isfinite(resampled)]
        low, high = np.quantile(kept, [0.025, 0.975]) if len(kept) else (np.nan, np.nan)
        return cls(float(value), float(low), float(high))


@dataclass(frozen=True)
class Bootstrap:
    """Which bucket of items each item is in, and how often each resample drew each bucket.

    A bucket is a group, or an item where there are no groups. Beyond a few thousand they are joined at random into buckets:
    sums over random buckets vary as sums over their members do, at a fraction of the work.

    Parameters
    ----------
    bucket : (n,) int64
    draws : (r, b) float32
    """

    bucket: npt.NDArray[np.int64]
    draws: npt.NDArray[np.float32]

    @classmethod
    def of(cls, n: int, *, groups: Array | None = None, resamples: int = 1000, seed: int = 0) -> Bootstrap:
        """Resamples of `n` items, or of the values of `groups` (n,); none of fewer than two, which would all be alike."""
        rng = np.random.default_rng(seed)
        bucket = np.arange(n) if groups is None else np.unique(groups.astype(str), return_inverse=True)[1]
        count = int(bucket.max()) + 1 if n else 0
        if count > BUCKETS:
            bucket = rng.permutation(np.arange(count) % BUCKETS)[bucket]
            count = BUCKETS
        draws = rng.multinomial(count, np.full(count, 1 / count), size=resamples) if count > 1 else np.zeros((0, count))
        return cls(bucket.astype(np.int64), draws.astype(np.float32))

    def take(self, items: Array) -> Bootstrap:
        """The same resamples of some items: a mask (n,) or positions (m,).

        Resamples that drew none of them are left out, for they tell nothing; all are, where these items are of one group.
        """
        bucket = self.bucket[items]
        used = np.unique(bucket)
        return Bootstrap(bucket, self.draws[self.draws[:, used].any(axis=1)] if len(used) > 1 else self.draws[:0])

    def sums(self, values: Array) -> Float:
        """Sums over the resampled items (r,) or (r, u) of `values` (n,) or (n, u)."""
        flat = values.reshape(len(values), -1).astype(np.float64)
        per_bucket = np.stack([np.bincount(self.bucket, column, self.draws.shape[1]) for column in flat.T], axis=1)
        return np.asarray(self.draws.astype(np.float64) @ per_bucket).reshape(len(self.draws), *values.shape[1:])

    def class_counts(self, codes: npt.NDArray[np.int64], n_classes: int, which: Array | None = None) -> Float:
        """How many resampled items (r, c) have each of `codes` (n,), among those of the mask `which` (n,)."""
        bucket, codes = (self.bucket, codes) if which is None else (self.bucket[which], codes[which])
        buckets = self.draws.shape[1]
        counts = np.bincount(bucket * n_classes + codes, minlength=buckets * n_classes).reshape(buckets, n_classes)
        return np.asarray(self.draws @ counts.astype(np.float32), np.float64)

    def mean(self, values: Array) -> Score:
        """The mean of `values` (n,); for differences of two heads' values on the same items, their paired gain."""
        if not len(values):
            return Score(np.nan, np.nan, np.nan)
        resampled = self.sums(values) / np.maximum(self.sums(np.ones(len(values))), 1)
        return Score.of(float(values.mean()), resampled)

    def weights(self, resamples: int) -> npt.NDArray[np.float32]:
        """How often each item is in the first `resamples` resamples (r, n), for statistics that are not sums."""
        return np.asarray(self.draws[:resamples][:, self.bucket])
