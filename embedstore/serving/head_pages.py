"""A head looked at: how it does on items that it was not fitted on, which those are, and labels that may be wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.errors import HeadError, UsageError
from embedstore.heads import TargetsHead
from embedstore.heads.held_out import OutOfFold
from embedstore.heads.io import HeadRecord
from embedstore.serving.answers import items
from embedstore.serving.session import Session
from embedstore.training.kept import kept_with
from embedstore.training.labels import labels

Document = dict[str, Any]


@dataclass(frozen=True)
class Judged:
    """Items that a head was not fitted on, with what it says of them.

    Parameters
    ----------
    kept : OutOfFold
        Of those items alone.
    on : str
        Which items they are, in words.
    """

    kept: OutOfFold
    on: str

    @property
    def truth(self) -> list[str]:
        return [str(label) for label in self.kept.target.tolist()]

    @property
    def predicted(self) -> list[str]:
        return [str(label) for label in self.kept.predicted.tolist()]

    def probability(self) -> npt.NDArray[np.float64]:
        """Of what is predicted (n,)."""
        if not self.kept.probabilities.shape[1]:
            return np.full(len(self.kept), np.nan)
        return np.asarray(self.kept.probabilities.max(axis=1), np.float64)


def targets_of(record: HeadRecord) -> list[str]:
    """The targets of a head that has several; none of another one."""
    return list(record.head.targets_) if isinstance(record.head, TargetsHead) else []


def head_page(session: Session, name: str, target: str | None = None) -> Document:
    """The document of ``GET /v1/heads/NAME``; of several targets that of one, the first where none is named."""
    record = session.head(name)
    report, several = record.report, targets_of(record)
    target = several[0] if target is None and several else target
    known = record.head.classes_[several.index(target)] if target in several else getattr(record.head, "classes_", np.empty(0))
    classes = [str(one) for one in known.tolist()]
    document: Document = {
        "name": name,
        "task": str(report.get("task", record.head.task)),
        "kind": record.head.kind,
        "target": target or record.target,
        "targets": several,
        "inputs": list(record.inputs),
        "classes": classes,
        "evaluation": report.get("evaluation"),
        "metrics": [{"name": key, **value} for key, value in _of(several, target, report.get("metrics")).items()],
        "baselines": {key: _of(several, target, scores) for key, scores in (report.get("baselines") or {}).items()},
        "taught": report.get("taught"),
        "leave_one_out": report.get("leave_one_out"),
        "confusion": None,
    }
    try:
        judged = judged_items(session, name, target)
    except HeadError as error:
        return {**document, "note": str(error)}
    if classes and len(judged.kept.classes):
        classes = [str(one) for one in judged.kept.classes.tolist()]  # of the test split alone there may be more
        document |= {"classes": classes}
        document |= {"confusion": _confusion(judged, classes), "on": judged.on, "n": len(judged.kept)}
    return document


def _of(several: list[str], target: str | None, scores: Document | None) -> Document:
    """The scores of one of several targets, under their own names; all of another head."""
    if target not in several:
        return scores or {}
    start = f"{target}:"
    return {name.removeprefix(start): score for name, score in (scores or {}).items() if name.startswith(start)}


def judged_items(session: Session, name: str, target: str | None = None) -> Judged:
    """Items of the test split, or all that were predicted out of fold where there is none.

    Raises
    ------
    HeadError
        The head keeps no such predictions.
    UsageError
        It has no such target, or several and none is named.
    """
    record = session.head(name)

    def read() -> Judged:
        _, kept = kept_with(session.store, record, target)
        there = session.store.items.known_rows(kept.ids.tolist()) >= 0
        test = there & ~kept.crossed
        return Judged(kept.take(test), "test items") if test.any() else Judged(kept.take(there), "items, out of fold")

    return session.keep_of_heads(("judged", name, target), read)


def head_items(
    session: Session, name: str, *, target: str | None, truth: str | None, predicted: str | None, offset: int, k: int
) -> Document:
    """Items of one cell of the confusion matrix; without a cell all mistakes. The surest first."""
    judged = judged_items(session, name, target)
    true, said = np.asarray(judged.truth, object), np.asarray(judged.predicted, object)
    chosen = np.ones(len(true), bool) if truth is not None or predicted is not None else true != said
    if truth is not None:
        chosen &= true == truth
    if predicted is not None:
        chosen &= said == predicted
    probability = judged.probability()
    at = np.flatnonzero(chosen)
    at = at[np.argsort(-np.nan_to_num(probability[at]), kind="stable")]
    page = at[offset : offset + k]
    more = [{"truth": true[i], "predicted": said[i], "probability": round(float(probability[i]), 6)} for i in page.tolist()]
    rows = session.store.items.rows_of(judged.kept.ids[page].tolist())
    return {
        "generation": session.generation,
        "on": judged.on,
        "total": len(at),
        "results": items(session, rows, offset=offset, more=more),
    }


def label_errors(session: Session, name: str, *, target: str | None, offset: int, k: int) -> Document:
    """Labels that are likely wrong, the worst first."""
    session.head(name)
    report = session.keep_of_heads(("labels", name, target), lambda: labels(session.store, name, target=target))
    page = report.suspects[offset : offset + k]
    rows = session.store.items.known_rows([one.id for one in page])
    more = [
        {
            "given": one.given,
            "proposed": one.proposed,
            "quality": one.quality,
            "probability": one.probability,
            "wrong": one.wrong,
        }
        for one, row in zip(page, rows.tolist(), strict=True)
        if row >= 0
    ]
    return {
        "generation": session.generation,
        "total": len(report.suspects),
        "estimated": report.estimated,
        "notes": report.notes,
        "results": items(session, rows[rows >= 0], offset=offset, more=more),
    }


def _confusion(judged: Judged, classes: list[str]) -> list[list[int]]:
    """Items (c, c) by true class, then by predicted class."""
    position = {name: at for at, name in enumerate(classes)}
    if unknown := [name for name in (*judged.truth, *judged.predicted) if name not in position]:
        raise UsageError(f"Predictions of class {unknown[0]!r} are kept, which the head does not know. Train it again.")
    counts = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(counts, ([position[t] for t in judged.truth], [position[p] for p in judged.predicted]), 1)
    return [[int(value) for value in row] for row in counts]
