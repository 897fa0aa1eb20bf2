"""A trial of heads that predict numbers: regression."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from embedstore.errors import HeadError
from embedstore.evaluation.bootstrap import Bootstrap, Score
from embedstore.evaluation.metrics import regression_scores
from embedstore.heads import Head, KnnRegressor, RidgeRegressor
from embedstore.store import View
from embedstore.training.trial import HEAD, Codes, Float, Judged, Labels, Scores, Trial

CLASSIFICATION, REGRESSION = "classification", "regression"
FEW_VALUES = 20


class JudgedNumbers(Judged):
    """`log_p` holds predicted numbers (t,), and `truth` the true ones."""

    def metrics(self, bootstrap: Bootstrap) -> Scores:
        return regression_scores(self.truth, self.log_p[HEAD], bootstrap=bootstrap)

    def baselines(self, bootstrap: Bootstrap) -> dict[str, Scores]:
        named = self.log_p.items()
        return {name: regression_scores(self.truth, p, bootstrap=bootstrap) for name, p in named if name != HEAD}

    def gain(self, baselines: Mapping[str, Scores], bootstrap: Bootstrap) -> tuple[str, Score]:
        """The baseline with the smallest absolute error, and how much smaller the head's is, paired."""
        best = min(baselines, key=lambda name: baselines[name]["mae"].value)
        error = {name: np.abs(self.log_p[name] - self.truth) for name in (HEAD, best)}
        return best, bootstrap.mean(error[best] - error[HEAD])

    def accuracy_without_copies(self, view: View, seed: int) -> Score | None:
        return None


class NumberTrial(Trial):
    """Fits a regressor on all inputs of a view, ridge on each alone, and a plain kNN; on the same items."""

    constant = "mean"
    judged = JudgedNumbers

    def _labels(self, view: View) -> Labels:
        values = number_target(view)
        if values.min() == values.max():
            raise HeadError(
                f"Target {view.target_name!r} is {values[0]} for all {len(values)} items; there is nothing to predict."
            )
        return Labels(values, np.empty(0), values)

    def _predict(self, head: Head, items: Codes, names: list[str]) -> Float:  # type: ignore[override]
        X, present = self._take(items, names)
        return np.asarray(head.predict(X, present=present), np.float64)

    def _constant(self, fitted_on: Codes, n: int) -> Float:
        return np.full(n, self.labels.codes[fitted_on].mean())

    def _plain_knn(self) -> Head:
        return KnnRegressor()

    def _plain_linear(self) -> Head:
        return RidgeRegressor()

    def _score(self, predicted: Float, items: Codes) -> float:
        truth = self.labels.codes[items]
        spread = np.square(truth - truth.mean()).sum()
        return 1 - float(np.square(truth - predicted).sum() / spread) if spread > 0 else float("nan")

    def _strata(self) -> Codes:
        return np.zeros(len(self.labels.codes), np.int64)


def number_target(view: View) -> Float:
    """Targets (n,) as numbers, or a `HeadError` that names the first that is none."""
    values = list(view.target) if view.target is not None else []
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise HeadError(f"Target {view.target_name!r} holds {value!r}; regression needs numbers.")
    numbers = np.array(values, np.float64)
    if len(bad := np.flatnonzero(~np.isfinite(numbers))):
        raise HeadError(
            f"Target {view.target_name!r} is {numbers[bad[0]]} for item {view.ids[bad[0]]!r}; expected a finite number."
        )
    return numbers


def task_of(view: View) -> str:
    """``"regression"`` for numbers with fractions or many values, else ``"classification"``."""
    values = list(view.target) if view.target is not None else []
    if not values or not all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values):
        return CLASSIFICATION
    fractions = any(isinstance(v, float) and v != int(v) for v in values if np.isfinite(v))
    many = len(set(values)) > max(FEW_VALUES, len(values) // 2)
    return REGRESSION if fractions or many else CLASSIFICATION
