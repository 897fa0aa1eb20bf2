"""What helping rare classes changed: the head beside the same head without it, paired by item."""

from __future__ import annotations

from typing import Any

from embedstore.evaluation.bootstrap import Bootstrap
from embedstore.evaluation.metrics import Score, paired_label_scores, paired_recalls
from embedstore.reports.data import METRIC_NAMES, Section
from embedstore.training.tasks.base import HEAD, UNBALANCED, Judged

METRICS = ("balanced_accuracy", "macro_f1", "accuracy")

Change = tuple[Score, Score, Score]
"""Without, with, and the change."""


def changes(judged: Judged, bootstrap: Bootstrap) -> tuple[dict[str, Change], dict[str, Change]]:
    """What changed of each metric, and of the recall of each class by its name."""
    before, after = (judged.outputs[name].argmax(axis=1) for name in (UNBALANCED, HEAD))
    classes = [str(label) for label in judged.labels.classes.tolist()]
    scores = paired_label_scores(judged.truth, before, after, len(classes), bootstrap=bootstrap)
    recalls = paired_recalls(judged.truth, before, after, len(classes), bootstrap=bootstrap)
    return {name: scores[name] for name in METRICS}, dict(zip(classes, recalls, strict=True))


def changes_to_dict(judged: Judged, bootstrap: Bootstrap) -> dict[str, Any]:
    """The same as JSON values."""
    found = zip(("metrics", "recall"), changes(judged, bootstrap), strict=True)
    kinds = ("without", "with", "change")
    return {
        what: {name: {k: s.to_dict() for k, s in zip(kinds, three, strict=True)} for name, three in by_name.items()}
        for what, by_name in found
    }


def balance_sections(judged: Judged, bootstrap: Bootstrap) -> dict[str, Any]:
    """What the report shows of it; nothing where rare classes were not helped."""
    if UNBALANCED not in judged.outputs:
        return {}
    scores, recalls = changes(judged, bootstrap)
    rows = [(METRIC_NAMES.get(name, name.replace("_", " ")), *three) for name, three in scores.items()]
    rows += [(f"recall of {name}", *three) for name, three in recalls.items()]
    note = (
        "The same kind of head on the same items, without balance and with it. A change whose interval holds 0 may be chance."
    )
    return {"sections": [Section("What balancing changed", note, ("score", "without", "with", "change, paired [95 %]"), rows)]}
