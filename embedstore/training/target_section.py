"""What a report shows of one of several targets: its scores beside those of the head that it would have alone."""

from __future__ import annotations

from typing import Any

from embedstore.evaluation.bootstrap import Bootstrap
from embedstore.evaluation.metrics import paired_recalls
from embedstore.evaluation.target_scores import TargetScores
from embedstore.reports.data import METRIC_NAMES, Section
from embedstore.training.tasks.base import ALONE, HEAD, KNN, Judged

CHANGE = " The change is what a shared trunk gains or costs, paired by item; where its interval holds 0, it may be chance."


def target_section(name: str, judged: Judged, scores: TargetScores, bootstrap: Bootstrap) -> Section:
    """The table of a target; `judged` and the resamples are of it alone."""
    task = judged.task
    titles = {ALONE: "the target alone", task.constant: task.title(task.constant), KNN: task.title(KNN)}
    shown = [other for other in titles if other in scores.baselines]
    rows = [_row(metric, scores, shown) for metric in scores.metrics] + _recalls(judged, shown, bootstrap)
    columns = ["score", "this head [95 %]", *(f"{titles[other]} [95 %]" for other in shown)]
    columns += ["change over alone, paired [95 %]"] if scores.change else []
    note = f"{scores.items:,} judged items have a value.{CHANGE if scores.change else ''}"
    return Section(f"Target: {name}", note, columns, rows)


def _row(metric: str, scores: TargetScores, shown: list[str]) -> tuple[Any, ...]:
    words = METRIC_NAMES.get(metric, metric.replace("_", " "))
    change = (scores.change.get(metric),) if scores.change else ()
    return words, scores.metrics[metric], *(scores.baselines[other].get(metric) for other in shown), *change


def _recalls(judged: Judged, shown: list[str], bootstrap: Bootstrap) -> list[tuple[Any, ...]]:
    """The recall of each class; nothing of a target of numbers."""
    classes = [str(label) for label in judged.labels.classes.tolist()]
    if not classes:
        return []
    said = {name: outputs.argmax(axis=1) for name, outputs in judged.outputs.items() if name in (HEAD, *shown)}
    found = {
        name: paired_recalls(judged.truth, codes, said[HEAD], len(classes), bootstrap=bootstrap) for name, codes in said.items()
    }
    rows = []
    for k, label in enumerate(classes):
        change = (found[ALONE][k][2],) if ALONE in said else ()
        rows.append((f"recall of {label}", found[HEAD][k][1], *(found[other][k][0] for other in shown), *change))
    return rows
