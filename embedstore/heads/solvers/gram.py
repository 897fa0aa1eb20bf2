"""Gram statistics of a data set: one pass over the vectors, then every ridge model that can be asked for.

From XᵀX, XᵀY, sums and counts per fold follow, without another look at the data: standardisation, ridge for every penalty,
K-fold cross-validation (a training Gram is the total minus the fold's), and the same for **every subset of inputs**, which
is a sub-block. Statistics are sums, so parts of a data set can be reduced in parallel.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.evaluation.contributions import shapley_of

Array = npt.NDArray[Any]
Float = npt.NDArray[np.float64]


@dataclass
class Gram:
    """Sums over some items of features x (D,), and of targets y (T,).

    Parameters
    ----------
    n : float
    xx : (D, D) float64
    xy : (D, T) float64
    x : (D,) float64
    y : (T,) float64
    yy : (T,) float64
        Sums of squares.
    """

    n: float
    xx: Float
    xy: Float
    x: Float
    y: Float
    yy: Float

    def __add__(self, other: Gram) -> Gram:
        return Gram(*(a + b for a, b in zip(self._sums(), other._sums(), strict=True)))

    def __sub__(self, other: Gram) -> Gram:
        return Gram(*(a - b for a, b in zip(self._sums(), other._sums(), strict=True)))

    def _sums(self) -> tuple[Any, ...]:
        return self.n, self.xx, self.xy, self.x, self.y, self.yy

    def select(self, columns: npt.NDArray[np.intp]) -> Gram:
        """The statistics of some of the features."""
        return Gram(self.n, self.xx[np.ix_(columns, columns)], self.xy[columns], self.x[columns], self.y, self.yy)

    @classmethod
    def empty(cls, width: int, targets: int) -> Gram:
        """The statistics of no item."""
        wide, narrow = np.zeros((width, width)), np.zeros((width, targets))
        return cls(0.0, wide, narrow, np.zeros(width), np.zeros(targets), np.zeros(targets))

    @classmethod
    def of(cls, x: npt.NDArray[np.float32], y: Float) -> Gram:
        """The statistics of features (n, D) float32 and targets (n, T)."""
        gram = cls.empty(x.shape[1], y.shape[1])
        gram.add(x, y)
        return gram

    def add(self, x: npt.NDArray[np.float32], y: Float) -> None:
        """Add features (n, D) float32 and targets (n, T), a few thousand items: float32 products, float64 sums."""
        np.add(self.xx, x.T @ x, out=self.xx)
        np.add(self.xy, x.T @ y.astype(np.float32), out=self.xy)
        np.add(self.x, x.sum(axis=0, dtype=np.float64), out=self.x)
        np.add(self.y, y.sum(axis=0), out=self.y)
        np.add(self.yy, np.square(y).sum(axis=0), out=self.yy)
        self.n += len(x)


def gram_folds(
    blocks: Iterable[tuple[Mapping[str, Array], Float, npt.NDArray[np.int64]]],
    dims: Mapping[str, int],
    targets: int,
    folds: int,
) -> list[Gram]:
    """One `Gram` a fold over blocks of (inputs, targets (b, T), fold (b,)); float32 products, float64 sums over blocks.

    Parameters
    ----------
    blocks : iterable
        Such as the blocks of a view that is larger than memory; a few thousand items each.
    dims : mapping of input name to width
        The order of the features.
    """
    width = sum(dims.values())
    sums = [Gram.empty(width, targets) for _ in range(folds)]
    for inputs, y, fold in blocks:
        order = np.argsort(fold, kind="stable")
        edges = np.searchsorted(fold[order], np.arange(folds + 1)).tolist()
        for k, (lo, hi) in enumerate(pairwise(edges)):
            if lo < hi:
                at = np.sort(order[lo:hi])
                x = np.empty((len(at), width), np.float32)
                left = 0
                for name, d in dims.items():
                    x[:, left : left + d] = inputs[name][at]
                    left += d
                sums[k].add(x, y[at])
    return sums


@dataclass(frozen=True)
class RidgeFit:
    """Ridge models of one set of items and features for every penalty.

    Parameters
    ----------
    x_mean : (D,)
    y_mean : (T,)
    values, vectors : (D,), (D, D)
        Eigendecomposition of the centred Gram.
    projected : (D, T)
        Centred XᵀY in the eigenbasis.
    """

    x_mean: Float
    y_mean: Float
    values: Float
    vectors: Float
    projected: Float

    @classmethod
    def of(cls, gram: Gram) -> RidgeFit:
        x_mean, y_mean = gram.x / gram.n, gram.y / gram.n
        values, vectors = np.linalg.eigh(gram.xx - gram.n * np.outer(x_mean, x_mean))
        projected = vectors.T @ (gram.xy - gram.n * np.outer(x_mean, y_mean))
        return cls(x_mean, y_mean, np.maximum(values, 0), vectors, projected)

    def coefficients(self, penalty: float) -> tuple[Float, Float]:
        """Weights (D, T) and intercept (T,) of min Σ (y - xw - b)² + penalty · ‖w‖² (scikit-learn's Ridge)."""
        weight = self.vectors @ (self.projected / (self.values + penalty)[:, None])
        return weight, self.y_mean - self.x_mean @ weight

    def squared_errors(self, held_out: Gram, penalties: Sequence[float]) -> Float:
        """Σ (y - ŷ)² (p, T) over the items behind `held_out`, for every penalty, from their sums alone."""
        m, my = self.x_mean, self.y_mean
        cross = np.outer(held_out.x, m)
        xx = held_out.xx - cross - cross.T + held_out.n * np.outer(m, m)
        xy = held_out.xy - np.outer(held_out.x, my) - np.outer(m, held_out.y) + held_out.n * np.outer(m, my)
        yy = held_out.yy - 2 * my * held_out.y + held_out.n * my**2
        shrunk = [self.projected / (self.values + penalty)[:, None] for penalty in penalties]
        weight = self.vectors @ np.concatenate(shrunk, axis=1)  # (D, p·T): cheaper than rotating xx while p·T < 2D
        quadratic = (weight * (xx @ weight)).sum(axis=0).reshape(len(penalties), -1)
        return np.asarray(yy - 2 * (weight * np.tile(xy, len(penalties))).sum(axis=0).reshape(quadratic.shape) + quadratic)


def predict_subsets(
    parts: Sequence[Gram], dims: Mapping[str, int], penalties: Sequence[float], x: Array
) -> dict[tuple[str, ...], Float]:
    """Scores (n, T) of features `x` (n, D) by ridge on every non-empty subset of the inputs.

    Parameters
    ----------
    parts : two Grams
        To fit on, and to choose the penalty of each subset on.
    """
    fit, choose = parts
    found = {}
    for subset, columns in _subsets(dims):
        ridge, held_out = RidgeFit.of(fit.select(columns)), choose.select(columns)
        penalty = penalties[int(ridge.squared_errors(held_out, penalties).sum(axis=1).argmin())]
        weight, bias = ridge.coefficients(penalty)
        found[subset] = x[:, columns] @ weight + bias
    return found


def _subsets(dims: Mapping[str, int]) -> Iterator[tuple[tuple[str, ...], npt.NDArray[np.intp]]]:
    """Every non-empty subset of the inputs, smallest first, and its columns."""
    edges = np.cumsum([0, *dims.values()])
    columns = {name: np.arange(lo, hi) for name, lo, hi in zip(dims, edges[:-1], edges[1:], strict=True)}
    for size in range(1, len(dims) + 1):
        for subset in combinations(dims, size):
            yield subset, np.concatenate([columns[name] for name in subset])


@dataclass(frozen=True)
class SubsetScore:
    """Cross-validated R² of one subset of inputs, at the penalty that serves it best.

    Parameters
    ----------
    inputs : tuple of str
    r2 : (p,) float64
        For every penalty: the mean over targets, weighted by their variance.
    """

    inputs: tuple[str, ...]
    penalties: tuple[float, ...]
    r2: Float

    @property
    def best(self) -> float:
        return float(self.r2.max())


def score_subsets(folds: Sequence[Gram], dims: Mapping[str, int], penalties: Sequence[float]) -> list[SubsetScore]:
    """Cross-validated ridge on every non-empty subset of the inputs and every penalty, without another look at the data."""
    total = folds[0]
    for fold in folds[1:]:
        total = total + fold
    spread = float((total.yy - total.y**2 / total.n).sum())
    scores = []
    for subset, columns in _subsets(dims):
        whole = total.select(columns)
        errors = np.zeros((len(penalties), len(total.y)))
        for fold in folds:
            held_out = fold.select(columns)
            errors += RidgeFit.of(whole - held_out).squared_errors(held_out, penalties)
        scores.append(SubsetScore(subset, tuple(penalties), 1 - errors.sum(axis=1) / max(spread, 1e-300)))
    return scores


def shapley(scores: Sequence[SubsetScore]) -> dict[str, float]:
    """Exact Shapley value of every input: its mean gain in R² over all orders of adding inputs; they sum to the R² of all."""
    value = {frozenset(s.inputs): s.best for s in scores} | {frozenset(): 0.0}
    names = sorted({name for s in scores for name in s.inputs})
    return {name: float(shapley_of(name, names, value)) for name in names}
