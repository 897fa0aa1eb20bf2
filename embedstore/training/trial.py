"""A trial: one kind of head and its baselines, fitted on some items of a view and judged on others."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore._core.splits import grouped_folds, hashed_fraction, stratified_folds
from embedstore.errors import HeadError
from embedstore.evaluation.bootstrap import Bootstrap
from embedstore.evaluation.copies import EVERY, LEAST_JUDGED, Copies, find_copies
from embedstore.evaluation.metrics import Score, classification_scores, label_scores
from embedstore.heads import HEADS, AutoHead, Head, KnnHead, LinearHead
from embedstore.store import View

Codes = npt.NDArray[np.int64]
Float = npt.NDArray[np.float64]
Scores = dict[str, Score]
Say = Callable[[str], None]

HEAD, MAJORITY, KNN = "head", "majority", "knn"
KNN_PRODUCTS, LEAST_KNN = 5e11, 20_000
"""A kNN baseline that compares every item with all of a million would take longer than everything else: it may multiply and add
so often (some seconds on two cores), but knows at least so many items."""
VALIDATION_SHARE = 0.15
SEEDS = 5
IMPOSSIBLE = -30.0


@dataclass(frozen=True)
class Labels:
    """Labels (n,) of a view's items, the classes (c,) there are, and each item's class code (n,)."""

    values: npt.NDArray[Any]
    classes: npt.NDArray[Any]
    codes: npt.NDArray[Any]

    @classmethod
    def of(cls, view: View) -> Labels:
        """Those of a view; `HeadError` if they are not fit for classification."""
        values = classification_labels(view)
        classes, codes = np.unique(values, return_inverse=True)
        return cls(values, classes, codes.astype(np.int64))


@dataclass(frozen=True)
class Judged:
    """A fitted head and what it and its baselines predict for items they did not see.

    Parameters
    ----------
    head : Head
    fitted_on : (m,) positions in the view
    test : (t,) positions
    truth : (t,) class codes
    log_p : dict of name to (t, c)
        Of ``"head"`` and of the baselines.
    evaluation : str
        What `test` is, in words.
    sizes : dict
    split : (n,) str
    seeds : list of float
        Accuracy (R², of numbers) of the head with each seed, if it depends on one.
    copies : Copies
    fit_seconds : float
        Of the head alone.
    witness : (Head, fitted on, test)
        A head like `head` for closer looks, and the items it was and was not fitted on.
    notes : sequence of str
        What people should know about the baselines.
    """

    head: Head
    fitted_on: Codes
    test: Codes
    truth: npt.NDArray[Any]
    log_p: dict[str, Float]
    evaluation: str
    sizes: dict[str, int]
    split: npt.NDArray[Any]
    seeds: list[float]
    copies: Copies
    fit_seconds: float
    witness: tuple[Head, Codes, Codes]
    notes: Sequence[str] = ()

    def bootstrap(self, view: View, seed: int) -> Bootstrap:
        """Resamples of the test items, or of their groups."""
        groups = None if view.groups is None else view.groups[self.test]
        return Bootstrap.of(len(self.test), groups=groups, seed=seed)

    def metrics(self, bootstrap: Bootstrap) -> Scores:
        return classification_scores(self.truth, self.log_p[HEAD], bootstrap=bootstrap)

    def baselines(self, bootstrap: Bootstrap) -> dict[str, Scores]:
        return {
            name: label_scores(self.truth, p.argmax(axis=1), p.shape[1], bootstrap=bootstrap)
            for name, p in self.log_p.items()
            if name != HEAD
        }

    def gain(self, baselines: Mapping[str, Scores], bootstrap: Bootstrap) -> tuple[str, Score]:
        """The most accurate baseline, and the paired gain in accuracy over it."""
        if not baselines:
            return "nothing", Score(float("nan"), float("nan"), float("nan"))
        best = max(baselines, key=lambda name: baselines[name]["accuracy"].value)
        hits = {name: self.log_p[name].argmax(axis=1) == self.truth for name in (HEAD, best)}
        return best, bootstrap.mean(hits[HEAD].astype(float) - hits[best].astype(float))

    def accuracy_without_copies(self, view: View, seed: int) -> Score | None:
        """Accuracy over the items that have no near copy in training; None if none has one, or few have none."""
        at = np.isin(self.test, self.copies.checked[~self.copies.near[EVERY]])
        if at.sum() < LEAST_JUDGED or at.sum() == len(self.copies.checked):
            return None
        groups = None if view.groups is None else view.groups[self.test[at]]
        hits = self.log_p[HEAD][at].argmax(axis=1) == self.truth[at]
        return Bootstrap.of(int(at.sum()), groups=groups, seed=seed).mean(hits.astype(float))


class Trial:
    """Fits a head on all inputs of a view, linear heads on each alone, and a plain kNN; on the same items.

    Parameters
    ----------
    view : View
    kind : str
        Of the head.
    make : function of a kind and a seed to a new Head
    seed : int
    seeds : int
        How often a head that depends on its seed is fitted.
    say : function of a message
    """

    constant = MAJORITY
    judged: type[Judged] = Judged

    def __init__(self, view: View, kind: str, make: Callable[[str, int], Head], *, seed: int, seeds: int, say: Say) -> None:
        self.labels = self._labels(view)
        self._view = view
        self._kind = kind
        self._make = make
        self._seed = seed
        self._seeds = seeds
        self._say = say
        self._fit_seconds = 0.0
        self._notes: list[str] = []
        self._hashes = {name: space.hash_of(view.rows) for name, space in view.spaces.items()}

    def _labels(self, view: View) -> Labels:
        return Labels.of(view)

    def holdout(self) -> Judged:
        """Everything is chosen on the validation split, and judged on the test split."""
        fit, val, test = self._three_way()
        head, log_p = self._fold(fit, val, test, "")
        self._say("copies across the split")
        every = np.concatenate([fit, val])
        by = "column 'split'" if self._view.split_column else f"hashed {self._view.group_name or 'id'}"
        return self.judged(
            head,
            fitted_on=every,
            test=test,
            truth=self.labels.codes[test],
            log_p=log_p,
            evaluation=f"{len(test):,} test items, split by {by}",
            sizes={"train": len(fit), "val": len(val), "test": len(test)},
            split=self._view.split,
            seeds=self._over_seeds(head, log_p[HEAD], [(fit, val, test)], test),
            copies=self._copies(every, test),
            fit_seconds=self._fit_seconds,
            witness=(head, every, test),
            notes=self._notes,
        )

    def cross_validate(self, k: int) -> Judged:
        """All items, each judged by heads that did not see its fold; and a head fitted on all."""
        view, every = self._view, np.arange(len(self.labels.codes))
        if view.groups is None:
            folds = stratified_folds(self._strata(), view.ids.tolist(), k, seed=self._seed)
        else:
            folds = grouped_folds(self._strata(), view.groups, k, seed=self._seed)
        log_p: dict[str, Float] = {}
        copies: Copies | None = None
        parts = []
        for fold in range(k):
            inside, test = every[folds != fold], every[folds == fold]
            parts.append((*self._validation(inside), test))
            judge, predicted = self._fold(*parts[-1], f", fold {fold + 1} of {k}")
            witness = (judge, inside, test)
            for name, p in predicted.items():
                log_p.setdefault(name, np.empty((len(every), *p.shape[1:])))[test] = p
            found = self._copies(inside, test)
            copies = found if copies is None else copies + found
        self._say("final fit on all items")
        fit, val = self._validation(every)
        head = self._fit(self._make(self._kind, self._seed), fit, val, view.names)
        grouped = f", {view.group_name} kept together" if view.groups is not None else ""
        return self.judged(
            head,
            fitted_on=every,
            test=every,
            truth=self.labels.codes,
            log_p=log_p,
            evaluation=f"{k}-fold cross-validation over {len(every):,} items{grouped}",
            sizes={"train": len(fit), "val": len(val), "test": len(every)},
            split=folds.astype(str),
            seeds=self._over_seeds(head, log_p[HEAD], parts, every),
            copies=copies or Copies.none(),
            fit_seconds=self._fit_seconds,
            witness=witness,
            notes=self._notes,
        )

    def _fold(self, fit: Codes, val: Codes, test: Codes, where: str) -> tuple[Head, dict[str, Float]]:
        """The head, and log-probabilities (t, c) of the test items by it and by the baselines."""
        names = self._view.names
        self._say(f"head{where}")
        start = time.perf_counter()
        head = self._fit(self._make(self._kind, self._seed), fit, val, names)
        self._fit_seconds = time.perf_counter() - start
        log_p = {HEAD: self._predict(head, test, names)}
        log_p[self.constant] = self._constant(np.concatenate([fit, val]), len(test))
        self._say(f"kNN{where}")
        share, self._notes = knn_share(len(fit) + len(val), len(test), sum(self._view.inputs[name].shape[-1] for name in names))
        knn = self._fit(self._plain_knn(), drawn(fit, share, self._seed), drawn(val, share, self._seed), names)
        log_p[KNN] = self._predict(knn, test, names)
        for name in names if len(names) > 1 else ():
            self._say(f"{name} alone{where}")
            log_p[name] = self._predict(self._fit(self._plain_linear(), fit, val, [name]), test, [name])
        return head, log_p

    def _constant(self, fitted_on: Codes, n: int) -> Float:
        """The same prediction for n items: the class frequencies."""
        counts = np.bincount(self.labels.codes[fitted_on], minlength=len(self.labels.classes))
        return frequencies(counts, n)

    def _plain_knn(self) -> Head:
        return plain_knn()

    def _plain_linear(self) -> Head:
        return LinearHead()

    def _score(self, predicted: Float, items: Codes) -> float:
        return float((predicted.argmax(axis=1) == self.labels.codes[items]).mean())

    def _over_seeds(self, head: Head, first: Float, parts: Sequence[tuple[Codes, Codes, Codes]], judged: Codes) -> list[float]:
        """The main score over `judged` with `seeds` seeds, of which the first is known."""
        kind = head.chosen_ if isinstance(head, AutoHead) else self._kind
        if kind not in HEADS or not self._make(kind, self._seed).stochastic:
            return []
        found = [self._score(first, judged)]
        names = self._view.names
        for i in range(1, self._seeds):
            self._say(f"seed {i + 1} of {self._seeds}")
            again = np.empty((len(self.labels.codes), *first.shape[1:]))
            for fit, val, test in parts:
                again[test] = self._predict(self._fit(self._make(kind, self._seed + i), fit, val, names), test, names)
            found.append(self._score(again[judged], judged))
        return found

    def _fit(self, head: Head, fit: Codes, val: Codes, names: Sequence[str]) -> Head:
        X, present = self._take(fit, names)
        v_X, v_present = self._take(val, names)
        return head.fit(X, self.labels.values[fit], present=present, validation=(v_X, self.labels.values[val], v_present))

    def _predict(self, head: Head, items: Codes, names: Sequence[str]) -> Float:
        X, present = self._take(items, names)
        return over_classes(head, head.predict_log_proba(X, present=present), self.labels.classes)

    def _take(self, items: Codes, names: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
        view = self._view
        return {n: view.inputs[n][items] for n in names}, {n: view.present[n][items] for n in names}

    def _strata(self) -> npt.NDArray[Any]:
        """What folds are balanced by (n,)."""
        return self.labels.values

    def _copies(self, train: Codes, test: Codes) -> Copies:
        view = self._view
        return find_copies(view.inputs, view.present, self._hashes, train=train, test=test, seed=self._seed)

    def _three_way(self) -> tuple[Codes, Codes, Codes]:
        fit, val, test = (np.flatnonzero(self._view.split == part) for part in ("train", "val", "test"))
        if not len(val):
            fit, val = self._validation(fit)
        if not (len(fit) and len(val) and len(test)):
            raise HeadError(
                f"The split has {len(fit)} train, {len(val)} val and {len(test)} test items; each needs some. "
                "Use --cv for few items, or mend the column 'split'."
            )
        return fit, val, test

    def _validation(self, items: Codes) -> tuple[Codes, Codes]:
        """`items` in two: to fit on, and to choose on; by another hash than the test split's."""
        chosen = hashed_fraction(self._view.keys[items], seed=self._seed + 1_000_003) < VALIDATION_SHARE
        if chosen.all() or not chosen.any():
            _, key = np.unique(self._view.keys[items].astype(str), return_inverse=True)
            chosen = key % 5 == 0
        return items[~chosen], items[chosen]


def frequencies(counts: npt.NDArray[Any], n: int) -> Float:
    """Log-probabilities (n, c) that are the class frequencies behind `counts` (c,), for every item alike."""
    return np.tile(np.log(np.maximum(counts, 0.5) / counts.sum()), (n, 1))


def plain_knn() -> KnnHead:
    """The kNN baseline: nothing about it is tuned."""
    return KnnHead(ks=(8,), temperatures=(0.1,), weights="equal")


def knn_share(train: int, asked: int, width: int) -> tuple[float, list[str]]:
    """The share of `train` items that the kNN baseline of `asked` items knows, and what to say about it."""
    share = min(1.0, max(LEAST_KNN, KNN_PRODUCTS / max(asked * width, 1)) / max(train, 1))
    if share == 1:
        return share, []
    return share, [f"the plain kNN knows {round(share * train):,} of the {train:,} training items, drawn at random"]


def drawn(items: Codes, share: float, seed: int) -> Codes:
    """A `share` of `items`, at random, in their order."""
    if share == 1:
        return items
    return np.sort(np.random.default_rng(seed).permutation(items)[: max(1, round(share * len(items)))])


def over_classes(head: Head, log_p: Float, classes: npt.NDArray[Any]) -> Float:
    """Log-probabilities (n, c) over `classes`, those that the head did not see next to impossible."""
    position = {label: i for i, label in enumerate(classes.tolist())}
    out = np.full((len(log_p), len(classes)), IMPOSSIBLE)
    out[:, [position[label] for label in head.classes_.tolist()]] = log_p
    return out


def classification_labels(view: View) -> npt.NDArray[Any]:
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
