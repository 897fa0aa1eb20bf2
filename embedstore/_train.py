"""`train`: fit a head on a view, score it honestly beside its baselines, save it. Wiring of store, heads, evaluation."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore._arguments import strings
from embedstore.errors import HeadError, UsageError, reason_of
from embedstore.evaluate.metrics import Score, classification_scores, scores_to_dict
from embedstore.heads import Head, head_class, make_head
from embedstore.heads.io import HeadRecord, save_head
from embedstore.splits import hashed_fraction, stratified_folds
from embedstore.store import Store, View
from embedstore.store.reader import check_name

Codes = npt.NDArray[np.int64]
Scores = dict[str, Score]

__all__ = ["TrainReport", "train"]

LEARNED = ("alpha_", "lambda_", "k_", "temperature_", "scale_", "weights_", "votes_")
VALIDATION_SHARE = 0.15


@dataclass(frozen=True)
class TrainReport:
    """What `train` returns.

    Parameters
    ----------
    head : str
        The name under which it is saved.
    metrics : mapping of metric to Score
        On items that took no part in fitting or choosing anything.
    baselines : mapping of baseline to metrics
        The majority class, and each input alone.
    evaluation : str
        What the scores were measured on.
    learned : mapping
        What the head chose: its penalty, the weights of modalities or members.
    """

    head: str
    kind: str
    target: str
    inputs: list[str]
    classes: int
    items: dict[str, int]
    metrics: Scores
    baselines: dict[str, Scores]
    evaluation: str
    learned: dict[str, Any]
    seconds: float
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The document of ``embedstore train --json``."""
        return {
            **vars(self),
            "metrics": scores_to_dict(self.metrics),
            "baselines": {name: scores_to_dict(scores) for name, scores in self.baselines.items()},
        }


def train(
    store: Store | str | Path | View,
    target: str | None = None,
    *,
    head: str = "linear",
    inputs: Sequence[str] | None = None,
    where: str | None = None,
    cv: int | None = None,
    name: str | None = None,
    seed: int = 0,
    device: str = "cpu",
    on_progress: Callable[[str], None] | None = None,
) -> TrainReport:
    """Train a head on cached vectors and save it under ``heads/`` of the store.

    Parameters
    ----------
    store : Store, path, or View
        A view brings its own target, inputs and selection.
    target : str
        Metadata column with the labels; items where it is null are left out.
    head : str
        A kind of `embedstore.heads.HEADS`.
    inputs : sequence of str, optional
        Spaces to use; default: all.
    where : str, optional
        SQL over the metadata columns.
    cv : int, optional
        Score by stratified `cv`-fold cross-validation instead of one test split; the saved head is fitted on everything.
    name : str, optional
        Of the saved head; default: the target.
    seed : int
        Of the hashed split, the folds and the bootstrap.
    device : str
        Torch device to fit on.

    Returns
    -------
    TrainReport

    Raises
    ------
    UsageError, HeadError
    """
    if cv is not None and not isinstance(cv, int):
        raise UsageError(f"cv should be a whole number. Got {cv!r} instead.")
    started = time.perf_counter()
    view, root = _open(store, target, inputs, where, seed)
    head_class(head)
    target = str(view.target_name)
    name = check_name(name or target, "head")
    trial = _Trial(view, lambda: make_head(head, device=device, seed=seed), seed, on_progress or (lambda message: None))
    outcome = trial.holdout() if cv is None else trial.cross_validate(cv)
    report = TrainReport(
        head=name,
        kind=head,
        target=target,
        inputs=list(view.spaces),
        classes=len(trial.classes),
        items=outcome.sizes,
        metrics=outcome.metrics,
        baselines=outcome.baselines,
        evaluation=outcome.evaluation,
        learned=_learned(outcome.head),
        seconds=round(time.perf_counter() - started, 3),
        notes=_notes(view, trial.labels),
    )
    record = HeadRecord(name, target, view.specs, outcome.head, report.to_dict())
    extra = {"split.parquet": _split_file(view, outcome.split)}
    try:
        save_head(root / "heads" / name, record, extra)
    except OSError as error:
        raise HeadError(f"The head could not be saved under {root / 'heads' / name}: {reason_of(error)}.") from error
    return report


@dataclass(frozen=True)
class _Outcome:
    """A fitted head and scores measured on items it did not see."""

    head: Head
    metrics: Scores
    baselines: dict[str, Scores]
    evaluation: str
    sizes: dict[str, int]
    split: npt.NDArray[Any]


class _Trial:
    """Fits one kind of head on all inputs of a view together and on each alone, and scores them on the same items."""

    def __init__(self, view: View, make: Callable[[], Head], seed: int, on_progress: Callable[[str], None]) -> None:
        self.labels = _labels(view)
        self.classes = np.unique(self.labels)
        self._view = view
        self._make = make
        self._seed = seed
        self._say = on_progress
        self._codes = {label: i for i, label in enumerate(self.classes.tolist())}
        names = list(view.spaces)
        self._combinations = {"+".join(names): names, **({n: [n] for n in names} if len(names) > 1 else {})}

    def holdout(self) -> _Outcome:
        """Alpha on the validation split, scores on the test split."""
        fit, val, test = _three_way(self._view, self._seed)
        heads, predicted = {}, {}
        for label, names in self._combinations.items():
            self._say(label)
            heads[label] = self._fit(fit, val, names)
            predicted[label] = self._predict(heads[label], test, names)
        by = "column 'split'" if self._view.split_column else "hashed id"
        return self._outcome(
            next(iter(heads.values())),
            predicted,
            test,
            majority_of=np.concatenate([fit, val]),
            evaluation=f"{len(test):,} test items, split by {by}",
            sizes={"train": len(fit), "val": len(val), "test": len(test)},
            split=self._view.split,
        )

    def cross_validate(self, k: int) -> _Outcome:
        """Scores over all items, each predicted by a head that did not see its fold; then a head fitted on all."""
        folds = stratified_folds(self.labels, self._view.ids.tolist(), k, seed=self._seed)
        every = np.arange(len(folds))
        predicted = {label: np.empty(len(folds), np.int64) for label in self._combinations}
        for label, names in self._combinations.items():
            for fold in range(k):
                self._say(f"{label}, fold {fold + 1} of {k}")
                head = self._fit(*_validation(every[folds != fold], self._view, self._seed), names)
                predicted[label][folds == fold] = self._predict(head, every[folds == fold], names)
        self._say("final fit on all items")
        fit, val = _validation(every, self._view, self._seed)
        return self._outcome(
            self._fit(fit, val, next(iter(self._combinations.values()))),
            predicted,
            every,
            majority_of=every,
            evaluation=f"{k}-fold cross-validation over {len(every):,} items",
            sizes={"train": len(fit), "val": len(val), "test": len(every)},
            split=folds.astype(str),
        )

    def _outcome(self, head: Head, predicted: Mapping[str, Codes], test: Codes, *, majority_of: Codes, **rest: Any) -> _Outcome:
        truth = self._code(self.labels[test])
        scores = {label: self._score(truth, codes) for label, codes in predicted.items()}
        metrics = scores.pop(next(iter(self._combinations)))
        counts = np.bincount(self._code(self.labels[majority_of]), minlength=len(self.classes))
        majority = self._score(truth, np.full(len(truth), counts.argmax(), dtype=np.int64))
        return _Outcome(head, metrics, {"majority": majority, **scores}, **rest)

    def _fit(self, fit: Codes, val: Codes, names: Sequence[str]) -> Head:
        X, present = self._take(fit, names)
        v_X, v_present = self._take(val, names)
        return self._make().fit(X, self.labels[fit], present=present, validation=(v_X, self.labels[val], v_present))

    def _predict(self, head: Head, items: Codes, names: Sequence[str]) -> Codes:
        X, present = self._take(items, names)
        return self._code(head.predict(X, present=present))

    def _take(self, items: Codes, names: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
        view = self._view
        return {n: view.inputs[n][items] for n in names}, {n: view.present[n][items] for n in names}

    def _code(self, labels: npt.NDArray[Any]) -> Codes:
        return np.array([self._codes[label] for label in labels.tolist()], dtype=np.int64)

    def _score(self, truth: Codes, predicted: Codes) -> Scores:
        return classification_scores(truth, predicted, len(self.classes), seed=self._seed)


def _open(
    store: Store | str | Path | View, target: str | None, inputs: Sequence[str] | None, where: str | None, seed: int
) -> tuple[View, Path]:
    if isinstance(store, View):
        if store.target is None:
            raise UsageError("The view has no target. Make it with store.view(inputs=…, target='COLUMN').")
        return store, next(iter(store.spaces.values())).root
    opened = store if isinstance(store, Store) else Store.open(store)
    if target is None:
        columns = ", ".join(opened.items.metadata_columns()) or "none"
        raise UsageError(f"Name the target: a metadata column of {opened.path}. Columns: {columns}.")
    return opened.view(
        inputs=strings(inputs, "inputs") if inputs else list(opened.spaces), target=target, where=where, seed=seed
    ), opened.path


def _labels(view: View) -> npt.NDArray[Any]:
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


def _three_way(view: View, seed: int) -> tuple[Codes, Codes, Codes]:
    fit, val, test = (np.flatnonzero(view.split == part) for part in ("train", "val", "test"))
    if not len(val):
        fit, val = _validation(fit, view, seed)
    if not (len(fit) and len(val) and len(test)):
        raise HeadError(
            f"The split has {len(fit)} train, {len(val)} val and {len(test)} test items; each needs some. "
            "Use --cv for few items, or mend the column 'split'."
        )
    return fit, val, test


def _validation(items: Codes, view: View, seed: int) -> tuple[Codes, Codes]:
    """`items` in two: to fit on, and to choose alpha on; by hashed id, another hash than the test split's."""
    chosen = hashed_fraction(view.ids[items], seed=seed + 1_000_003) < VALIDATION_SHARE
    if chosen.all() or not chosen.any():
        chosen = np.arange(len(items)) % 5 == 0
    return items[~chosen], items[chosen]


def _learned(head: Head) -> dict[str, Any]:
    return {name.rstrip("_"): getattr(head, name) for name in LEARNED if hasattr(head, name)}


def _notes(view: View, labels: npt.NDArray[Any]) -> list[str]:
    notes = []
    if view.dropped:
        notes.append(f"{view.dropped} items have no {view.target_name} and were left out")
    values, counts = np.unique(labels, return_counts=True)
    if (rare := values[counts < 5]).size:
        shown = ", ".join(map(str, rare[:5])) + (", …" if len(rare) > 5 else "")
        notes.append(f"{len(rare)} classes have fewer than 5 items: {shown}")
    return notes


def _split_file(view: View, split: npt.NDArray[Any]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(pa.table({"row": view.rows, "id": pa.array(view.ids.tolist()), "split": split.tolist()}), buffer)
    return buffer.getvalue()
