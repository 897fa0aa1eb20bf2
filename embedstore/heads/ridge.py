"""The ridge head: least squares on class indicators, closed form, with a calibrated scale for probabilities.

One eigendecomposition serves every penalty; leave-one-out predictions are closed form (r / (1 - h), Allen's PRESS), so no
validation set is spent. A ridge with a calibrated scale matches logistic regression on most data sets (arXiv 2401.15610).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from embedstore.heads._calibrate import fit_scale
from embedstore.heads._features import Standardizer
from embedstore.heads.base import Array, Data, Float, Head, HeadState, log_softmax, nll

LAMBDAS = tuple(float(x) for x in np.logspace(-4, 3, 20))


class RidgeHead(Head):
    """Ridge regression on ±1 class indicators over standardised inputs.

    Parameters
    ----------
    lambdas : sequence of float
        Penalties relative to n, tried by leave-one-out loss.

    Attributes
    ----------
    lambda_ : float
    scale_ : float
        What turns scores into logits; fitted on leave-one-out scores.
    weight_ : (Σd + m, c) float32
    bias_ : (c,) float32
    """

    kind = "ridge"

    lambda_: float
    scale_: float
    weight_: npt.NDArray[np.float32]
    bias_: npt.NDArray[np.float32]
    standardizer_: Standardizer

    def __init__(self, lambdas: Sequence[float] = LAMBDAS) -> None:
        self.lambdas = lambdas

    def _fit(self, train: Data, validation: Data) -> None:
        data = train if validation is train else train + validation
        self.standardizer_ = Standardizer().fit(data)
        x = self.standardizer_.transform(data).astype(np.float64)
        y = 2 * np.eye(len(self.classes_))[data.codes] - 1
        x_mean, y_mean = x.mean(axis=0), y.mean(axis=0)
        u, s, vt = _svd(x - x_mean)
        uy, n = u.T @ (y - y_mean), len(x)
        best = np.inf
        for penalty in self.lambdas:
            shrink = s**2 / (s**2 + penalty * n)
            fitted = u @ (shrink[:, None] * uy) + y_mean
            leverage = np.minimum((u**2) @ shrink + 1 / n, 1 - 1e-9)
            left_out = y - (y - fitted) / (1 - leverage)[:, None]
            scale = fit_scale(left_out, data.codes)
            loss = nll(log_softmax(scale * left_out), data.codes)
            if loss < best:
                best, self.lambda_, self.scale_ = loss, float(penalty), scale
        weight = vt.T @ ((s / (s**2 + self.lambda_ * n))[:, None] * uy)
        self.weight_ = weight.astype(np.float32)
        self.bias_ = (y_mean - x_mean @ weight).astype(np.float32)

    def _logits(self, data: Data) -> Array:
        return np.asarray(self.scale_ * (self.standardizer_.transform(data) @ self.weight_ + self.bias_))

    def _state(self) -> HeadState:
        tensors = {"weight": self.weight_, "bias": self.bias_, **self.standardizer_.tensors()}
        return HeadState({"lambda": self.lambda_, "scale": self.scale_}, tensors)

    def _restore(self, state: HeadState) -> None:
        self.lambda_, self.scale_ = state.config["lambda"], state.config["scale"]
        self.weight_, self.bias_ = state.tensors["weight"], state.tensors["bias"]
        self.standardizer_ = Standardizer.from_tensors(state.tensors, list(self.dims_))


def _svd(x: Float) -> tuple[Float, Float, Float]:
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
