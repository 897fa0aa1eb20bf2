"""A head looked at: how it does on items that it was not fitted on, which those are, and labels that may be wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.errors import HeadError, UsageError
from embedstore.heads.held_out import OutOfFold, load_out_of_fold
from embedstore.serving.answers import items
from embedstore.serving.session import Session
from embedstore.store.format import HEADS
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


def head_page(session: Session, name: str) -> Document:
    """The document of ``GET /v1/heads/NAME``."""
    record = session.head(name)
    report = record.report
    classes = [str(one) for one in getattr(record.head, "classes_", np.empty(0)).tolist()]
    document: Document = {
        "name": name,
        "task": str(report.get("task", record.head.task)),
        "kind": record.head.kind,
        "target": record.target,
        "inputs": list(record.inputs),
        "classes": classes,
        "evaluation": report.get("evaluation"),
        "metrics": [{"name": key, **value} for key, value in (report.get("metrics") or {}).items()],
        "baselines": report.get("baselines") or {},
        "taught": report.get("taught"),
        "leave_one_out": report.get("leave_one_out"),
        "confusion": None,
    }
    try:
        judged = judged_items(session, name)
    except HeadError as error:
        return {**document, "note": str(error)}
    if classes and len(judged.kept.classes):
        classes = [str(one) for one in judged.kept.classes.tolist()]  # of the test split alone there may be more
        document |= {"classes": classes}
        document |= {"confusion": _confusion(judged, classes), "on": judged.on, "n": len(judged.kept)}
    return document


def judged_items(session: Session, name: str) -> Judged:
    """Items of the test split, or all that were predicted out of fold where there is none.

    Raises
    ------
    HeadError
        The head keeps no such predictions.
    """
    session.head(name)

    def read() -> Judged:
        kept = load_out_of_fold(session.store.path / HEADS / name)
        there = session.store.items.known_rows(kept.ids.tolist()) >= 0
        test = there & ~kept.crossed
        return Judged(kept.take(test), "test items") if test.any() else Judged(kept.take(there), "items, out of fold")

    return session.keep(("judged", name), read)


def head_items(session: Session, name: str, *, truth: str | None, predicted: str | None, offset: int, k: int) -> Document:
    """Items of one cell of the confusion matrix; without a cell all mistakes. The surest first."""
    judged = judged_items(session, name)
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


def label_errors(session: Session, name: str, *, offset: int, k: int) -> Document:
    """Labels that are likely wrong, the worst first."""
    session.head(name)
    report = session.keep(("labels", name), lambda: labels(session.store, name))
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
