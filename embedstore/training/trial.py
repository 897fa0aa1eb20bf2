"""A trial: one kind of head and its baselines, fitted on some items of a view and judged on others."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from embedstore._core.splits import grouped_folds, hashed_fraction, stratified_folds
from embedstore.errors import HeadError
from embedstore.evaluation.copies import Copies, find_copies
from embedstore.heads import HEADS, AutoHead, AutoLabeller, Head
from embedstore.heads.balanced import BalancedHead
from embedstore.store import View
from embedstore.training.tasks.base import HEAD, KNN, UNBALANCED, Codes, Float, Judged, Task
from embedstore.training.train_options import TrainOptions

Say = Callable[[str], None]

KNN_PRODUCTS, LEAST_KNN = 5e11, 20_000
"""Budget of the kNN baseline in multiply-adds (a few seconds on two cores), and the fewest training items it is ever given."""
VALIDATION_SHARE = 0.15


class Trial:
    """Fits a head on all inputs of a view, plain linear ones on each alone, and a plain kNN; on the same items.

    Parameters
    ----------
    task : Task
    view : View
    options : TrainOptions
        Its device is one that is there.
    say : function of a message
    """

    def __init__(self, task: Task, view: View, options: TrainOptions, say: Say) -> None:
        self.labels = task.labels(view)
        self._task = task
        self._view = view
        self._options = options
        self._seed = options.seed
        self._say = say
        self._fit_seconds = 0.0
        self._notes: list[str] = []
        self._hashes = {name: space.hash_of(view.rows) for name, space in view.spaces.items()}

    def _make(self, kind: str, seed: int) -> Head:
        """The head that is asked for, helping rare classes if that is asked for too."""
        if self._options.balance is not None:
            return BalancedHead(kind, self._options.balance, seed=seed, device=self._options.device)
        return self._plain(kind, seed)

    def _plain(self, kind: str, seed: int) -> Head:
        return self._task.make_head(kind, device=self._options.device, seed=seed)

    def holdout(self) -> Judged:
        """Everything is chosen on the validation split, and judged on the test split."""
        fit, val, test = self._three_way()
        head, outputs = self._fold(fit, val, test, "")
        self._say("copies across the split")
        every = np.concatenate([fit, val])
        by = "column 'split'" if self._view.split_column else f"hashed {self._view.group_name or 'id'}"
        return Judged(
            self._task,
            self.labels,
            head,
            fitted_on=every,
            test=test,
            outputs=outputs,
            evaluation=f"{len(test):,} test items, split by {by}",
            sizes={"train": len(fit), "val": len(val), "test": len(test)},
            split=self._view.split,
            seeds=self._over_seeds(head, outputs[HEAD], [(fit, val, test)], test),
            copies=self._copies(every, test),
            fit_seconds=self._fit_seconds,
            witness=(head, every, test),
            notes=self._notes,
        )

    def cross_validate(self, k: int) -> Judged:
        """All items, each judged by heads that did not see its fold; and a head fitted on all."""
        view, every = self._view, np.arange(len(self.labels))
        if view.groups is None:
            folds = stratified_folds(self._task.strata(self.labels), view.ids.tolist(), k, seed=self._seed)
        else:
            folds = grouped_folds(self._task.strata(self.labels), view.groups, k, seed=self._seed)
        outputs: dict[str, Float] = {}
        copies: Copies | None = None
        parts = []
        for fold in range(k):
            inside, test = every[folds != fold], every[folds == fold]
            parts.append((*self._validation(inside), test))
            judge, predicted = self._fold(*parts[-1], f", fold {fold + 1} of {k}")
            witness = (judge, inside, test)
            for name, p in predicted.items():
                outputs.setdefault(name, np.empty((len(every), *p.shape[1:])))[test] = p
            found = self._copies(inside, test)
            copies = found if copies is None else copies + found
        self._say("final fit on all items")
        fit, val = self._validation(every)
        head = self._fit(self._make(self._options.head, self._seed), fit, val, view.names)
        grouped = f", {view.group_name} kept together" if view.groups is not None else ""
        return Judged(
            self._task,
            self.labels,
            head,
            fitted_on=every,
            test=every,
            outputs=outputs,
            evaluation=f"{k}-fold cross-validation over {len(every):,} items{grouped}",
            sizes={"train": len(fit), "val": len(val), "test": len(every)},
            split=folds.astype(str),
            seeds=self._over_seeds(head, outputs[HEAD], parts, every),
            copies=copies or Copies.none(),
            fit_seconds=self._fit_seconds,
            witness=witness,
            notes=self._notes,
        )

    def _fold(self, fit: Codes, val: Codes, test: Codes, where: str) -> tuple[Head, dict[str, Float]]:
        """The head, and what it and the baselines say of the test items (t, …)."""
        names = self._view.names
        self._say(f"head{where}")
        start = time.perf_counter()
        head = self._fit(self._make(self._options.head, self._seed), fit, val, names)
        self._fit_seconds = time.perf_counter() - start
        outputs = {HEAD: self._predict(head, test, names)}
        outputs[self._task.constant] = self._task.constant_outputs(self.labels.take(np.concatenate([fit, val])), len(test))
        if self._options.balance is not None:
            self._say(f"the same without balance{where}")
            plain = self._fit(self._plain(self._options.head, self._seed), fit, val, names)
            outputs[UNBALANCED] = self._predict(plain, test, names)
        self._say(f"kNN{where}")
        share, self._notes = knn_share(len(fit) + len(val), len(test), sum(self._view.inputs[name].shape[-1] for name in names))
        knn = self._fit(self._task.plain_knn(), drawn(fit, share, self._seed), drawn(val, share, self._seed), names)
        outputs[KNN] = self._predict(knn, test, names)
        for name in names if len(names) > 1 else ():
            self._say(f"{name} alone{where}")
            outputs[name] = self._predict(self._fit(self._task.plain_linear(), fit, val, [name]), test, [name])
        return head, outputs

    def _over_seeds(self, head: Head, first: Float, parts: Sequence[tuple[Codes, Codes, Codes]], judged: Codes) -> list[float]:
        """The main score over `judged` with `seeds` seeds, of which the first is known."""
        kind = head.chosen_ if isinstance(head, AutoHead | AutoLabeller) else self._options.head
        if kind not in HEADS or not self._plain(kind, self._seed).stochastic:
            return []
        truth = self.labels.truth[judged]
        found = [self._task.main_score(truth, first)]
        names = self._view.names
        for i in range(1, self._options.seeds):
            self._say(f"seed {i + 1} of {self._options.seeds}")
            again = np.empty((len(self.labels), *first.shape[1:]))
            for fit, val, test in parts:
                again[test] = self._predict(self._fit(self._make(kind, self._seed + i), fit, val, names), test, names)
            found.append(self._task.main_score(truth, again[judged]))
        return found

    def _fit(self, head: Head, fit: Codes, val: Codes, names: Sequence[str]) -> Head:
        X, present = self._take(fit, names)
        v_X, v_present = self._take(val, names)
        return head.fit(X, self.labels.values[fit], present=present, validation=(v_X, self.labels.values[val], v_present))

    def _predict(self, head: Head, items: Codes, names: Sequence[str]) -> Float:
        X, present = self._take(items, names)
        return self._task.outputs(head, X, present, self.labels)

    def _take(self, items: Codes, names: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
        view = self._view
        return {n: view.inputs[n][items] for n in names}, {n: view.present[n][items] for n in names}

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
