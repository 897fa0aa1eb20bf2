"""The ridge head: least squares on class indicators, closed form, with a calibrated scale for probabilities.

Leave-one-out chooses the penalty, so no validation set is spent. A ridge with a calibrated scale matches logistic
regression on most data sets (arXiv 2401.15610).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from embedstore.heads.base import Array, Data, Float, Head, HeadState, log_softmax
from embedstore.heads.params import Real, Tunable
from embedstore.heads.solvers.design_matrix import Standardizer
from embedstore.heads.solvers.loo import LooRidge

LAMBDAS = tuple(float(x) for x in np.logspace(-4, 3, 20))
LAMBDA: Tunable = {"lambdas": Real(1e-5, 1e3, log=True, listed=True, levels=25)}
"""Penalties that tuning tries."""


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
    leaves_one_out = True
    chooses_within = True
    takes_weights = True
    tunable: ClassVar[Tunable] = LAMBDA

    lambda_: float
    scale_: float
    weight_: npt.NDArray[np.float32]
    bias_: npt.NDArray[np.float32]
    standardizer_: Standardizer

    def __init__(self, lambdas: Sequence[float] = LAMBDAS) -> None:
        self.lambdas = lambdas

    def _fit(self, train: Data, validation: Data) -> None:
        fit = self._learn(train if validation is train else train + validation, self.lambdas)
        self.lambda_, self.scale_, self._left_out = fit.penalty, fit.scale, fit.left_out

    def learn_again(self, train: Data, validation: Data) -> None:
        self._learn(train if validation is train else train + validation, [self.lambda_])

    def _learn(self, data: Data, lambdas: Sequence[float]) -> LooRidge:
        self.standardizer_ = Standardizer().fit(data)
        x = self.standardizer_.transform(data)
        fit = LooRidge.fit(x, data.codes, len(self.classes_), lambdas, weights=data.weights)
        self.weight_, self.bias_ = fit.weight.astype(np.float32), fit.bias.astype(np.float32)
        return fit

    def left_out(self, data: Data) -> Float | None:
        return log_softmax(self._left_out)

    def _logits(self, data: Data) -> Array:
        return np.asarray(self.scale_ * (self.standardizer_.transform(data) @ self.weight_ + self.bias_))

    def _state(self) -> HeadState:
        tensors = {"weight": self.weight_, "bias": self.bias_, **self.standardizer_.tensors()}
        return HeadState({"lambda": self.lambda_, "scale": self.scale_}, tensors)

    def _restore(self, state: HeadState) -> None:
        self.lambda_, self.scale_ = state.config["lambda"], state.config["scale"]
        self.weight_, self.bias_ = state.tensors["weight"], state.tensors["bias"]
        self.standardizer_ = Standardizer.from_tensors(state.tensors, list(self.dims_))
