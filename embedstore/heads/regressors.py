"""Heads that predict numbers: ridge, kNN and boosted trees. The same contract as classifiers, without classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from embedstore._core.threads import bounded
from embedstore._core.unit import unit_rows
from embedstore.errors import HeadError
from embedstore.heads.base import VALIDATION_SHARE, Array, Data, Float, Head, HeadState, Inputs, Mask, check_inputs, class_folds
from embedstore.heads.boosted import Boosted
from embedstore.heads.knn import BLOCK, NEIGHBOURS, nearest
from embedstore.heads.params import Tunable
from embedstore.heads.ridge import LAMBDA, LAMBDAS
from embedstore.heads.solvers.design_matrix import Standardizer
from embedstore.heads.solvers.loo import decompose


class Regressor(Head):
    """Base class of heads that predict a number; subclasses say how in `_fit` and `values`.

    `Data.codes` holds the targets, float64.
    """

    task = "regression"

    @bounded()
    def fit(
        self,
        X: Inputs,
        y: Array,
        *,
        present: Mapping[str, Mask] | None = None,
        validation: tuple[Inputs, Array, Mapping[str, Mask] | None] | None = None,
    ) -> Self:
        """Fit to inputs and numbers (n,).

        Raises
        ------
        HeadError
            Fewer than two items, shapes that do not fit, or values that are not finite.
        """
        train = self._checked(X, y, present)
        if len(train) < 2:
            raise HeadError(f"A regressor needs at least two items. Got {len(train)}.")
        self.dims_ = {name: x.shape[1] for name, x in train.inputs.items()}
        if validation is not None:
            held_out = self._checked(*validation)
            check_inputs(held_out.inputs, held_out.present, self.dims_)
        elif len(train) < 10:
            held_out = train
        else:
            aside = class_folds(np.zeros(len(train), np.int64), round(1 / VALIDATION_SHARE)) == 0  # at random
            train, held_out = train.take(~aside), train.take(aside)
        self._fit(train, held_out)
        return self

    def _checked(self, X: Inputs, y: Array, present: Mapping[str, Mask] | None) -> Data:
        inputs, masks = self._accept(X, present)
        check_inputs(inputs, masks, {name: x.shape[-1] for name, x in inputs.items()})
        targets = np.asarray(y, np.float64)
        n = len(next(iter(inputs.values())))
        if targets.shape != (n,):
            raise HeadError(f"y should have {n} numbers, one an item. Got shape {targets.shape} instead.")
        if len(bad := np.flatnonzero(~np.isfinite(targets))):
            raise HeadError(f"y holds NaN or infinity in item {bad[0]}.")
        return Data(inputs, masks, targets)

    def values(self, data: Data) -> Float:
        """Predicted numbers (n,) of checked data."""
        raise NotImplementedError

    def predict(self, X: Inputs, *, present: Mapping[str, Mask] | None = None) -> Array:
        """Predicted numbers (n,)."""
        if not hasattr(self, "dims_"):
            raise HeadError(f"This {type(self).__name__} is not fitted yet; call fit first.")
        inputs, masks = self._accept(X, present)
        check_inputs(inputs, masks, self.dims_)
        n = len(next(iter(inputs.values())))
        return self.values(Data({k: inputs[k] for k in self.dims_}, masks, np.zeros(n))) if n else np.empty(0)

    @property
    def output_shape(self) -> tuple[int, ...]:
        return ()

    def outputs(self, X: Inputs, *, present: Mapping[str, Mask] | None = None) -> Float:
        return np.asarray(self.predict(X, present=present), np.float64)

    def predict_log_proba(self, X: Inputs, *, present: Mapping[str, Mask] | None = None) -> Float:
        """Regressors have no probabilities: `HeadError`."""
        raise HeadError(f"{type(self).__name__} predicts numbers, not probabilities; use predict.")

    def score(self, X: Inputs, y: Array, *, present: Mapping[str, Mask] | None = None) -> float:
        """R²."""
        y = np.asarray(y, np.float64)
        return 1 - float(np.square(y - self.predict(X, present=present)).sum() / np.square(y - y.mean()).sum())

    def state(self) -> HeadState:
        own = self._state()
        return HeadState({**own.config, "dims": self.dims_}, own.tensors, own.files)

    @classmethod
    def from_state(cls, params: Mapping[str, Any], state: HeadState) -> Self:
        head = cls(**params)
        head.dims_ = dict(state.config["dims"])
        head._restore(state)
        return head

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import InputTags, RegressorTags, Tags, TargetTags

        return Tags(
            estimator_type="regressor",
            target_tags=TargetTags(required=True),
            regressor_tags=RegressorTags(),
            input_tags=InputTags(),
        )


class RidgeRegressor(Regressor):
    """Ridge regression on standardised inputs, its penalty chosen by leave-one-out in closed form.

    Parameters
    ----------
    lambdas : sequence of float
        Penalties relative to n.

    Attributes
    ----------
    lambda_ : float
    weight_ : (Σd + m,) float32
    bias_ : float
    """

    kind = "ridge_regression"
    tunable: ClassVar[Tunable] = LAMBDA

    lambda_: float
    weight_: npt.NDArray[np.float32]
    bias_: float
    standardizer_: Standardizer

    def __init__(self, lambdas: Sequence[float] = LAMBDAS) -> None:
        self.lambdas = lambdas

    def _fit(self, train: Data, validation: Data) -> None:
        data = train if validation is train else train + validation
        self.standardizer_ = Standardizer().fit(data)
        x, y = self.standardizer_.transform(data).astype(np.float64), data.codes
        x_mean, y_mean, n = x.mean(axis=0), float(y.mean()), len(x)
        u, s, vt = decompose(x - x_mean)
        uy = u.T @ (y - y_mean)
        losses = {}
        for penalty in self.lambdas:
            shrink = s**2 / (s**2 + penalty * n)
            leverage = np.minimum(np.square(u) @ shrink + 1 / n, 1 - 1e-9)
            losses[float(penalty)] = float(np.square((y - y_mean - u @ (shrink * uy)) / (1 - leverage)).mean())
        self.lambda_ = min(losses, key=lambda penalty: losses[penalty])
        weight = vt.T @ (s / (s**2 + self.lambda_ * n) * uy)
        self.weight_, self.bias_ = weight.astype(np.float32), y_mean - float(x_mean @ weight)

    def values(self, data: Data) -> Float:
        return np.asarray(self.standardizer_.transform(data) @ self.weight_ + self.bias_, np.float64)

    def _state(self) -> HeadState:
        config = {"lambda": self.lambda_, "bias": self.bias_}
        return HeadState(config, {"weight": self.weight_, **self.standardizer_.tensors()})

    def _restore(self, state: HeadState) -> None:
        self.lambda_, self.bias_ = state.config["lambda"], state.config["bias"]
        self.weight_ = state.tensors["weight"]
        self.standardizer_ = Standardizer.from_tensors(state.tensors, list(self.dims_))


class KnnRegressor(Regressor):
    """The mean target of the k nearest training items by mean cosine over standardised inputs.

    Parameters
    ----------
    k : int
    """

    kind = "knn_regression"
    tunable: ClassVar[Tunable] = {"k": replace(NEIGHBOURS, listed=False)}

    vectors_: npt.NDArray[np.float16]
    targets_: Float
    standardizer_: Standardizer

    def __init__(self, k: int = 8) -> None:
        self.k = k

    def _fit(self, train: Data, validation: Data) -> None:
        data = train if validation is train else train + validation
        self.standardizer_ = Standardizer(balance=False).fit(data)
        self.vectors_, self.targets_ = self._unit(data).astype(np.float16), data.codes.astype(np.float64)

    def _unit(self, data: Data) -> npt.NDArray[np.float32]:
        blocks = self.standardizer_.blocks(data).values()
        return np.concatenate([unit_rows(x) for x in blocks], axis=1)

    def values(self, data: Data) -> Float:
        out = []
        for lo in range(0, len(data), BLOCK):
            block = data.take(np.arange(lo, min(lo + BLOCK, len(data))))
            near, _ = nearest([self.vectors_], self._unit(block), self.k)
            anything = np.any(list(block.present.values()), axis=0)
            out.append(np.where(anything, self.targets_[near].mean(axis=1), self.targets_.mean()))
        return np.concatenate(out)

    def _state(self) -> HeadState:
        arrays: dict[str, Array] = {"vectors": self.vectors_, "targets": self.targets_}
        return HeadState({}, {**arrays, **self.standardizer_.tensors()})

    def _restore(self, state: HeadState) -> None:
        self.vectors_, self.targets_ = state.tensors["vectors"], state.tensors["targets"]
        self.standardizer_ = Standardizer.from_tensors(state.tensors, list(self.dims_))


class GbdtRegressor(Regressor, Boosted):
    """Gradient-boosted trees on squared error.

    The parameters are those of `GbdtHead`.
    """

    kind = "gbdt_regression"

    def _fit(self, train: Data, validation: Data) -> None:
        self._boost(train, validation, {"objective": "reg:squarederror"}, "rmse", self.rounds)

    def values(self, data: Data) -> Float:
        return np.asarray(self._predicted(data), np.float64)
