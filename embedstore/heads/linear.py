"""The linear head: logistic regression on the standardised concatenation of its inputs. On a CPU numpy is all it needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from embedstore.errors import HeadError
from embedstore.heads.base import Array, Data, Head, HeadState, log_softmax, nll
from embedstore.heads.params import Real, Tunable
from embedstore.heads.solvers.design_matrix import Standardizer
from embedstore.heads.solvers.logistic import LogisticProblem, Solution

ALPHAS = tuple(float(a) for a in np.logspace(0, -4, 9))
"""Penalties tried on validation, relative to the mean loss; C = 1/(alpha·n) in scikit-learn's terms."""
PENALTY = Real(1e-4, 1.0, log=True, levels=13)
"""Those that tuning tries."""


class LinearHead(Head):
    """Multinomial logistic regression over one or more inputs, with masks for missing ones.

    Parameters
    ----------
    alpha : float, optional
        Penalty: mean cross-entropy + alpha/2 · ‖W‖² over standardised features. Without it the one of `alphas` with the
        lowest validation loss is chosen. The head is then fitted on training and validation items together.
    alphas : sequence of float
    tolerance : float
        How far from the least objective the solver may stop, relative.
    device : str
        Where to fit: ``"cpu"`` (numpy) or a torch device.

    Attributes
    ----------
    alpha_ : float
    weight_ : (Σd + m, c) float32
        On the standardised inputs, then one indicator of absence an input.
    bias_ : (c,) float32
    objective_ : float
    standardizer_ : Standardizer
    """

    kind = "linear"
    takes_weights = True
    tunable: ClassVar[Tunable] = {"alpha": PENALTY}

    alpha_: float
    weight_: npt.NDArray[np.float32]
    bias_: npt.NDArray[np.float32]
    objective_: float
    standardizer_: Standardizer

    def __init__(
        self,
        alpha: float | None = None,
        alphas: Sequence[float] = ALPHAS,
        tolerance: float = 5e-6,
        device: str = "cpu",
    ) -> None:
        self.alpha = alpha
        self.alphas = alphas
        self.tolerance = tolerance
        self.device = device

    def _fit(self, train: Data, validation: Data) -> None:
        if self.alpha is not None and not self.alpha > 0:
            raise HeadError(f"alpha should be above 0. Got {self.alpha} instead.")
        problem, start = self._choose_alpha(train, validation) if self.alpha is None else (None, None)
        alpha = start.alpha if start else float(self.alpha or 0)
        every = train if validation is train else train + validation
        self.standardizer_ = Standardizer().fit(every)
        solution = self._problem(every, self.standardizer_, problem).solve(alpha, tolerance=self.tolerance, start=start)
        self.alpha_, self.objective_ = alpha, solution.objective
        self.weight_, self.bias_ = solution.weight, solution.bias

    def _logits(self, data: Data) -> Array:
        return np.asarray(self.standardizer_.transform(data) @ self.weight_ + self.bias_)

    def _problem(self, data: Data, standardizer: Standardizer, like: LogisticProblem | None = None) -> LogisticProblem:
        features = standardizer.transform(data)
        return LogisticProblem(features, data.codes, len(self.classes_), weights=data.weights, device=self.device, like=like)

    def _choose_alpha(self, train: Data, validation: Data) -> tuple[LogisticProblem, Solution]:
        """The training solution with the lowest validation loss; items of classes that training lacks are left out."""
        known = np.isin(validation.codes, train.codes)
        if not known.any():
            raise HeadError("No validation item has a class that occurs in training; use more data or set alpha.")
        validation = validation.take(known)
        standardizer = Standardizer().fit(train)
        features = standardizer.transform(validation)
        problem = self._problem(train, standardizer)
        best, best_loss = None, np.inf
        for solution in problem.walk(self.alphas, tolerance=1e-2):
            loss = nll(log_softmax(features @ solution.weight + solution.bias), validation.codes, validation.weights)
            if best is not None and loss >= best_loss:
                break  # weaker penalties only overfit more
            best, best_loss = solution, loss
        if best is None:
            raise HeadError("alphas is empty; name at least one penalty.")
        return problem, best

    def _state(self) -> HeadState:
        tensors = {"weight": self.weight_, "bias": self.bias_, **self.standardizer_.tensors()}
        return HeadState({"alpha": self.alpha_, "objective": self.objective_}, tensors)

    def _restore(self, state: HeadState) -> None:
        self.alpha_, self.objective_ = state.config["alpha"], state.config["objective"]
        self.weight_, self.bias_ = state.tensors["weight"], state.tensors["bias"]
        self.standardizer_ = Standardizer.from_tensors(state.tensors, list(self.dims_))
