"""The boosted head: XGBoost on the principal components of each modality."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from embedstore._core.threads import idle
from embedstore.heads.base import Array, Data, Head, HeadState
from embedstore.heads.params import Choice, Real, Tunable, Whole
from embedstore.heads.solvers.design_matrix import Standardizer
from embedstore.heads.trees import load_booster, saved_booster
from embedstore.registry import require

Float32 = npt.NDArray[np.float32]

MOST_TREES, LEAST_ROUNDS = 20_000, 20
"""A tree is grown a round and class: with many classes, fewer rounds."""


class Boosted(Head):
    """What boosted heads share, whatever they predict."""

    stochastic = True
    tunable: ClassVar[Tunable] = {
        "components": Choice((32, 64, 128)),
        "max_depth": Whole(2, 8),
        "learning_rate": Real(0.03, 0.4, log=True),
        "subsample": Real(0.5, 1.0),
        "colsample": Real(0.1, 1.0),
    }

    history_: list[dict[str, float]]
    standardizer_: Standardizer
    components_: dict[str, Float32]
    _booster: Any

    def __init__(
        self,
        components: int | None = 64,
        rounds: int = 300,
        patience: int = 15,
        max_depth: int = 4,
        learning_rate: float = 0.15,
        subsample: float = 0.8,
        colsample: float = 0.3,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        self.components = components
        self.rounds = rounds
        self.patience = patience
        self.max_depth = max_depth
        self.learning_rate = learning_rate
        self.subsample = subsample
        self.colsample = colsample
        self.seed = seed
        self.device = device

    def _boost(self, train: Data, validation: Data, objective: dict[str, Any], loss: str, rounds: int) -> None:
        """Grow trees until the validation loss has not fallen for `patience` rounds, and keep the best number."""
        xgboost = require("xgboost")
        self.standardizer_ = Standardizer(balance=False).fit(train)
        self.components_ = {}
        for name, x in self.standardizer_.blocks(train).items():
            if self.components is not None and self.components < x.shape[1]:
                self.components_[name] = _principal(x[train.present[name]], self.components)
        threads = idle()
        matrix = xgboost.QuantileDMatrix(self._features(train), train.codes, weight=train.weights, nthread=threads)
        checked = xgboost.QuantileDMatrix(
            self._features(validation), validation.codes, weight=validation.weights, ref=matrix, nthread=threads
        )
        params = {
            **objective,
            "tree_method": "hist",
            "device": self.device,
            "max_depth": self.max_depth,
            "eta": self.learning_rate,
            "subsample": self.subsample,
            "colsample_bytree": self.colsample,
            "seed": self.seed,
            "nthread": threads,
        }
        found: dict[str, dict[str, list[float]]] = {}
        self._booster = xgboost.train(
            params,
            matrix,
            rounds,
            evals=[(matrix, "train"), (checked, "validation")],
            evals_result=found,
            early_stopping_rounds=self.patience,
            verbose_eval=False,
        )
        curves = zip(found["train"][loss], found["validation"][loss], strict=True)
        self.history_ = [{"train_loss": a, "val_loss": b} for a, b in curves]
        best = int(self._booster.attr("best_iteration") or self._booster.num_boosted_rounds() - 1)
        self._booster = self._booster[: best + 1]

    def _predicted(self, data: Data, *, output_margin: bool = False) -> Array:
        threads = idle()
        self._booster.set_param({"nthread": threads})
        matrix = require("xgboost").DMatrix(self._features(data), nthread=threads)
        return np.asarray(self._booster.predict(matrix, output_margin=output_margin))

    def _features(self, data: Data) -> Float32:
        """(n, Σ components), NaN where a modality is absent."""
        out = []
        for name, x in self.standardizer_.blocks(data).items():
            z = x @ self.components_[name] if name in self.components_ else x.copy()
            z[~data.present[name]] = np.nan
            out.append(z)
        return np.concatenate(out, axis=1)

    def _state(self) -> HeadState:
        bases = {f"components.{name}": x for name, x in self.components_.items()}
        model = saved_booster(self._booster)
        return HeadState({"history": self.history_}, {**bases, **self.standardizer_.tensors()}, {"model.ubj": model})

    def _restore(self, state: HeadState) -> None:
        self.history_ = state.config["history"]
        self.standardizer_ = Standardizer.from_tensors(state.tensors, list(self.dims_))
        prefix = "components."
        self.components_ = {k.removeprefix(prefix): v for k, v in state.tensors.items() if k.startswith(prefix)}
        widths = [self.components_[name].shape[1] if name in self.components_ else dim for name, dim in self.dims_.items()]
        self._booster = load_booster(state.files["model.ubj"], sum(widths))


class GbdtHead(Boosted):
    """Gradient-boosted trees with early stopping on validation; absent modalities are missing values.

    XGBoost grows rounds × classes trees, so each modality is first reduced to its principal components.

    Parameters
    ----------
    components : int, optional
        Principal components of a modality; None for all features.
    rounds : int
        At most; early stopping after `patience` without a better validation loss.
    max_depth : int
    learning_rate : float
    subsample, colsample : float
    seed : int
    device : str

    Attributes
    ----------
    history_ : list of dict
        ``train_loss`` and ``val_loss`` of every round.
    """

    kind = "gbdt"
    takes_weights = True

    def _fit(self, train: Data, validation: Data) -> None:
        known = np.isin(validation.codes, train.codes)
        held_out = validation.take(known) if known.any() else train
        classes = len(self.classes_)
        rounds = min(self.rounds, max(LEAST_ROUNDS, MOST_TREES // classes))
        self._boost(train, held_out, {"objective": "multi:softprob", "num_class": classes}, "mlogloss", rounds)

    def _logits(self, data: Data) -> Array:
        return self._predicted(data, output_margin=True)


def _principal(x: Float32, k: int) -> Float32:
    """The k leading principal directions (d, k) of x (n, d), centred already."""
    _, vectors = np.linalg.eigh((x.T @ x).astype(np.float64))
    return np.ascontiguousarray(vectors[:, ::-1][:, :k], dtype=np.float32)
