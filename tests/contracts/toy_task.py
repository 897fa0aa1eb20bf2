"""A task from outside. Heads for numbers learn it."""

from __future__ import annotations

import numpy as np

from embedstore.errors import HeadError
from embedstore.heads import KnnRegressor, RidgeRegressor
from embedstore.reports.data import Section
from embedstore.training.tasks.base import HEAD, Labels, Predicted, Task


class Levels(Task):
    """Whole numbers that have an order, such as one to five stars."""

    name, heads, lead, constant = "levels", "regression", "exact", "median"
    headlines = {"exact": "exact", "mae": "MAE"}  # noqa: RUF012

    def labels(self, view):
        if not all(isinstance(value, int) for value in view.target):
            raise HeadError(f"Target {view.target_name!r} should hold whole numbers.")
        levels = view.target.astype(np.float64)
        return Labels(levels, levels, np.unique(levels))

    def evaluation_labels(self, record, views):
        return [self.labels(view) for view in views]

    def plain_knn(self):
        return KnnRegressor()

    def plain_linear(self):
        return RidgeRegressor()

    def constant_outputs(self, labels, n):
        return np.full(n, np.median(labels.truth))

    def scores(self, truth, outputs, bootstrap):
        return {"exact": bootstrap.mean(self.worth(truth, outputs)), "mae": bootstrap.mean(np.abs(np.rint(outputs) - truth))}

    def worth(self, truth, outputs):
        return np.asarray(np.rint(outputs) == truth, np.float64)

    def predicted(self, head, outputs):
        return Predicted(np.rint(outputs).astype(int), np.empty((len(outputs), 0)), np.empty(0))

    def sections(self, view, judged, seed):
        hits, levels = self.worth(judged.truth, judged.outputs[HEAD]), judged.labels.classes.tolist()
        rows = [(f"level {level:.0f}", float(hits[judged.truth == level].mean())) for level in levels]
        return {"sections": [Section("Levels hit", "How often each level was hit.", ("level", "exact"), rows)]}
