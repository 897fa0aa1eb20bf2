"""Multilabel: any number of labels an item. The truth is indicators (n, c).

Outputs are (n, c, 2): log-odds, by which labels are ranked, and how far these lie above the label's threshold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from embedstore._core.column_types import shown
from embedstore._core.column_values import MisfitError, fitted
from embedstore._core.splits import SPLITS
from embedstore.errors import HeadError
from embedstore.evaluation.bootstrap import Bootstrap
from embedstore.evaluation.label_metrics import item_f1, label_set_scores, per_label, together
from embedstore.heads import Head, KnnLabeller, Labeller, LinearLabeller
from embedstore.heads.base import Inputs, as_labels
from embedstore.heads.io import HeadRecord
from embedstore.heads.label_sets import indicators, labels_of, log_odds_of, rarest
from embedstore.reports.data import Section
from embedstore.store import View
from embedstore.training.label_notes import FEW, label_notes
from embedstore.training.tasks.base import HEAD, Array, Float, Judged, Labels, Predicted, Scores, Task
from embedstore.training.tasks.label_columns import repeated_note, sets_of, split_texts

IMPOSSIBLE = -30.0
"""The log-odds of a label that a head does not know."""
PAIRS = 20
"""Pairs of labels that a report shows."""


class Multilabel(Task):
    """Any number of labels an item; gains over baselines are in the F1 of an item's labels."""

    name = "multilabel"
    heads = "multilabel"
    lead = "item_f1"
    headlines: ClassVar[Mapping[str, str]] = {"macro_ap": "mAP", "micro_f1": "micro F1", "macro_f1": "macro F1"}
    constant = "frequent"
    titles: ClassVar[Mapping[str, str]] = {"frequent": "most frequent labels"}

    def claims(self, view: View) -> bool:
        """Whether the target holds lists."""
        values = list(view.target) if view.target is not None else []
        return bool(values) and all(isinstance(value, list) for value in values)

    def labels(self, view: View) -> Labels:
        sets = sets_of(view)
        if all(set(labels) == set(sets[0]) for labels in sets):
            raise HeadError(f"Target {view.target_name!r} is {sets[0]!r} for all {len(sets)} items; there is nothing to learn.")
        kinds = {type(label).__name__ for labels in sets for label in labels}
        if len(kinds) > 1:
            raise HeadError(f"Target {view.target_name!r} holds labels of several kinds: {', '.join(sorted(kinds))}.")
        return _labels(sets, labels_of(sets))

    def evaluation_labels(self, record: HeadRecord, views: Sequence[View]) -> list[Labels]:
        """Their labels are those of the head and those that the items have beyond them, unless it left rare ones out."""
        found = [_as_learned(record, view) for view in views]
        if record.report.get("least_items", 1) > 1:
            known = {*record.head.classes_.tolist()}
            found = [[[label for label in labels if label in known] for labels in sets] for sets in found]
        every = {*record.head.classes_.tolist(), *(label for sets in found for labels in sets for label in labels)}
        classes = as_labels(sorted(every))
        return [_labels(sets, classes) for sets in found]

    def strata(self, labels: Labels) -> Array:
        return rarest(labels.truth)

    def plain_knn(self) -> Head:
        return KnnLabeller(ks=(8,), temperatures=(0.1,), weights="equal")

    def plain_linear(self) -> Head:
        return LinearLabeller()

    def learnable(self, labels: Labels) -> bool:
        return len(labels) > 1 and bool(labels.truth.any())

    def outputs(self, head: Head, X: Inputs, present: Any, labels: Labels) -> Float:
        """Log-odds and margins (n, c, 2) over all labels, those that the head does not know next to impossible."""
        assert isinstance(head, Labeller)  # `heads` says so
        log_odds = head.outputs(X, present=present)
        code = {label: k for k, label in enumerate(labels.classes.tolist())}
        out = np.full((len(log_odds), len(code), 2), IMPOSSIBLE)
        margins = log_odds - log_odds_of(head.thresholds_)
        out[:, [code[label] for label in head.classes_.tolist()]] = np.stack([log_odds, margins], axis=-1)
        return out

    def constant_outputs(self, labels: Labels, n: int) -> Float:
        """The labels' frequencies; given are as many of the most frequent ones as make the best F1."""
        shares = labels.truth.mean(axis=0)
        order = np.argsort(-shares, kind="stable")
        hits = labels.truth[:, order].cumsum(axis=1, dtype=np.int64)
        f1 = 2 * hits / (labels.truth.sum(axis=1, dtype=np.int64)[:, None] + np.arange(1, len(order) + 1))
        log_odds = log_odds_of(np.maximum(shares, 0.5 / max(len(labels), 1)))
        margins = np.full(len(order), IMPOSSIBLE)
        margins[order[: int(f1.mean(axis=0).argmax()) + 1]] = -IMPOSSIBLE
        return np.tile(np.stack([log_odds, margins], axis=-1), (n, 1, 1))

    def predicted(self, head: Head, outputs: Float) -> Predicted:
        assert isinstance(head, Labeller)
        return Predicted(head.decided(outputs), 1 / (1 + np.exp(-outputs)), head.classes_)

    def columns(self, found: Predicted) -> dict[str, Sequence[Any]]:
        """The labels as a list, and a probability for each label."""
        columns: dict[str, Sequence[Any]] = {"prediction": found.labels.tolist()}
        return columns | {f"p:{name}": found.probabilities[:, k].tolist() for k, name in enumerate(found.class_names())}

    def rows(self, found: Predicted) -> list[dict[str, Any]]:
        names = found.class_names()
        rounded = ({name: round(value, 6) for name, value in zip(names, p, strict=True)} for p in found.probabilities.tolist())
        return [{"prediction": labels, "probabilities": p} for labels, p in zip(found.labels.tolist(), rounded, strict=True)]

    def scores(self, truth: Array, outputs: Float, bootstrap: Bootstrap) -> Scores:
        return label_set_scores(truth > 0, outputs[..., 0], outputs[..., 1] >= 0, bootstrap=bootstrap)

    def worth(self, truth: Array, outputs: Float) -> Float:
        """The F1 of each item's labels."""
        return item_f1(truth > 0, outputs[..., 1] >= 0)

    def notes(self, judged: Judged) -> list[str]:
        items, which = np.nonzero(judged.labels.truth)
        fitted_on = np.isin(items, judged.fitted_on)
        val = fitted_on & (judged.split[items] == "val")
        folds = len(set(judged.split.tolist()) - set(SPLITS))  # 0 for a split
        words = ("label has", "labels have")
        notes = label_notes(judged.labels.classes[which], fitted_on & ~val, val, few=max(FEW, folds), words=words)
        notes += repeated_note(judged.labels.values)
        none = int((~judged.labels.truth.any(axis=1)).sum())
        return [*notes, *([f"{none:,} of {len(judged.labels):,} items have no label"] if none else [])]

    def evaluation_notes(self, judged: Judged) -> list[str]:
        classes = judged.labels.classes
        strange = ~np.isin(classes, judged.head.classes_) & judged.truth.any(axis=0)
        if not strange.any():
            return []
        count = int(judged.truth[:, strange].any(axis=1).sum())
        return [
            f"{count:,} items have labels that the head does not know: {', '.join(map(str, classes[strange][:5].tolist()))}"
        ]

    def sections(self, view: View, judged: Judged, seed: int) -> dict[str, Any]:
        return {"sections": [_by_label(judged, judged.bootstrap(view, seed)), *_co_occurrence(judged)]}


def _labels(sets: list[list[Any]], classes: Array) -> Labels:
    return Labels(np.fromiter(sets, object, len(sets)), indicators(sets, classes), classes)


def _as_learned(record: HeadRecord, view: View) -> list[list[Any]]:
    """The labels of `view` in the type of the head's: 7 is 7, whether its store holds it as text or as a number."""
    import pyarrow as pa

    if view.target is None:
        raise HeadError(f"The view has no target {record.target!r}.")
    if separator := record.report.get("separator"):
        view = replace(view, target=split_texts(view.target, separator))
    sets = sets_of(view)
    flat, ends = [label for labels in sets for label in labels], np.cumsum([len(labels) for labels in sets])
    kind = pa.array(record.head.classes_.tolist()).type
    try:
        learned = fitted(pa.array(flat, None if flat else kind), kind).to_pylist()
    except MisfitError as error:
        item = int(np.searchsorted(ends, error.position, side="right"))
        raise HeadError(
            f"{view.store.path}: {record.target!r} of item {view.ids[item]!r} holds {shown(error.value)}, no {error.expected}, "
            f"which the labels of head {record.name!r} are."
        ) from error
    return [learned[lo:hi] for lo, hi in pairwise([0, *ends.tolist()])]


def _by_label(judged: Judged, bootstrap: Bootstrap) -> Section:
    log_odds, margins = np.moveaxis(judged.outputs[HEAD], -1, 0)
    found = per_label(judged.truth > 0, log_odds, margins >= 0, bootstrap=bootstrap)
    assert isinstance(judged.head, Labeller)
    thresholds = dict(zip(judged.head.classes_.tolist(), judged.head.thresholds_.tolist(), strict=True))
    names = judged.labels.classes.tolist()
    rows = [
        (str(name), int(found.support[k]), found.average_precision[k], float(found.f1[k]), thresholds.get(name))
        for k, name in enumerate(names)
    ]
    rows.sort(key=lambda row: -row[1])
    note = (
        "Items are those judged that have the label. A label is given from its threshold on, a probability that was chosen on "
        "items that the head did not learn from, never on test items."
    )
    return Section("Labels", note, ("label", "items", "average precision [95 %]", "F1", "threshold"), rows)


def _co_occurrence(judged: Judged) -> list[Section]:
    """The labels that occur together most, and whether the head gives them together; nothing where none do."""
    names = [str(label) for label in judged.labels.classes.tolist()]
    true, given = judged.truth > 0, judged.outputs[HEAD][..., 1] >= 0
    rows = [
        (f"{names[i]} + {names[j]}", items, lift, int((true[:, i] & true[:, j]).sum()), int((given[:, i] & given[:, j]).sum()))
        for i, j, items, lift in together(judged.labels.truth > 0, PAIRS)
    ]
    note = (
        "Items that have both labels. The lift says how many times more there are than if the labels knew nothing of one "
        "another. The last two columns count judged items."
    )
    columns = ("labels", "items", "lift", "judged with both", "given both")
    return [Section("Labels that occur together", note, columns, rows)] if rows else []
