"""The linear head: logistic regression on the standardised concatenation of its inputs.

Fitting needs torch; a fitted head predicts with numpy alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import Self

from embedstore.errors import HeadError
from embedstore.heads._features import Standardizer, as_inputs
from embedstore.heads._logistic import LogisticProblem

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
Inputs = Mapping[str, Array] | Array

ALPHAS = tuple(float(a) for a in np.logspace(0.5, -4, 10))
"""Penalties tried on validation, relative to the mean loss; C = 1/(alpha·n) in scikit-learn's terms."""


class LinearHead:
    """Multinomial logistic regression over one or more inputs, with masks for missing ones.

    Parameters
    ----------
    alpha : float, optional
        Penalty: mean cross-entropy + alpha/2 · ‖W‖² over standardised features. Without it `fit` chooses the one of
        `alphas` with the lowest validation loss and needs `validation`.
    alphas : sequence of float
    tolerance : float
        Of the solver's gradient.
    device : str
        Where to fit: a torch device.

    Attributes
    ----------
    classes_ : (c,) labels
    alpha_ : float
    weight_ : (Σd + m, c) float32
        On the standardised inputs, then one indicator of absence an input.
    bias_ : (c,) float32
    objective_ : float
    standardizer_ : Standardizer
    """

    kind = "linear"

    classes_: Array
    alpha_: float
    weight_: npt.NDArray[np.float32]
    bias_: npt.NDArray[np.float32]
    objective_: float
    standardizer_: Standardizer

    def __init__(
        self,
        *,
        alpha: float | None = None,
        alphas: Sequence[float] = ALPHAS,
        tolerance: float = 1e-6,
        device: str = "cpu",
    ) -> None:
        self.alpha = alpha
        self.alphas = alphas
        self.tolerance = tolerance
        self.device = device

    def fit(
        self,
        X: Inputs,
        y: Array,
        *,
        present: Mapping[str, Mask] | None = None,
        validation: tuple[Inputs, Array, Mapping[str, Mask] | None] | None = None,
    ) -> Self:
        """Fit to inputs (n, d) and labels (n,).

        Parameters
        ----------
        X : mapping of input name to (n, d), or one (n, d)
        y : (n,) labels
        present : mapping of input name to (n,) bool, optional
            Which items have the input.
        validation : (X, y, present), optional
            Decides alpha, and is then fitted on too.

        Raises
        ------
        HeadError
            Fewer than two classes, shapes that do not fit, values that are not finite, or no way to choose alpha.
        """
        inputs, masks = as_inputs(X, present)
        y = np.asarray(y, dtype=object) if np.asarray(y).dtype.kind in "OUS" else np.asarray(y)
        n = len(next(iter(inputs.values())))
        if len(y) != n:
            raise HeadError(f"y should have {n} labels, one an item. Got {len(y)} instead.")
        alpha = self.alpha
        if validation is not None:
            v_inputs, v_masks = as_inputs(validation[0], validation[2])
            if alpha is None:
                alpha = self._choose_alpha(inputs, y, masks, v_inputs, np.asarray(validation[1]), v_masks)
            inputs = {name: np.concatenate([inputs[name], v_inputs[name]]) for name in inputs}
            masks = {name: np.concatenate([masks[name], v_masks[name]]) for name in masks}
            y = np.concatenate([y, np.asarray(validation[1], dtype=y.dtype)])
        if alpha is None:
            raise HeadError("alpha is None: give fit a validation set to choose it on, or set LinearHead(alpha=…).")
        problem, self.standardizer_, self.classes_ = self._problem(inputs, y, masks)
        solution = problem.solve(alpha, tolerance=self.tolerance)
        self.alpha_, self.objective_ = float(alpha), solution.objective
        self.weight_, self.bias_ = solution.weight, solution.bias
        return self

    def decision_function(self, X: Inputs, *, present: Mapping[str, Mask] | None = None) -> npt.NDArray[np.float32]:
        """Logits (n, c)."""
        features = self.standardizer_.transform(*as_inputs(X, present))
        return np.asarray(features @ self.weight_ + self.bias_)

    def predict_proba(self, X: Inputs, *, present: Mapping[str, Mask] | None = None) -> npt.NDArray[np.float64]:
        """Probabilities (n, c), in the order of `classes_`."""
        return softmax(self.decision_function(X, present=present))

    def predict(self, X: Inputs, *, present: Mapping[str, Mask] | None = None) -> Array:
        """Labels (n,)."""
        return np.asarray(self.classes_[self.decision_function(X, present=present).argmax(axis=1)])

    def _problem(
        self, inputs: Mapping[str, Array], y: Array, masks: Mapping[str, Mask]
    ) -> tuple[LogisticProblem, Standardizer, Array]:
        classes, codes = np.unique(y, return_inverse=True)
        if len(classes) < 2:
            raise HeadError(f"A classifier needs items of at least two classes; all {len(y)} are {classes.tolist()}.")
        standardizer = Standardizer().fit(inputs, masks)
        features = standardizer.transform(inputs, masks)
        return (
            LogisticProblem(features, codes.astype(np.int64), len(classes), device=self.device),
            standardizer,
            classes,
        )

    def _choose_alpha(
        self,
        inputs: Mapping[str, Array],
        y: Array,
        masks: Mapping[str, Mask],
        v_inputs: Mapping[str, Array],
        v_y: Array,
        v_masks: Mapping[str, Mask],
    ) -> float:
        """The alpha with the lowest validation loss; items of classes that training lacks are left out of it."""
        problem, standardizer, classes = self._problem(inputs, y, masks)
        code_of = {label: i for i, label in enumerate(classes.tolist())}
        codes = np.array([code_of.get(label, -1) for label in v_y.tolist()], dtype=np.int64)
        known = np.flatnonzero(codes >= 0)
        if not len(known):
            raise HeadError("No validation item has a class that occurs in training; use more data or set alpha.")
        features = standardizer.transform(v_inputs, v_masks)[known]
        best, best_loss, risen = float(max(self.alphas)), np.inf, 0
        for solution in problem.walk(self.alphas, tolerance=1e-4):
            probabilities = softmax(features @ solution.weight + solution.bias)
            loss = -np.log(np.maximum(probabilities[np.arange(len(known)), codes[known]], 1e-12)).mean()
            if loss < best_loss:
                best, best_loss, risen = solution.alpha, loss, 0
            elif (risen := risen + 1) == 2:
                break  # weaker penalties only overfit more
        return best


def softmax(logits: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Row-wise softmax (n, c) in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    exp = np.exp(shifted)
    return np.asarray(exp / exp.sum(axis=1, keepdims=True))
