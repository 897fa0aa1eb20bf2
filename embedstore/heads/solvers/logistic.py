"""Multinomial logistic regression by truncated Newton, full batch, on numpy (CPU) or torch (CUDA).

Objective: mean cross-entropy + alpha/2 · ‖W‖², the intercept not penalised; scikit-learn's with C = 1/(alpha·n).

Newton's equations are solved by conjugate gradients only as exactly as the step deserves (Dembo, Eisenstat & Steihaug 1982).
The Hessian of class k is close to mean(p_k (1 - p_k)) · XᵀX/n + alpha: its inverse preconditions, exact on the leading
principal directions, which a randomized subspace iteration finds in a few products (Halko, Martinsson & Tropp 2011), and a
constant on the rest. A path of penalties is walked from strong to weak with warm starts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float32]
XpArray = Any
"""A numpy array or a torch tensor."""

DIRECTIONS = 128
LANES, FEW = 16, 64
"""Few classes are padded to a multiple of 16: products with 15 columns take 1.5 times as long as with 16."""
NEVER = -1e30
"""The intercept of a padding class: its probability is zero, and so is all that follows from it."""
NOTHING = 1e-6
"""An objective as good as none: of a class without an item it falls to 0 for ever, as nothing holds the bias."""
MAX_NEWTON, MAX_CG, MAX_HALVINGS = 100, 250, 20


@dataclass(frozen=True)
class Solution:
    """Weights (d, c) and intercept (c,) for `alpha`, and the objective reached after a number of passes over the data."""

    alpha: float
    weight: Float
    bias: Float
    objective: float
    passes: int


@dataclass(frozen=True)
class Point:
    """Weights and intercept, their objective, and the probabilities (n, c) they give."""

    weight: XpArray
    bias: XpArray
    objective: float
    p: XpArray


class LogisticProblem:
    """Features and labels, prepared once for several penalties.

    Parameters
    ----------
    features : (n, d) float32
    codes : (n,) int64 in 0…c-1
    n_classes : int
    weights : (n,), optional
        What each item counts, with mean 1; default 1.
    offset : (n, c), optional
        Known logits that those of the weights are added to: the penalty then draws towards what made them, not towards zero.
    device : str
        ``"cpu"`` computes with numpy; others with torch.
    like : LogisticProblem, optional
        A problem on nearly the same items, such as those without validation: its principal axes serve again. They only
        decide how soon the solution is found.
    """

    def __init__(
        self,
        features: Float,
        codes: npt.NDArray[np.int64],
        n_classes: int,
        *,
        weights: npt.NDArray[Any] | None = None,
        offset: npt.NDArray[Any] | None = None,
        device: str = "cpu",
        like: LogisticProblem | None = None,
    ) -> None:
        from array_api_compat import array_namespace

        x = on_device(np.asarray(features, np.float32), device)
        self._xp = array_namespace(x)
        self._mean = self._xp.mean(x, axis=0)
        self._z = x - self._mean
        self._padding = -n_classes % LANES if n_classes < FEW else 0
        self._start, targets = self._prepared(codes, n_classes)
        self._y = on_device(targets, device)
        self._items = on_device(np.arange(len(codes)), device)
        self._weights = None if weights is None else on_device(np.asarray(weights, np.float32)[:, None], device)
        known = None if offset is None else np.pad(np.asarray(offset, np.float32), ((0, 0), (0, self._padding)))
        self._offset = None if known is None else on_device(known, device)
        self._spectrum: tuple[XpArray, XpArray, float] = (
            like._spectrum if like is not None else self._principal(min(DIRECTIONS, *features.shape), device)
        )
        self._device = device
        self.passes = 0

    def solve(self, alpha: float, *, tolerance: float = 1e-6, start: Solution | None = None) -> Solution:
        """The solution for one penalty, begun at `start`, within about `tolerance` (relative) of the least objective."""
        return next(self.walk([alpha], tolerance=tolerance, start=start))

    def walk(self, alphas: Sequence[float], *, tolerance: float = 1e-6, start: Solution | None = None) -> Iterator[Solution]:
        """Solutions from the strongest of `alphas` to the weakest, each begun at the one before."""
        classes, pad = len(self._start), self._padding
        w = np.zeros((self._z.shape[1], classes), np.float32) if start is None else start.weight
        b = self._start if start is None else start.bias
        weight = on_device(np.pad(w, ((0, 0), (0, pad))), self._device)
        bias = on_device(np.pad(b, (0, pad), constant_values=NEVER), self._device)
        if start is not None:
            bias = bias + self._mean @ weight
        for alpha in sorted((float(a) for a in alphas), reverse=True):
            before = self.passes
            point = self._minimise(alpha, weight, bias, tolerance)
            weight, bias = point.weight, point.bias
            shift = bias - self._mean @ weight
            w, b = to_numpy(weight)[:, :classes], to_numpy(shift)[:classes]
            yield Solution(alpha, w, b, point.objective, self.passes - before)

    def _minimise(self, alpha: float, weight: XpArray, bias: XpArray, tolerance: float) -> Point:
        point = self._evaluate(alpha, weight, bias)
        first = None
        for _ in range(MAX_NEWTON):
            gradient = self._gradient(alpha, point)
            curvature = self._xp.mean(self._weighted(point.p * (1 - point.p)), axis=0)
            precondition = self._preconditioner(alpha, curvature)
            z = precondition((-gradient[0], -gradient[1]))
            decrement = -self._dot(gradient, z)
            first = first or decrement
            if not 0.5 * decrement > tolerance * max(point.objective, NOTHING):
                break
            goal = tolerance * max(point.objective, NOTHING) / decrement  # no step need be much more exact than the solution
            enough = min(0.25, max((decrement / first) ** 0.5, 0.2 * goal))
            step = self._newton_step(alpha, point.p, gradient, z, decrement, precondition, enough)
            if step is None:
                break
            slope = self._dot(gradient, step)
            better = self._line_search(alpha, point, step, slope)
            if better is None:
                break  # as good as float32 can tell
            point = better
        return point

    def _newton_step(
        self,
        alpha: float,
        p: XpArray,
        gradient: Pair,
        z: Pair,
        decrement: float,
        precondition: Callable[[Pair], Pair],
        enough: float,
    ) -> Pair | None:
        """A direction by conjugate gradients, until the squared preconditioned residual is `enough` of what it was."""
        residual = (-gradient[0], -gradient[1])
        direction, rz = z, self._inner(residual, z)
        step = (0 * z[0], 0 * z[1])
        for i in range(MAX_CG):
            curved = self._hessian_product(alpha, p, direction)
            curvature = self._inner(direction, curved)
            if not total(curvature) > 0:  # flat, as far as float32 can tell
                return None if i == 0 else step
            size = self._ratio(rz, curvature)
            step = (step[0] + size * direction[0], step[1] + size * direction[1])
            residual = (residual[0] - size * curved[0], residual[1] - size * curved[1])
            z = precondition(residual)
            rz, last = self._inner(residual, z), rz
            if not total(rz) > enough * decrement:
                break
            kept = self._ratio(rz, last)
            direction = (z[0] + kept * direction[0], z[1] + kept * direction[1])
        return step

    def _line_search(self, alpha: float, point: Point, step: Pair, slope: float) -> Point | None:
        """The first of full, half, quarter… steps that lowers the objective enough (Armijo)."""
        size = 1.0
        for _ in range(MAX_HALVINGS):
            tried = self._evaluate(alpha, point.weight + size * step[0], point.bias + size * step[1])
            if tried.objective <= point.objective + 1e-4 * size * slope:
                return tried
            size /= 2
        return None

    def _evaluate(self, alpha: float, weight: XpArray, bias: XpArray) -> Point:
        self.passes += 1
        logits = self._z @ weight + bias
        loss, p = self._loss(logits if self._offset is None else logits + self._offset)
        penalty = self._xp.sum(self._xp.astype(weight, self._xp.float64) ** 2)
        return Point(weight, bias, float(loss + 0.5 * alpha * penalty), p)

    def _gradient(self, alpha: float, point: Point) -> Pair:
        residual = self._weighted(self._residual(point.p))
        residual /= len(self._y)
        return (residual.T @ self._z).T + alpha * point.weight, self._xp.sum(residual, axis=0)

    def _hessian_product(self, alpha: float, p: XpArray, direction: Pair) -> Pair:
        self.passes += 1
        u = self._weighted(self._curved(p, self._z @ direction[0] + direction[1]))
        u /= len(self._y)
        return (u.T @ self._z).T + alpha * direction[0], self._xp.sum(u, axis=0)

    def _weighted(self, values: XpArray) -> XpArray:
        """Values (n, c) times what their items count."""
        return values if self._weights is None else values * self._weights

    # What the probabilities are: of one class an item, so that all classes are one problem

    def _inner(self, a: Pair, b: Pair) -> XpArray:
        """Inner products of conjugate gradients: one number, or one for each of several problems (c,)."""
        return self._dot(a, b)

    def _ratio(self, a: XpArray, b: XpArray) -> XpArray:
        """Quotients of such numbers."""
        return a / b

    def _prepared(self, codes: npt.NDArray[Any], n_classes: int) -> tuple[Float, npt.NDArray[Any]]:
        """The intercepts (c,) that the solver begins at, and the targets as the other methods take them."""
        counts = np.bincount(codes, minlength=n_classes)
        return np.log(np.maximum(counts, 0.5) / len(codes)).astype(np.float32), codes

    def _loss(self, logits: XpArray) -> tuple[XpArray, XpArray]:
        """The mean loss, float64, and the probabilities (n, c) of logits that may be written to."""
        xp = self._xp
        logits -= xp.max(logits, axis=1, keepdims=True)
        own = logits[self._items, self._y]
        p = xp.exp(logits)
        total = xp.sum(p, axis=1, keepdims=True)
        losses = xp.astype(xp.log(total[:, 0]), xp.float64) - own
        p /= total
        return xp.mean(losses if self._weights is None else losses * self._weights[:, 0]), p

    def _residual(self, p: XpArray) -> XpArray:
        """The derivative (n, c) of each item's loss by its logits."""
        residual = 1 * p
        residual[self._items, self._y] -= 1
        return residual

    def _curved(self, p: XpArray, u: XpArray) -> XpArray:
        """Each item's second derivative times u (n, c), which may be written to."""
        u -= self._xp.sum(p * u, axis=1, keepdims=True)
        u *= p
        return u

    def _preconditioner(self, alpha: float, curvature: XpArray) -> Callable[[Pair], Pair]:
        """Nearly the inverse Hessian: exact for its class-diagonal part on the leading axes, constant beside them."""
        xp = self._xp
        values, axes, rest = self._spectrum
        beside = 1 / (rest * curvature + alpha)
        along = 1 / (values[:, None] * curvature + alpha) - beside
        intercept = 1 / xp.maximum(curvature, 0 * curvature + 1e-6)

        def apply(r: Pair) -> Pair:
            return r[0] * beside + axes @ (along * (axes.T @ r[0])), r[1] * intercept

        return apply

    def _dot(self, a: Pair, b: Pair) -> float:
        return float(self._xp.sum(a[0] * b[0]) + self._xp.sum(a[1] * b[1]))

    def _principal(self, k: int, device: str) -> tuple[XpArray, XpArray, float]:
        """The k leading eigenvalues (k,) and eigenvectors (d, k) of ZᵀZ/n, and the mean of the other eigenvalues."""
        xp, z = self._xp, self._z
        n, d = z.shape
        axes = on_device(np.random.default_rng(0).standard_normal((d, k)).astype(np.float32), device)
        for _ in range(2):
            axes, _ = xp.linalg.qr(z.T @ (z @ axes))
        small = z @ axes
        values, vectors = xp.linalg.eigh(small.T @ small / n)
        values = xp.maximum(values, 0 * values)
        rest = (float(xp.sum(xp.sum(z * z, axis=0) / n)) - float(xp.sum(values))) / max(d - k, 1)
        return values, axes @ vectors, max(rest, 0.0)


Pair = tuple[XpArray, XpArray]
"""Something shaped like the weights (d, c) and like the intercept (c,)."""


def total(numbers: XpArray) -> float:
    return float(numbers.sum()) if hasattr(numbers, "sum") else float(numbers)


def on_device(array: npt.NDArray[Any], device: str) -> XpArray:
    if device == "cpu":
        return array
    import torch

    return torch.from_numpy(np.ascontiguousarray(array)).to(device)


def as_numpy(array: XpArray) -> npt.NDArray[Any]:
    return array if isinstance(array, np.ndarray) else np.asarray(array.cpu().numpy())


def to_numpy(array: XpArray) -> Float:
    return np.ascontiguousarray(as_numpy(array), np.float32)
