"""`evaluate`: a saved head on labelled items that it did not see. Wiring of heads, tasks, stores, evaluation."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from embedstore._core.atomic_files import write_bytes
from embedstore._core.result_files import writing
from embedstore._core.threads import bounded
from embedstore.errors import HeadError
from embedstore.evaluation.bootstrap import Bootstrap
from embedstore.evaluation.copies import EVERY, Copies, find_copies
from embedstore.evaluation.metrics import Score, scores_to_dict
from embedstore.evaluation.target_scores import TargetScores
from embedstore.heads.held_out import OutOfFold, load_out_of_fold
from embedstore.heads.io import HeadRecord
from embedstore.reports.page import render_html
from embedstore.store import Store, View
from embedstore.training.certainty import Certainty, measured
from embedstore.training.class_names import Named, pairs_behind
from embedstore.training.evaluate_options import EvaluateOptions
from embedstore.training.fed import fed
from embedstore.training.knn_share import drawn, knn_share
from embedstore.training.label_notes import group_notes, left_out_notes
from embedstore.training.report import report_data
from embedstore.training.saved import (
    check_fingerprints,
    find_head,
    fitted_ids,
    labelled_view,
    refuse_certainty,
    specs_for,
    task_of,
    trained_on,
)
from embedstore.training.tasks.base import HEAD, KNN, Codes, Judged, Scores, Task

__all__ = ["EvaluationReport", "evaluate"]


@dataclass(frozen=True)
class EvaluationReport:
    """What `evaluate` returns.

    Parameters
    ----------
    head, kind, target : str
    metrics : mapping of metric to Score
    baselines : mapping of baseline to metrics
        The head with each input alone (the others masked), and of what it was fitted on the majority class, or the mean, and a
        plain kNN.
    gain : (str, Score)
        The best baseline, and the paired gain in accuracy (for numbers: in mean absolute error) over it.
    evaluation : str
        What the scores were measured on.
    task : str
    certainty : Certainty, optional
        How often sets or intervals hold the truth, where a coverage was asked for.
    targets : mapping of target to TargetScores
        The scores of each of several targets.
    """

    head: str
    kind: str
    target: str
    items: dict[str, int]
    metrics: Scores
    baselines: dict[str, Scores]
    gain: tuple[str, Score]
    evaluation: str
    seconds: float
    copies: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    report: str = ""
    task: str = ""
    certainty: Certainty | None = None
    targets: Mapping[str, TargetScores] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The document of ``embedstore evaluate --json``, which tells the scores and not the task."""
        return {
            **{name: value for name, value in vars(self).items() if name not in ("task", "certainty", "targets")},
            **({"targets": {name: found.to_dict() for name, found in self.targets.items()}} if self.targets else {}),
            **({} if self.certainty is None else {"certainty": self.certainty.to_dict()}),
            "metrics": scores_to_dict(self.metrics),
            "baselines": {name: scores_to_dict(scores) for name, scores in self.baselines.items()},
            "gain": {"over": self.gain[0], **self.gain[1].to_dict()},
        }


@bounded()
def evaluate(
    store: Store | str | Path,
    head: str | Path,
    *,
    where: str | None = EvaluateOptions.where,
    group: str | None = EvaluateOptions.group,
    seen: bool = EvaluateOptions.seen,
    coverage: float | None = EvaluateOptions.coverage,
    per_class: bool = EvaluateOptions.per_class,
    report: str | os.PathLike[str] | None = EvaluateOptions.report,
    seed: int = EvaluateOptions.seed,
) -> EvaluationReport:
    """Score a saved head on labelled items of a store.

    Parameters
    ----------
    store : Store or path
    head : str or path
        Its name in `store`, or the folder of a head of another store: ``other.store/heads/label``.
    where : str, optional
        SQL over the metadata columns.
    group : str, optional
        Metadata column; the bootstrap draws its values instead of items.
    seen : bool
        Whether items that the head was fitted on count too. Their scores flatter.
    coverage : float, optional
        Measure how often the sets of classes, or the intervals, that `predict` gives with this coverage hold the truth.
    per_class : bool
        Whether the coverage is to hold in each class.
    report : path, optional
        Where to write an HTML report.
    seed : int
        Of the bootstrap.

    Raises
    ------
    HeadError
        No item is left that the head did not see, or that has a known class.
    UsageError, FingerprintError
    """
    options = EvaluateOptions(
        where=where, group=group, seen=seen, coverage=coverage, per_class=per_class, report=report, seed=seed
    )
    started = time.perf_counter()
    opened = store if isinstance(store, Store) else Store.open(store)
    trained_in, record = find_head(opened, head)
    task = task_of(record)
    refuse_certainty(task, coverage)
    kept = None if coverage is None else load_out_of_fold(trained_in.path / "heads" / record.name)
    check_fingerprints(record, specs_for(record, opened), str(opened.path))
    fitted = fitted_ids(record)
    same = trained_in.path.resolve() == opened.path.resolve()
    told: list[str] = []
    if task.needs_target:
        view = labelled_view(record, opened, where=where, group=group)
        named, told = pairs_behind(opened, record.head) if same else (Named(), [])
        train = trained_on(record, trained_in)
    else:
        view, told = task.view_to_judge(opened, record, options, fitted if same and not options.seen else fitted[:0])
        train = view.select(np.zeros(len(view), bool))
    was_seen = np.isin(view.ids.astype(str), fitted) if same else np.zeros(len(view), bool)
    test = np.arange(len(view)) if options.seen else np.flatnonzero(~was_seen)
    if not len(test):
        raise HeadError(
            f"Head {record.name!r} was fitted on all {len(view):,} labelled items of {opened.path}. "
            "Evaluate it on another store, add items, or count what it has seen (--seen; such scores flatter)."
        )
    if task.needs_target:
        told += named.notes(view, test)
    judged = _judge(task, view, record, train, test=test, fitted=np.flatnonzero(was_seen), fitted_count=len(fitted))
    bootstrap = judged.bootstrap(view, options.seed)
    result = EvaluationReport(
        head=record.name,
        kind=record.head.kind,
        target=record.target,
        items=judged.sizes,
        metrics=judged.metrics(bootstrap),
        baselines=judged.baselines(bootstrap),
        gain=judged.gain(bootstrap),
        evaluation=judged.evaluation,
        seconds=round(time.perf_counter() - started, 3),
        copies=judged.copies.to_dict(),
        notes=[*_notes(view, judged, int(was_seen[test].sum())), *told],
        task=task.name,
        certainty=None if kept is None else _certainty(kept, judged, bootstrap, options),
        targets=task.by_target(judged, bootstrap),
    )
    if report is None:
        return result
    html = render_html(report_data(view, judged, result, seed=options.seed, certainty=result.certainty))
    with writing(Path(report)):
        write_bytes(Path(report), html.encode())
    return replace(result, report=str(report))


def _certainty(kept: OutOfFold, judged: Judged, bootstrap: Bootstrap, options: EvaluateOptions) -> Certainty:
    outputs, classes, share = judged.outputs[HEAD], judged.labels.classes, options.coverage or 0.0
    return measured(kept, outputs, judged.truth, classes, bootstrap, coverage=share, per_class=options.per_class)


def _judge(task: Task, view: View, record: HeadRecord, train: View, *, test: Codes, fitted: Codes, fitted_count: int) -> Judged:
    """The head, each of its inputs alone, and baselines that know what it was fitted on, judged on the items `test`.

    Parameters
    ----------
    train : View
        What is left of the items that the head was fitted on.
    fitted : (m,) positions
        Those of them that `view` holds.
    """
    head = record.head
    labels, known = task.evaluation_labels(record, [view, train])
    inputs = {name: x[test] for name, x in view.inputs.items()}
    given = {name: x[test] for name, x in fed(head, view).items()}
    present = {name: mask[test] for name, mask in view.present.items()}
    outputs = {HEAD: task.outputs(head, given, present, labels)}
    for name in view.names if len(view.names) > 1 and task.needs_target else ():
        alone = {n: m & (n == name) for n, m in present.items()}
        outputs[f"only {name}"] = task.outputs(head, given, alone, labels)
    copies = Copies.none()
    notes: list[str] = []
    if not task.needs_target:
        outputs[task.constant] = task.constant_outputs(labels, len(test))
    elif not len(train):
        notes.append(f"{train.store.path} holds none of the items that the head was fitted on: no baseline of theirs")
    else:
        outputs[task.constant] = task.constant_outputs(known, len(test))
        copies = _copies(view, test, train)
    if task.learnable(known):
        share, told = knn_share(len(train), len(test), sum(x.shape[-1] for x in train.inputs.values()))
        notes += told
        at = drawn(np.arange(len(train)), share, 0)
        some = train.select(at)
        knn = task.plain_knn().fit(some.inputs, known.values[at], present=some.present)
        outputs[KNN] = task.outputs(knn, inputs, present, labels)
    return Judged(
        task,
        labels,
        head,
        fitted_on=fitted,
        test=test,
        outputs=outputs,
        evaluation=f"{len(test):,} {view.unit} of {view.store.path.name}",
        sizes={"train": fitted_count, "test": len(test)},
        split=np.full(len(view), ""),
        copies=copies,
        witness=(head, fitted, test),
        notes=notes,
    )


def _copies(view: View, test: Codes, train: View) -> Copies:
    """Copies of the evaluated items among those the head was fitted on, wherever they are stored."""
    evaluated = view.select(test)
    both = {
        name: np.concatenate([evaluated.inputs[name], np.asarray(x, evaluated.inputs[name].dtype)])
        for name, x in train.inputs.items()
    }
    present = {name: np.concatenate([evaluated.present[name], mask]) for name, mask in train.present.items()}
    hashes = {
        name: np.concatenate([view.spaces[name].hash_of(evaluated.rows), space.hash_of(train.rows)])
        for name, space in train.spaces.items()
    }
    n = len(test)
    found = find_copies(both, present, hashes, train=np.arange(n, n + len(train)), test=np.arange(n))
    return replace(found, checked=test[found.checked])


def _notes(view: View, judged: Judged, seen: int) -> list[str]:
    notes = [*judged.notes]
    if seen:
        notes.append(f"{seen:,} of the {len(judged.test):,} items were fitted on: these scores flatter")
    if found := int(judged.copies.near[EVERY].sum()):
        notes.append(f"{found:,} items have a near copy ({judged.copies.rule}) among those the head was fitted on")
    return [*notes, *group_notes(view, judged.test), *judged.task.evaluation_notes(judged), *left_out_notes(view)]
