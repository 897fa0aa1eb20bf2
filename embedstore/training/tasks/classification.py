"""Classification: a target of classes, one an item. Outputs are log-probabilities (n, c), the truth is class codes (n,)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from embedstore._core.column_types import shown
from embedstore._core.column_values import MisfitError, fitted
from embedstore._core.splits import SPLITS
from embedstore.errors import HeadError
from embedstore.evaluation.bootstrap import Bootstrap
from embedstore.evaluation.metrics import classification_scores, label_scores, paired_label_scores
from embedstore.heads import Head, KnnHead, LinearHead
from embedstore.heads.balanced import BalancedHead
from embedstore.heads.base import Inputs, as_labels
from embedstore.heads.io import HeadRecord
from embedstore.heads.solvers.temperature import certain_scale
from embedstore.store import View
from embedstore.training.all_mistakes import joined, mistakes_by_confusion
from embedstore.training.balance_changes import balance_sections
from embedstore.training.closer_look import classifier_sections
from embedstore.training.label_notes import FEW, imbalance_note, label_notes
from embedstore.training.tasks.base import MAJORITY, UNBALANCED, Array, Float, Judged, Labels, Predicted, Scores, Task

IMPOSSIBLE = -30.0
"""The log-probability of a class that a head does not know."""


class Classification(Task):
    """One of several classes; gains over baselines are in accuracy."""

    name = "classification"
    heads = "classification"
    lead = "accuracy"
    headlines: ClassVar[Mapping[str, str]] = {"accuracy": "accuracy", "macro_f1": "macro F1"}
    compared = ("accuracy", "macro_f1", "balanced_accuracy")
    constant = MAJORITY
    titles: ClassVar[Mapping[str, str]] = {MAJORITY: "majority class", UNBALANCED: "the same without balance"}
    reports_without_copies = True

    def labels(self, view: View) -> Labels:
        values = class_labels(view)
        classes, codes = np.unique(values, return_inverse=True)
        return Labels(values, codes.astype(np.int64), classes)

    def evaluation_labels(self, record: HeadRecord, views: Sequence[View]) -> list[Labels]:
        """Their classes are those of the head and those that the items have beyond them."""
        return labels_as_learned(record.head.classes_, record.name, views)

    def strata(self, labels: Labels) -> Array:
        return labels.values

    def plain_knn(self) -> Head:
        return KnnHead(ks=(8,), temperatures=(0.1,), weights="equal")

    def plain_linear(self) -> Head:
        return LinearHead()

    def learnable(self, labels: Labels) -> bool:
        return len(set(labels.truth.tolist())) > 1

    def outputs(self, head: Head, X: Inputs, present: Any, labels: Labels) -> Float:
        """Log-probabilities (n, c) over all classes, those that the head did not see next to impossible."""
        log_p = head.outputs(X, present=present)
        code = {label: i for i, label in enumerate(labels.classes.tolist())}
        out = np.full((len(log_p), len(labels.classes)), IMPOSSIBLE)
        out[:, [code[label] for label in head.classes_.tolist()]] = log_p
        return out

    def constant_outputs(self, labels: Labels, n: int) -> Float:
        """The class frequencies."""
        counts = np.bincount(labels.truth, minlength=len(labels.classes))
        return np.tile(np.log(np.maximum(counts, 0.5) / counts.sum()), (n, 1))

    def predicted(self, head: Head, outputs: Float) -> Predicted:
        return Predicted(head.classes_[outputs.argmax(axis=1)], np.exp(outputs), head.classes_)

    def kept(self, outputs: Float, labels: Labels) -> Predicted:
        return Predicted(labels.classes[outputs.argmax(axis=1)], np.exp(outputs), labels.classes)

    def calibrated(self, outputs: Float, truth: Array, folds: Array, groups: Array | None) -> tuple[Float, float]:
        return certain_scale(outputs, truth, folds, groups)

    def scores(self, truth: Array, outputs: Float, bootstrap: Bootstrap) -> Scores:
        return classification_scores(truth, outputs, bootstrap=bootstrap)

    def baseline_scores(self, truth: Array, outputs: Float, bootstrap: Bootstrap) -> Scores:
        """Those of the predicted classes; a baseline's probabilities are not judged."""
        return label_scores(truth, outputs.argmax(axis=1), outputs.shape[1], bootstrap=bootstrap)

    def worth(self, truth: Array, outputs: Float) -> Float:
        """1 where the most probable class is the true one, else 0."""
        return np.asarray(outputs.argmax(axis=1) == truth, np.float64)

    def paired(self, truth: Array, before: Float, after: Float, bootstrap: Bootstrap) -> Scores:
        first, then = (outputs.argmax(axis=1) for outputs in (before, after))
        found = paired_label_scores(truth, first, then, after.shape[1], bootstrap=bootstrap)
        return {name: found[name][2] for name in self.compared}

    def main_score(self, truth: Array, outputs: Float) -> float:
        """Accuracy."""
        return float(self.worth(truth, outputs).mean())

    def notes(self, judged: Judged) -> list[str]:
        notes = class_notes(judged)
        if isinstance(judged.head, BalancedHead) or judged.head.kept_in_state:  # names of classes are not balanced
            return notes
        return [*notes, *imbalance_note(judged.labels.values[np.sort(judged.fitted_on)])]

    def evaluation_notes(self, judged: Judged) -> list[str]:
        classes = judged.labels.classes
        known = np.isin(classes, judged.head.classes_)
        if known.all():
            return []
        count = int((~known[judged.truth]).sum())
        strange = ", ".join(map(str, classes[~known][:5].tolist()))
        return [f"{count:,} items are of classes that the head does not know: {strange}"]

    def sections(self, view: View, judged: Judged, seed: int) -> dict[str, Any]:
        balance = balance_sections(judged, judged.bootstrap(view, seed))
        return joined(classifier_sections(view, judged, seed), mistakes_by_confusion(view, judged), balance)


def class_notes(judged: Judged) -> list[str]:
    """What people should know of the classes that a head was trained on."""
    fitted = np.zeros(len(judged.labels), bool)
    fitted[judged.fitted_on] = True
    val = fitted & (judged.split == "val")
    folds = len(set(judged.split.tolist()) - set(SPLITS))  # 0 for a split
    return label_notes(judged.labels.values, fitted & ~val, val, few=max(FEW, folds))


def class_labels(view: View) -> Array:
    """Labels (n,) fit for classification, or a `HeadError` that says why not."""
    values = list(view.target) if view.target is not None else []
    kinds = {type(value) for value in values}
    distinct = set(values) if all(issubclass(kind, (str, int, float, bool)) for kind in kinds) else None
    if distinct is None:
        raise HeadError(f"Target {view.target_name!r} holds {kinds.pop().__name__} values; expected text or whole numbers.")
    if len(distinct) < 2:
        raise HeadError(
            f"Target {view.target_name!r} is {values[0]!r} for all {len(values)} items; a classifier needs two classes."
        )
    if len(distinct) > max(2, len(values) // 2):
        raise HeadError(
            f"Target {view.target_name!r} has {len(distinct):,} distinct values over {len(values):,} items; "
            "classification needs several items a class. Choose a column of categories."
        )
    return np.array(values, dtype=object if str in kinds else None)


def labels_as_learned(learned: Array, head: str, views: Sequence[View]) -> list[Labels]:
    """The labels of views among the classes (c,) that the head called `head` learned, and those that they have beyond them."""
    targets = [_as_learned(learned, head, view) for view in views]
    classes = as_labels(sorted({*learned.tolist(), *(value for target in targets for value in target.tolist())}))
    code = {label: i for i, label in enumerate(classes.tolist())}
    return [Labels(target, np.array([code[v] for v in target.tolist()], np.int64), classes) for target in targets]


def _as_learned(learned: Array, head: str, view: View) -> Array:
    """The target of `view` in the type of the head's classes: 7 is 7, whether its store holds it as text or as a number."""
    import pyarrow as pa

    if view.target is None:
        raise HeadError(f"The view has no target for head {head!r}.")
    kind = pa.array(learned.tolist()).type
    try:
        return np.array(fitted(pa.array(view.target.tolist()), kind).to_pylist(), object)
    except MisfitError as error:
        raise HeadError(
            f"{view.store.path}: {view.target_name!r} of item {view.ids[error.position]!r} is {shown(error.value)}, no "
            f"{error.expected}, which the classes of head {head!r} are."
        ) from error
