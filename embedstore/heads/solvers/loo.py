"""Ridge on class indicators with its penalty chosen by leave-one-out, in closed form, and a calibrated scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.heads.base import Codes, Float, log_softmax, nll
from embedstore.heads.solvers.temperature import fit_scale


@dataclass(frozen=True)
class LooRidge:
    """min Σ v ‖y - xw - b‖² + penalty · n · ‖w‖² at the penalty with the lowest leave-one-out log-loss.

    v, of mean 1, is what each item counts. Leave-one-out residuals are r / (1 - h) (Allen's PRESS), so one eigendecomposition
    serves every penalty.

    Parameters
    ----------
    penalty : float
    scale : float
        What turns scores into logits; fitted on the leave-one-out scores.
    weight : (D, c) float64
    bias : (c,) float64
    loss : float
        Leave-one-out log-loss.
    left_out : (n, c) float64
        Leave-one-out scores, times `scale`: honest log-probabilities up to a softmax.
    """

    penalty: float
    scale: float
    weight: Float
    bias: Float
    loss: float
    left_out: Float

    @classmethod
    def fit(
        cls,
        x: npt.NDArray[Any],
        codes: Codes,
        n_classes: int,
        penalties: Sequence[float],
        *,
        weights: Float | None = None,
    ) -> LooRidge:
        """Fit features (n, D) and class codes (n,), ±1 indicators of which are the targets."""
        x, n = x.astype(np.float64), len(x)
        y = 2 * np.eye(n_classes)[codes] - 1
        v = np.ones(n) if weights is None else weights * (n / weights.sum())
        root = np.sqrt(v)[:, None]  # weighted least squares is the plain one on rows times this
        x_mean, y_mean = (np.average(a, axis=0, weights=v) for a in (x, y))
        u, s, vt = decompose((x - x_mean) * root)
        uy, squared = u.T @ ((y - y_mean) * root), u**2
        best: tuple[float, float, float, Float] | None = None
        for penalty in penalties:
            shrink = s**2 / (s**2 + penalty * n)
            fitted = u @ (shrink[:, None] * uy) / root + y_mean
            leverage = np.minimum(squared @ shrink + v / n, 1 - 1e-9)
            left_out = y - (y - fitted) / (1 - leverage)[:, None]
            scale = fit_scale(left_out, codes, weights)
            loss = nll(log_softmax(scale * left_out), codes, weights)
            if best is None or loss < best[0]:
                best = loss, float(penalty), scale, left_out * scale
        if best is None:
            raise ValueError("no penalties")
        loss, penalty, scale, left_out = best
        weight = vt.T @ ((s / (s**2 + penalty * n))[:, None] * uy)
        return cls(penalty, scale, weight, y_mean - x_mean @ weight, loss, left_out)


def decompose(x: Float) -> tuple[Float, Float, Float]:
    """U (n, r), s (r,), Vᵀ (r, d) of x through the smaller Gram; directions without variance are left out."""
    n, d = x.shape
    values, vectors = np.linalg.eigh(x.T @ x if d <= n else x @ x.T)
    keep = values > max(values.max(), 1e-30) * 1e-12
    s = np.sqrt(values[keep])
    if d <= n:
        vt = vectors[:, keep].T
        return (x @ vt.T) / s, s, vt
    u = vectors[:, keep]
    return u, s, (u.T @ x) / s[:, None]
