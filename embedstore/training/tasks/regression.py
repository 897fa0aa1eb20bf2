"""Regression: a target of numbers. Outputs are numbers (n,), and so is the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from embedstore.errors import HeadError
from embedstore.evaluation.bootstrap import Bootstrap
from embedstore.evaluation.metrics import paired_regression_scores, regression_scores
from embedstore.heads import Head, KnnRegressor, RidgeRegressor
from embedstore.heads.io import HeadRecord
from embedstore.store import View
from embedstore.training.label_notes import number_notes
from embedstore.training.tasks.base import HEAD, Array, Float, Judged, Labels, Scores, Task

FEW_VALUES = 20


class Regression(Task):
    """A number; gains over baselines are in mean absolute error."""

    name = "regression"
    heads = "regression"
    lead = "mae"
    headlines: ClassVar[Mapping[str, str]] = {"r2": "R²", "mae": "MAE", "rmse": "RMSE"}
    constant = "mean"

    def claims(self, view: View) -> bool:
        """Whether the target has numbers with fractions, or many different numbers."""
        values = list(view.target) if view.target is not None else []
        if not values or not all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values):
            return False
        fractions = any(isinstance(v, float) and v != int(v) for v in values if np.isfinite(v))
        return fractions or len(set(values)) > max(FEW_VALUES, len(values) // 2)

    def labels(self, view: View) -> Labels:
        found = number_labels(view)
        if found.values.min() == found.values.max():
            raise HeadError(
                f"Target {view.target_name!r} is {found.values[0]} for all {len(found)} items; there is nothing to predict."
            )
        return found

    def evaluation_labels(self, record: HeadRecord, views: Sequence[View]) -> list[Labels]:
        return [number_labels(view) for view in views]

    def plain_knn(self) -> Head:
        return KnnRegressor()

    def plain_linear(self) -> Head:
        return RidgeRegressor()

    def constant_outputs(self, labels: Labels, n: int) -> Float:
        """The mean."""
        return np.full(n, labels.truth.mean())

    def scores(self, truth: Array, outputs: Float, bootstrap: Bootstrap) -> Scores:
        return regression_scores(truth, outputs, bootstrap=bootstrap)

    def worth(self, truth: Array, outputs: Float) -> Float:
        """The absolute error, negative."""
        return np.asarray(-np.abs(outputs - truth))

    def paired(self, truth: Array, before: Float, after: Float, bootstrap: Bootstrap) -> Scores:
        found = paired_regression_scores(truth, before, after, bootstrap=bootstrap)
        return {name: change for name, (_, _, change) in found.items()}

    def main_score(self, truth: Array, outputs: Float) -> float:
        """R²."""
        spread = np.square(truth - truth.mean()).sum()
        return 1 - float(np.square(truth - outputs).sum() / spread) if spread > 0 else float("nan")

    def notes(self, judged: Judged) -> list[str]:
        return number_notes(judged.labels.values)

    def sections(self, view: View, judged: Judged, seed: int) -> dict[str, Any]:
        return {"regression": (judged.truth, judged.outputs[HEAD])}


def number_labels(view: View) -> Labels:
    """The target (n,) as numbers, or a `HeadError` that names the first that is none."""
    values = list(view.target) if view.target is not None else []
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise HeadError(f"Target {view.target_name!r} holds {value!r}; regression needs numbers.")
    numbers = np.array(values, np.float64)
    if len(bad := np.flatnonzero(~np.isfinite(numbers))):
        raise HeadError(
            f"Target {view.target_name!r} is {numbers[bad[0]]} for item {view.ids[bad[0]]!r}; expected a finite number."
        )
    return Labels(numbers, numbers, np.empty(0))
