"""The kernel head: ridge on a Gaussian kernel of the unit-length inputs, closed form. Often the best on small data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from embedstore._core.unit import unit_rows
from embedstore.errors import HeadError
from embedstore.heads.base import Array, Data, Float, Head, HeadState, log_softmax
from embedstore.heads.knn import weightings
from embedstore.heads.params import Choice, Real, Tunable
from embedstore.heads.solvers.design_matrix import Standardizer
from embedstore.heads.solvers.loo import LooRidge

Float32 = npt.NDArray[np.float32]

BLOCK = 8192


class KernelHead(Head):
    """Kernel ridge classification over landmarks (Nyström; Williams & Seeger 2001).

    The kernel is exp(-γ Σ w_m ‖x_m - x'_m‖²) over standardised inputs of unit length; up to `landmarks` training items are its
    landmarks (all of them, if there are no more: then it is exact kernel ridge). Weights, γ and penalty are chosen by
    leave-one-out log-loss, the first two on a sample.

    Parameters
    ----------
    gammas : sequence of float
    lambdas : sequence of float
        Penalties relative to n.
    landmarks : int
    sample : int
        Items that weights and γ are chosen on.
    seed : int

    Attributes
    ----------
    gamma_, lambda_, scale_ : float
    weights_ : dict of input to float
        Each modality's share of the squared distance.
    landmarks_ : (m, Σd) float16
    coefficients_ : (m, c) float32
    bias_ : (c,) float32
    """

    kind = "kernel"
    leaves_one_out = True
    chooses_within = True
    tunable: ClassVar[Tunable] = {
        "gammas": Real(0.1, 3.0, log=True, listed=True),
        "lambdas": Real(1e-6, 0.1, log=True, listed=True, levels=6),
        "landmarks": Choice((512, 1024, 2048)),
    }

    gamma_: float
    lambda_: float
    scale_: float
    weights_: dict[str, float]
    landmarks_: npt.NDArray[np.float16]
    coefficients_: Float32
    bias_: Float32
    standardizer_: Standardizer

    def __init__(
        self,
        gammas: Sequence[float] = (0.3, 0.6, 1.2),
        lambdas: Sequence[float] = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
        landmarks: int = 1024,
        sample: int = 512,
        seed: int = 0,
    ) -> None:
        self.gammas = gammas
        self.lambdas = lambdas
        self.landmarks = landmarks
        self.sample = sample
        self.seed = seed

    def _fit(self, train: Data, validation: Data) -> None:
        data = train if validation is train else train + validation
        self.standardizer_ = Standardizer(balance=False).fit(data)
        self._choose_kernel(data.take(self._order(data)[: self.sample]))
        fit = self._learn(data, self.lambdas)
        self.lambda_, self.scale_, self._left_out = fit.penalty, fit.scale, fit.left_out

    def learn_again(self, train: Data, validation: Data) -> None:
        data = train if validation is train else train + validation
        self.standardizer_ = Standardizer(balance=False).fit(data)
        self._learn(data, [self.lambda_])

    def _learn(self, data: Data, lambdas: Sequence[float]) -> LooRidge:
        x = self._unit(data, self.weights_)
        self.landmarks_ = x[self._order(data)[: self.landmarks]].astype(np.float16)
        fit = self._solve(x, self.landmarks_.astype(np.float32), data, lambdas)
        self.coefficients_, self.bias_ = fit.weight.astype(np.float32), fit.bias.astype(np.float32)
        return fit

    def _order(self, data: Data) -> npt.NDArray[np.int64]:
        return np.random.default_rng(self.seed).permutation(len(data))

    def _choose_kernel(self, data: Data) -> None:
        """Modality weights at the middle γ, then γ."""
        grid = weightings(len(self.dims_))
        middle = self.gammas[len(self.gammas) // 2]
        losses = {(w, middle): self._sample_loss(data, w, middle) for w in grid}
        chosen = min(losses, key=lambda key: losses[key])[0]
        losses |= {(chosen, g): self._sample_loss(data, chosen, g) for g in self.gammas if g != middle}
        best, self.gamma_ = min(losses, key=lambda key: losses[key])
        self.weights_ = dict(zip(self.dims_, best, strict=True))

    def _sample_loss(self, data: Data, weights: Sequence[float], gamma: float) -> float:
        self.gamma_ = gamma
        x = self._unit(data, dict(zip(self.dims_, weights, strict=True)))
        return self._solve(x, x, data, self.lambdas).loss

    def _solve(self, x: Float32, landmarks: Float32, data: Data, lambdas: Sequence[float]) -> LooRidge:
        """Ridge on features K L⁻ᵀ with LLᵀ the landmarks' kernel, its weights turned into the landmarks' coefficients."""
        from dataclasses import replace

        from scipy.linalg import cholesky, solve_triangular

        own = self._kernel(landmarks.astype(np.float64), landmarks.astype(np.float64))
        for jitter in (1e-5, 1e-4, 1e-3):
            try:
                factor = cholesky(own + jitter * np.eye(len(own)), lower=True)
                break
            except np.linalg.LinAlgError:
                continue
        else:
            raise HeadError("The kernel of these inputs is not positive definite; leave the kernel head out.")
        features = solve_triangular(factor, self._kernel(x, landmarks).T.astype(np.float64), lower=True).T
        fit = LooRidge.fit(features, data.codes, len(self.classes_), lambdas)
        return replace(fit, weight=solve_triangular(factor, fit.weight, lower=True, trans="T"))

    def _kernel(self, a: Array, b: Array) -> Array:
        squared = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1) - 2 * (a @ b.T)
        return np.asarray(np.exp(-self.gamma_ * np.maximum(squared, 0)))

    def _unit(self, data: Data, weights: dict[str, float]) -> Float32:
        """Inputs of length sqrt(weight) side by side (n, Σd); zeros where absent."""
        blocks = self.standardizer_.blocks(data)
        return np.concatenate([unit_rows(x) * np.float32(weights[name] ** 0.5) for name, x in blocks.items()], axis=1)

    def left_out(self, data: Data) -> Float | None:
        return log_softmax(self._left_out)

    def _logits(self, data: Data) -> Array:
        landmarks = self.landmarks_.astype(np.float32)
        out = []
        for lo in range(0, len(data), BLOCK):
            block = data.take(np.arange(lo, min(lo + BLOCK, len(data))))
            kernel = self._kernel(self._unit(block, self.weights_), landmarks)
            out.append(kernel @ self.coefficients_ + self.bias_)
        return self.scale_ * np.concatenate(out)

    def _state(self) -> HeadState:
        config = {"gamma": self.gamma_, "lambda": self.lambda_, "scale": self.scale_, "weights": self.weights_}
        arrays: dict[str, Array] = {"landmarks": self.landmarks_, "coefficients": self.coefficients_, "bias": self.bias_}
        return HeadState(config, {**arrays, **self.standardizer_.tensors()})

    def _restore(self, state: HeadState) -> None:
        self.gamma_, self.lambda_ = state.config["gamma"], state.config["lambda"]
        self.scale_, self.weights_ = state.config["scale"], state.config["weights"]
        self.landmarks_, self.coefficients_ = state.tensors["landmarks"], state.tensors["coefficients"]
        self.bias_ = state.tensors["bias"]
        self.standardizer_ = Standardizer.from_tensors(state.tensors, list(self.dims_))
