"""Canonical correlations of the unit vectors of two sides, under a ridge on either: directions, and what they retrieve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from embedstore._core.unit import unit_rows
from embedstore.errors import HeadError
from embedstore.evaluation.paired import Codes, content_codes, rank_distinct
from embedstore.heads.base import Array, Float

CHOOSE_ON = 1000
"""Held-out pairs that are compared with one another at most, in each fold."""
BLOCK = 16384
RANK_TOLERANCE = 1e-9
LEAST_CORRELATION = 1e-6


@dataclass(frozen=True)
class Choice:
    """What is chosen on held-out pairs: the penalty of either side, the power, and how many directions (None: all)."""

    first: float
    second: float
    power: float
    dim: int | None = None


@dataclass(frozen=True)
class Sums:
    """Sums over n pairs of z (D,), unit vectors of both sides behind one another, and of their products (D, D)."""

    n: int
    split: int
    z: Float
    zz: Float

    @classmethod
    def of(cls, x: Array, y: Array) -> Sums:
        width = x.shape[1] + y.shape[1]
        z, zz = np.zeros(width), np.zeros((width, width))
        for lo in range(0, len(x), BLOCK):
            at = slice(lo, lo + BLOCK)
            block = np.concatenate([unit_rows(x[at], np.float64), unit_rows(y[at], np.float64)], axis=1)
            z += block.sum(axis=0)
            zz += block.T @ block
        return cls(len(x), x.shape[1], z, zz)

    def __add__(self, other: Sums) -> Sums:
        return Sums(self.n + other.n, self.split, self.z + other.z, self.zz + other.zz)

    def __sub__(self, other: Sums) -> Sums:
        return Sums(self.n - other.n, self.split, self.z - other.z, self.zz - other.zz)


@dataclass(frozen=True)
class Basis:
    """Principal components of each side, and the covariance between them: all that every penalty needs.

    Parameters
    ----------
    mean : (d1,), (d2,)
    values : (r1,), (r2,)
        Variances along the components, those of no variance left out.
    vectors : (d1, r1), (d2, r2)
    unit : float, float
        Mean variance of each side, the unit of penalties.
    cross : (r1, r2)
    """

    mean: tuple[Float, Float]
    values: tuple[Float, Float]
    vectors: tuple[Float, Float]
    unit: tuple[float, float]
    cross: Float

    @property
    def rank(self) -> int:
        return int(min(self.cross.shape))

    @classmethod
    def of(cls, sums: Sums, names: tuple[str, str]) -> Basis:
        mean = sums.z / sums.n
        covariance = sums.zz / sums.n - np.outer(mean, mean)
        sides = slice(0, sums.split), slice(sums.split, None)
        values, vectors = [], []
        for name, side in zip(names, sides, strict=True):
            found, axes = np.linalg.eigh(covariance[side, side])
            if found[-1] <= RANK_TOLERANCE:
                raise HeadError(f"Input {name!r} is the same vector for every item: there is nothing to align.")
            kept = found > found[-1] * RANK_TOLERANCE
            values.append(found[kept])
            vectors.append(axes[:, kept])
        cross = vectors[0].T @ covariance[sides[0], sides[1]] @ vectors[1]
        unit = tuple(float(v.sum() / len(axes)) for v, axes in zip(values, vectors, strict=True))
        return cls(
            (mean[sides[0]], mean[sides[1]]), (values[0], values[1]), (vectors[0], vectors[1]), (unit[0], unit[1]), cross
        )

    def solve(self, choice: Choice) -> tuple[Float, Float, Float]:
        """Directions (r1, r) and (r2, r) in the components, and their correlations (r,), under the penalties chosen."""
        x = 1 / np.sqrt(self.values[0] + choice.first * self.unit[0])
        y = 1 / np.sqrt(self.values[1] + choice.second * self.unit[1])
        whitened = x[:, None] * self.cross * y
        wide = whitened.shape[0] <= whitened.shape[1]
        near = whitened if wide else whitened.T
        values, axes = np.linalg.eigh(near @ near.T)  # half the time of an SVD; directions that it would get wrong are left out
        correlations = np.sqrt(np.maximum(values[::-1], 0))
        kept = max(int((correlations > LEAST_CORRELATION).sum()), 1)
        correlations, axes = np.maximum(correlations[:kept], LEAST_CORRELATION), axes[:, ::-1][:, :kept]
        others = near.T @ axes / correlations
        left, right = (axes, others) if wide else (others, axes)
        return x[:, None] * left, y[:, None] * right, correlations

    def components(self, side: int, vectors: Array) -> Float:
        """Vectors (m, d) of one side in its components (m, r)."""
        return np.asarray((unit_rows(vectors, np.float64) - self.mean[side]) @ self.vectors[side])


@dataclass(frozen=True)
class HeldOut:
    """What was learned without a fold, and the fold's pairs in the components of either side."""

    basis: Basis
    x: Float
    y: Float
    codes: tuple[Codes, Codes]

    @classmethod
    def of(cls, basis: Basis, x: Array, y: Array, *, seed: int) -> HeldOut:
        at = np.random.default_rng(seed).permutation(len(x))[:CHOOSE_ON]
        x, y = x[at], y[at]
        return cls(basis, basis.components(0, x), basis.components(1, y), (content_codes(x), content_codes(y)))

    def reciprocal_ranks(self, choices: Sequence[Choice]) -> Float:
        """For choices (c,) of the same penalties: the sum of reciprocal ranks, both directions, and of queries (c, 2)."""
        left, right, correlations = self.basis.solve(choices[0])
        x, y = (self.x @ left).astype(np.float32), (self.y @ right).astype(np.float32)
        found = []
        for choice in choices:
            scale = (correlations[: choice.dim] ** choice.power).astype(np.float32)
            u, v = unit_rows(x[:, : choice.dim] * scale), unit_rows(y[:, : choice.dim] * scale)
            forth, back = rank_distinct(u, v, *self.codes), rank_distinct(v, u, *self.codes[::-1])
            ranks = np.concatenate([forth.ranks, back.ranks])
            found.append(((1 / ranks).sum(), len(ranks)))
        return np.array(found)


def mean_reciprocal_ranks(held_out: Sequence[HeldOut], choices: Sequence[Choice]) -> Float:
    """Over all folds, for choices (c,); those of the same penalties must be behind one another."""
    sums = [
        np.sum([fold.reciprocal_ranks(same) for fold in held_out], axis=0)
        for same in (list(group) for _, group in groupby(choices, key=lambda choice: (choice.first, choice.second)))
    ]
    total = np.concatenate(sums)
    return np.asarray(total[:, 0] / total[:, 1])
