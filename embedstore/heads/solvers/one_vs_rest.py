"""One-vs-rest logistic regression: the problems of all labels at once, each with its own minimum. See `logistic`."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.heads.solvers.logistic import (
    LANES,
    MAX_HALVINGS,
    MAX_NEWTON,
    NOTHING,
    Float,
    LogisticProblem,
    Pair,
    Point,
    XpArray,
    as_numpy,
    on_device,
    total,
)

__all__ = ["OneVsRestProblem"]


class OneVsRestProblem(LogisticProblem):
    """The same for labels of which an item has any number: `codes` (n, c) are 0 and 1, and each label's loss is its own."""

    def __init__(
        self,
        features: Float,
        codes: npt.NDArray[Any],
        *,
        device: str = "cpu",
        like: LogisticProblem | None = None,
    ) -> None:
        super().__init__(features, codes, codes.shape[1], device=device, like=like)

    def _minimise(self, alpha: float, weight: XpArray, bias: XpArray, tolerance: float) -> Point:
        """Each label by steps of its own length; those that are solved stay where they are, and cost nothing more."""
        xp, labels = self._xp, weight.shape[1]
        weight, bias = 1 * weight, 1 * bias
        part, at, first = self, np.arange(labels), None
        losses, p = self._each(alpha, weight, bias)
        reached = total(losses)
        w, b = weight, bias
        for _ in range(MAX_NEWTON):
            gradient = part._gradient(alpha, Point(w, b, reached, p))
            precondition = part._preconditioner(alpha, xp.mean(p * (1 - p), axis=0))
            z = precondition((-gradient[0], -gradient[1]))
            decrements = -part._inner(gradient, z)
            goal = tolerance * max(reached, NOTHING)
            kept = _unsolved(as_numpy(decrements), 2 * goal / labels)
            if not len(kept):
                break
            if len(kept) < len(at):
                where = on_device(kept, self._device)
                part, at = part._of(where), at[kept]
                w, b, losses, p, decrements = w[:, where], b[where], losses[where], p[:, where], decrements[where]
                gradient, z = ((pair[0][:, where], pair[1][where]) for pair in (gradient, z))
                precondition = part._preconditioner(alpha, xp.mean(p * (1 - p), axis=0))
            decrement = total(decrements)
            first = first or decrement
            enough = min(0.25, max((decrement / first) ** 0.5, 0.2 * goal / decrement))
            step = part._newton_step(alpha, p, gradient, z, decrement, precondition, enough)
            if step is None:
                break
            w, b, after, p = part._each_search(alpha, w, b, losses, step, part._inner(gradient, step))
            gained = total(losses) - total(after)
            losses, reached = after, reached - gained
            everywhere = on_device(at, self._device)
            weight[:, everywhere], bias[everywhere] = w, b
            if not gained > 0:
                break  # as good as float32 can tell
        self.passes = part.passes
        return Point(weight, bias, reached, p)

    def _of(self, where: XpArray) -> OneVsRestProblem:
        """The same problem for some of the labels, which counts its passes on from here."""
        part = copy.copy(self)
        part._y = self._y[:, where]
        return part

    def _each(self, alpha: float, weight: XpArray, bias: XpArray) -> tuple[XpArray, XpArray]:
        """The objective of each label (c,), float64, and the probabilities (n, c)."""
        self.passes += 1
        losses, p = self._losses(self._z @ weight + bias)
        return losses + 0.5 * alpha * self._xp.sum(self._xp.astype(weight, self._xp.float64) ** 2, axis=0), p

    def _each_search(
        self, alpha: float, weight: XpArray, bias: XpArray, before: XpArray, step: Pair, slope: XpArray
    ) -> tuple[XpArray, XpArray, XpArray, XpArray]:
        """The first of full, half, quarter… steps of each label that lowers its objective enough (Armijo), or none."""
        size, high = 1.0, np.arange(len(bias))
        w, b = weight + step[0], bias + step[1]
        after, p = self._each(alpha, w, b)
        for halving in range(MAX_HALVINGS):
            at = on_device(high, self._device)
            high = high[~as_numpy(after[at] <= before[at] + 1e-4 * size * slope[at])]
            if not len(high):
                break
            at, size = on_device(high, self._device), size / 2 if halving < MAX_HALVINGS - 1 else 0.0
            w[:, at], b[at] = weight[:, at] + size * step[0][:, at], bias[at] + size * step[1][at]
            after[at], p[:, at] = self._of(at)._each(alpha, w[:, at], b[at])
            self.passes += 1
        return w, b, after, p

    def _prepared(self, codes: npt.NDArray[Any], n_classes: int) -> tuple[Float, npt.NDArray[Any]]:
        counts = np.clip(codes.sum(axis=0), 0.5, len(codes) - 0.5)
        padded = np.pad(codes.astype(np.float32), ((0, 0), (0, self._padding)))
        return np.log(counts / (len(codes) - counts)).astype(np.float32), padded

    def _inner(self, a: Pair, b: Pair) -> XpArray:
        return self._xp.sum(a[0] * b[0], axis=0) + a[1] * b[1]

    def _ratio(self, a: XpArray, b: XpArray) -> XpArray:
        return self._xp.where(b > 0, a, 0 * a) / self._xp.where(b > 0, b, 0 * b + 1)  # 0 for a label that is solved

    def _losses(self, logits: XpArray) -> tuple[XpArray, XpArray]:
        """The mean loss of each label (c,), float64, and the probabilities (n, c)."""
        xp = self._xp
        small = xp.exp(-xp.abs(logits))
        losses = xp.log1p(small) + xp.where(logits > 0, logits, 0 * logits) - self._y * logits
        p = xp.where(logits >= 0, 1 / (1 + small), small / (1 + small))
        return xp.sum(xp.astype(losses, xp.float64), axis=0) / len(self._y), p

    def _residual(self, p: XpArray) -> XpArray:
        return p - self._y

    def _curved(self, p: XpArray, u: XpArray) -> XpArray:
        u *= p * (1 - p)
        return u


def _unsolved(decrements: npt.NDArray[Any], solved: float) -> npt.NDArray[np.int64]:
    """Positions of the labels with the largest decrements: all above `solved`, and some more up to a multiple of `LANES`."""
    count = int((decrements > solved).sum())
    if not count:
        return np.empty(0, np.int64)
    return np.sort(np.argsort(-decrements, kind="stable")[: -(-count // LANES) * LANES])
