"""`evaluate`: a saved head on labelled items that it did not see. Wiring of heads, stores, evaluation."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore._core.atomic_files import write_bytes
from embedstore._core.column_types import shown
from embedstore._core.column_values import MisfitError, fitted
from embedstore._core.result_files import writing
from embedstore._core.threads import bounded
from embedstore.errors import HeadError, UsageError
from embedstore.evaluation.copies import EVERY, Copies, find_copies
from embedstore.evaluation.metrics import Score, scores_to_dict
from embedstore.heads import KnnRegressor
from embedstore.heads.base import as_labels
from embedstore.heads.io import HeadRecord
from embedstore.reports.page import render_html
from embedstore.store import Store, View
from embedstore.training.closer_look import report_data
from embedstore.training.label_notes import left_out_notes
from embedstore.training.number_trial import REGRESSION, JudgedNumbers, number_target
from embedstore.training.predict import check_fingerprints, find_head, fitted_ids
from embedstore.training.trial import (
    HEAD,
    KNN,
    MAJORITY,
    Codes,
    Judged,
    Labels,
    Scores,
    drawn,
    frequencies,
    knn_share,
    over_classes,
    plain_knn,
)

__all__ = ["EvaluationReport", "evaluate"]


@dataclass(frozen=True)
class EvaluationReport:
    """What `evaluate` returns.

    Parameters
    ----------
    head, kind, target : str
    metrics : mapping of metric to Score
    baselines : mapping of baseline to metrics
        The head with each input alone (the others masked), and the majority class and a plain kNN of what it was fitted on.
    gain : (str, Score)
        The most accurate baseline, and the paired gain in accuracy over it.
    evaluation : str
        What the scores were measured on.
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

    def to_dict(self) -> dict[str, Any]:
        """The document of ``embedstore evaluate --json``."""
        return {
            **vars(self),
            "metrics": scores_to_dict(self.metrics),
            "baselines": {name: scores_to_dict(scores) for name, scores in self.baselines.items()},
            "gain": {"over": self.gain[0], **self.gain[1].to_dict()},
        }


@bounded()
def evaluate(
    store: Store | str | Path,
    head: str | Path,
    *,
    where: str | None = None,
    group: str | None = None,
    seen: bool = False,
    report: str | Path | None = None,
    seed: int = 0,
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
    if seed < 0:
        raise UsageError(f"seed should be 0 or more. Got {seed}.")
    started = time.perf_counter()
    opened = store if isinstance(store, Store) else Store.open(store)
    trained_in, record = find_head(opened, head)
    check_fingerprints(record, {name: opened.space(name).spec for name in record.inputs}, str(opened.path))
    view = _view(record, opened, where, group)
    fitted = fitted_ids(record)
    same = trained_in.path.resolve() == opened.path.resolve()
    was_seen = np.isin(view.ids.astype(str), fitted) if same else np.zeros(len(view), bool)
    test = np.arange(len(view)) if seen else np.flatnonzero(~was_seen)
    if not len(test):
        raise HeadError(
            f"Head {record.name!r} was fitted on all {len(view):,} labelled items of {opened.path}. "
            "Evaluate it on another store, add items, or count what it has seen (--seen; such scores flatter)."
        )
    judge = _judge_numbers if record.head.task == REGRESSION else _judge
    judged, labels = judge(view, record, test, np.flatnonzero(was_seen), trained_in, fitted)
    bootstrap = judged.bootstrap(view, seed)
    baselines = judged.baselines(bootstrap)
    result = EvaluationReport(
        head=record.name,
        kind=record.head.kind,
        target=record.target,
        items=judged.sizes,
        metrics=judged.metrics(bootstrap),
        baselines=baselines,
        gain=judged.gain(baselines, bootstrap),
        evaluation=judged.evaluation,
        seconds=round(time.perf_counter() - started, 3),
        copies=judged.copies.to_dict(),
        notes=_notes(view, labels, record, judged, int(was_seen[test].sum())),
    )
    if report is None:
        return result
    html = render_html(report_data(view, labels, judged, result.to_dict(), seed=seed))
    with writing(Path(report)):
        write_bytes(Path(report), html.encode())
    return EvaluationReport(**{**vars(result), "report": str(report)})


def _view(record: HeadRecord, store: Store, where: str | None, group: str | None) -> View:
    view = store.view(inputs=list(record.inputs), target=record.target, where=where, group=group)
    return replace(view, columns=record.columns, target=_as_learned(record, view))


def _as_learned(record: HeadRecord, view: View) -> Codes | None:
    """The targets of `view` in the type of the head's classes: 7 is 7, whether its store holds it as text or as a number."""
    if view.target is None or record.head.task == REGRESSION:
        return view.target
    import pyarrow as pa

    kind = pa.array(record.head.classes_.tolist()).type
    try:
        return np.array(fitted(pa.array(view.target.tolist()), kind).to_pylist(), object)
    except MisfitError as error:
        raise HeadError(
            f"{view.store.path}: {record.target!r} of item {view.ids[error.position]!r} is {shown(error.value)}, no "
            f"{error.expected}, which the classes of head {record.name!r} are."
        ) from error


def _judge(
    view: View, record: HeadRecord, test: Codes, fitted: Codes, trained_in: Store, ids: npt.NDArray[np.str_]
) -> tuple[Judged, Labels]:
    head, target = record.head, view.target
    if target is None:
        raise HeadError(f"The view has no target {record.target!r}.")
    home = _view(record, trained_in, None, None)
    train = home.select(np.isin(home.ids.astype(str), ids))
    every = {*head.classes_.tolist(), *target.tolist(), *(train.target.tolist() if train.target is not None else ())}
    classes = as_labels(sorted(every))
    codes = np.array([{c: i for i, c in enumerate(classes.tolist())}[v] for v in target.tolist()], np.int64)
    inputs = {name: x[test] for name, x in view.inputs.items()}
    present = {name: mask[test] for name, mask in view.present.items()}
    log_p = {HEAD: over_classes(head, head.predict_log_proba(inputs, present=present), classes)}
    for name in view.names if len(view.names) > 1 else ():
        alone = {n: m & (n == name) for n, m in present.items()}
        log_p[f"only {name}"] = over_classes(head, head.predict_log_proba(inputs, present=alone), classes)
    copies = Copies.none()
    notes: list[str] = []
    if len(train) and train.target is not None:
        position = {label: i for i, label in enumerate(classes.tolist())}
        counts = np.bincount([position[label] for label in train.target.tolist()], minlength=len(classes))
        log_p[MAJORITY] = frequencies(counts, len(test))
        copies = _copies(view, test, train)
        if (counts > 0).sum() > 1:
            known, notes = _knn_training(train, len(test))
            some = train.select(known)
            knn = plain_knn()
            knn.fit(some.inputs, train.target[known], present=some.present)
            log_p[KNN] = over_classes(knn, knn.predict_log_proba(inputs, present=present), classes)
    labels_of = Labels(target, classes, codes)
    return replace(_judged(Judged, view, record, log_p, codes[test], test, fitted, len(ids), copies), notes=notes), labels_of


def _judge_numbers(
    view: View, record: HeadRecord, test: Codes, fitted: Codes, trained_in: Store, ids: npt.NDArray[np.str_]
) -> tuple[Judged, Labels]:
    head, target = record.head, number_target(view)
    inputs = {name: x[test] for name, x in view.inputs.items()}
    present = {name: mask[test] for name, mask in view.present.items()}
    values = {HEAD: np.asarray(head.predict(inputs, present=present), np.float64)}
    for name in view.names if len(view.names) > 1 else ():
        alone = {n: m & (n == name) for n, m in present.items()}
        values[f"only {name}"] = np.asarray(head.predict(inputs, present=alone), np.float64)
    home = _view(record, trained_in, None, None)
    train = home.select(np.isin(home.ids.astype(str), ids))
    known = number_target(train)
    values["mean"] = np.full(len(test), known.mean() if len(known) else 0.0)
    copies = Copies.none()
    notes: list[str] = []
    if len(train) > 1:
        some, notes = _knn_training(train, len(test))
        some_of = train.select(some)
        knn = KnnRegressor().fit(some_of.inputs, known[some], present=some_of.present)
        values[KNN] = knn.predict(inputs, present=present)
        copies = _copies(view, test, train)
    judged = _judged(JudgedNumbers, view, record, values, target[test], test, fitted, len(ids), copies)
    return replace(judged, notes=notes), Labels(target, np.empty(0), target)


def _judged(
    kind: type[Judged],
    view: View,
    record: HeadRecord,
    predicted: dict[str, npt.NDArray[np.float64]],
    truth: npt.NDArray[Any],
    test: Codes,
    fitted: Codes,
    fitted_count: int,
    copies: Copies,
) -> Judged:
    return kind(
        record.head,
        fitted_on=fitted,
        test=test,
        truth=truth,
        log_p=predicted,
        evaluation=f"{len(test):,} items of {view.store.path.name}",
        sizes={"train": fitted_count, "test": len(test)},
        split=np.full(len(view), ""),
        seeds=[],
        copies=copies,
        fit_seconds=0.0,
        witness=(record.head, fitted, test),
    )


def _knn_training(train: View, asked: int) -> tuple[Codes, list[str]]:
    """Positions of what a plain kNN of `asked` items knows of `train`, and what to say about it."""
    share, notes = knn_share(len(train), asked, sum(x.shape[-1] for x in train.inputs.values()))
    return drawn(np.arange(len(train)), share, 0), notes


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


def _notes(view: View, labels: Labels, record: HeadRecord, judged: Judged, seen: int) -> list[str]:
    notes = [*judged.notes]
    if seen:
        notes.append(f"{seen:,} of the {len(judged.test):,} items were fitted on: these scores flatter")
    if found := int(judged.copies.near[EVERY].sum()):
        notes.append(f"{found:,} items have a near copy ({judged.copies.rule}) among those the head was fitted on")
    known = np.isin(labels.classes, getattr(record.head, "classes_", ()))
    if not known.all():
        count = int((~known[judged.truth]).sum())
        strange = ", ".join(map(str, labels.classes[~known][:5].tolist()))
        notes.append(f"{count:,} items are of classes that the head does not know: {strange}")
    notes += left_out_notes(view)
    return notes
