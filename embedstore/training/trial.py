"""A trial: one kind of head and its baselines, fitted on some items of a view and judged on others."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from embedstore._version import __version__
from embedstore.errors import HeadError
from embedstore.evaluation.copies import Copies, find_copies, same_items
from embedstore.evaluation.tuned import Tuned
from embedstore.heads import AutoHead, AutoLabeller, Head
from embedstore.heads.balanced import BalancedHead
from embedstore.heads.class_texts import ClassTexts
from embedstore.heads.held_out import TEST, OutOfFold
from embedstore.heads.matcher import Matcher
from embedstore.heads.settled import settled
from embedstore.registry import heads_for
from embedstore.store import View
from embedstore.training.fed import fed, takes_pieces
from embedstore.training.folds import made_folds, to_choose_on
from embedstore.training.kept import can_keep, keep
from embedstore.training.knn_share import drawn, knn_share
from embedstore.training.shots import ShotCurve, shot_curve
from embedstore.training.tasks.base import HEAD, KNN, POOLED, UNBALANCED, UNTUNED, Array, Codes, Float, Judged, Task
from embedstore.training.train_options import TrainOptions
from embedstore.training.tuning import Study, tune

Say = Callable[[str], None]

TUNING_FOLDS = 3
"""Of the training items of a split or fold: every trial of tuning is scored on all of them."""
COARSE = {"tolerance": 1e-3}
"""How near to the least objective a head comes that only serves to score a trial, where it has a say in that."""
ALL_ITEMS = "all items"


class Trial:
    """Fits a head on all inputs of a view, plain linear ones on each alone, and a plain kNN; on the same items.

    Parameters
    ----------
    task : Task
    view : View
    options : TrainOptions
        Its device is one that is there.
    say : function of a message
    texts : ClassTexts, optional
        What heads begin with that begin with the names of classes.
    """

    def __init__(self, task: Task, view: View, options: TrainOptions, say: Say, *, texts: ClassTexts | None = None) -> None:
        self.labels = task.labels(view)
        self._task = task
        self._view = view
        self._options = options
        self._seed = options.seed
        self._say = say
        self._texts = texts
        self._fit_seconds = 0.0
        self._notes: list[str] = []
        self._alike: list[str] = []
        self._hashes = view.hashes
        self._same = same_items(self._hashes, view.present, view.groups)
        self._alone: dict[str, Head] = {}
        self._studies: list[Tuned] = []

    def _make(self, kind: str, seed: int, params: Mapping[str, Any] | None = None) -> Head:
        """The head that is asked for, with the parameters found, helping rare classes if that is asked for too."""
        if self._options.balance is not None:
            return BalancedHead(kind, self._options.balance, seed=seed, device=self._options.device)
        return self._plain(kind, seed, params)

    def _plain(self, kind: str, seed: int, params: Mapping[str, Any] | None = None) -> Head:
        given = {**self._known, **(params or {})}
        return self._task.make_head(kind, **given, device=self._options.device, seed=seed)

    @property
    def _known(self) -> dict[str, Any]:
        """What heads are told beside their parameters."""
        weights = {} if self._options.weights is None else {"target_weights": self._options.weights}
        return weights if self._texts is None else {**weights, "texts": self._texts}

    def _rivals(self) -> dict[str, Head]:
        """Heads on all inputs that the one asked for is judged beside."""
        kind = self._options.head
        if self._options.balance is not None:
            return {UNBALANCED: self._on_means(kind)}  # as what helps rare classes is given them
        rivals = self._task.rivals(kind, device=self._options.device, seed=self._seed)
        return {POOLED: self._on_means(kind), **rivals} if takes_pieces(self._plain(kind, self._seed), self._view) else rivals

    def _on_means(self, kind: str) -> Head:
        """A head like the one asked for that gets one vector an item."""
        head = self._plain(kind, self._seed)
        head.takes_sequences = False  # type: ignore[misc]  # of this one alone
        return head

    def _tuned(self, items: Codes, part: str) -> dict[str, Any]:
        """Parameters with the best score in folds of `items`, the only ones looked at; none where no tuning is asked for."""
        options = self._options
        if options.tune is None:
            return {}
        head = self._plain(options.head, self._seed)
        k = min(TUNING_FOLDS, len(set(self._same[items].tolist())))
        if k < 2:
            raise HeadError(f"Tuning needs items to fit on and others to score on; {part} has {len(items)}, all of one kind.")
        folds = self._folds(items, k, self._seed + 2)
        study = Study(part, self._about(items, folds), head, options.tune_by, options.tune, self._seed)

        def score(params: Mapping[str, Any]) -> float:
            worth = np.empty(len(items))
            for fold in range(k):
                fit, val = self._validation(items[folds != fold])
                outside = items[folds == fold]
                made = self._fit(self._plain(options.head, self._seed, {**COARSE, **params}), fit, val, self._view.names)
                outputs = self._predict(made, outside, self._view.names)
                worth[folds == fold] = self._task.worth(self.labels.truth[outside], outputs)
            return float(worth.mean())

        name = str(options.name or self._view.target_name)
        found = tune(self._view.store.path / "heads" / name, study, score, self._say)
        self._studies.append(found)
        return dict(found.settings)

    def _about(self, items: Codes, folds: Codes) -> dict[str, Any]:
        """All that the scores of trials depend on, beside the parameters."""
        view, options = self._view, self._options
        return {
            "version of embedstore": __version__,
            "head": options.head,
            "task": self._task.name,
            "target": view.target_name,
            "inputs": {name: spec.fingerprint for name, spec in view.specs.items()},
            "columns": None if view.columns is None else view.columns.to_dict(),
            "generation of the store": view.store.generation,
            "items and labels": _digest(view.rows, self.labels.values),
            "split": _digest(view.rows[items], folds),
            "seed": options.seed,
            "device": options.device,
            "way of proposing": options.tune_by,
            "parameters": {name: repr(tried) for name, tried in self._plain(options.head, 0).tunable.items()},
        }

    def holdout(self) -> Judged:
        """Everything is chosen on the validation split, and judged on the test split."""
        fit, val, test = self._three_way()
        head, outputs = self._fold(fit, val, test, "")
        every = np.sort(np.concatenate([fit, val]))
        kept, kept_seconds = self._cross_fit(head, every, test, outputs)
        self._say("copies across the split")
        return Judged(
            self._task,
            self.labels,
            head,
            fitted_on=every,
            test=test,
            outputs=outputs,
            evaluation=f"{len(test):,} test {self._view.unit}, split by {self._split_by}",
            sizes={"train": len(fit), "val": len(val), "test": len(test)},
            split=self._view.split,
            seeds=self._over_seeds(head, outputs[HEAD], [(fit, val, test)], test),
            copies=self._copies(every, test),
            fit_seconds=self._fit_seconds,
            witness=(head, every, test),
            notes=[*self._notes, *self._alike],
            kept=kept,
            out_of_fold_seconds=kept_seconds,
            tuned=self._studies,
        )

    def cross_validate(self, k: int) -> Judged:
        """All items, each judged by heads that did not see its fold; and a head fitted on all."""
        view, every = self._view, np.arange(len(self.labels))
        folds = self._folds(every, k, self._seed)
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
        head = self._fit(self._make(self._options.head, self._seed, self._tuned(every, ALL_ITEMS)), fit, val, view.names)
        if self._options.out_of_fold:
            outputs[HEAD], head.calibration_ = self._calibrated(outputs[HEAD], every, folds)
        return Judged(
            self._task,
            self.labels,
            head,
            fitted_on=every,
            test=every,
            outputs=outputs,
            evaluation=f"{k}-fold cross-validation over {len(every):,} items{self._together}",
            sizes={"train": len(fit), "val": len(val), "test": len(every)},
            split=folds.astype(str),
            seeds=self._over_seeds(head, outputs[HEAD], parts, every),
            copies=copies or Copies.none(),
            fit_seconds=self._fit_seconds,
            witness=witness,
            notes=[*self._notes, *self._alike],
            kept=keep(self._task, view, self.labels, folds.astype(str), outputs) if self._options.out_of_fold else (),
            tuned=[*self._studies[-1:], *self._studies[:-1]],
        )

    def shots(self, counts: Sequence[int], *, never: Codes) -> ShotCurve:
        """The head and plain ones with few items a class; items at positions `never` (m,) are never judged."""
        judged = np.ones(len(self.labels), bool)
        judged[never] = False
        first = self._plain("zeroshot", self._seed) if self._texts is not None else None
        compared = {HEAD: lambda: self._make(self._options.head, self._seed)}
        compared |= {KNN: self._task.plain_knn, "linear": self._task.plain_linear}
        return shot_curve(
            self._task,
            self._view,
            self.labels,
            compared,
            counts,
            zero_shot=first,
            same=self._same,
            judged=judged,
            seed=self._seed,
            say=self._say,
        )

    def parts(self, k: int | None) -> tuple[list[tuple[Codes, Codes, Codes]], str]:
        """Items to fit on, to choose on and to judge on: of the split, or of each of `k` folds; and what that is in words."""
        if k is None:
            parts = [self._three_way()]
            return parts, f"{len(parts[0][-1]):,} test items, split by {self._split_by}"
        every = np.arange(len(self.labels))
        folds = self._folds(every, k, self._seed)
        found = [(*self._validation(every[folds != fold]), every[folds == fold]) for fold in range(k)]
        return found, f"{k}-fold cross-validation over {len(every):,} items{self._together}"

    def tried(self, names: Sequence[str], parts: Sequence[tuple[Codes, Codes, Codes]]) -> tuple[Float, float]:
        """What heads on some of the inputs say of the items that `parts` judge, in their order; seconds of the last fit."""
        found, seconds = [], 0.0
        for fit, val, test in parts:
            start = time.perf_counter()
            head = self._fit(self._make(self._options.head, self._seed), fit, val, names)
            seconds = time.perf_counter() - start
            found.append(self._predict(head, test, names))
        return np.concatenate(found), seconds

    @property
    def _split_by(self) -> str:
        return "column 'split'" if self._view.split_column else f"hashed {self._view.group_name or 'id'}"

    @property
    def _together(self) -> str:
        return f", {self._view.group_name} kept together" if self._view.groups is not None else ""

    def _fold(self, fit: Codes, val: Codes, test: Codes, where: str) -> tuple[Head, dict[str, Float]]:
        """The head, and what it and the baselines say of the test items (t, …)."""
        names = self._view.names
        params = self._tuned(np.sort(np.concatenate([fit, val])), where.removeprefix(", ") or "the training split")
        self._say(f"head{where}")
        start = time.perf_counter()
        head = self._fit(self._make(self._options.head, self._seed, params), fit, val, names)
        self._fit_seconds = time.perf_counter() - start
        outputs = {HEAD: self._predict(head, test, names)}
        if self._options.tune is not None:
            self._say(f"the same, not tuned{where}")
            plain = self._fit(self._plain(self._options.head, self._seed), fit, val, names) if params else head
            outputs[UNTUNED] = self._predict(plain, test, names)
        outputs[self._task.constant] = self._task.constant_outputs(self.labels.take(np.concatenate([fit, val])), len(test))
        for name, rival in self._rivals().items():
            self._say(f"{self._task.title(name)}{where}")
            outputs[name] = self._predict(self._fit(rival, fit, val, names), test, names)
        for name, plain in self._task.baselines().items():
            self._say(f"{self._task.title(name)}{where}")
            width = sum(self._view.inputs[one].shape[-1] for one in names)
            share, self._notes = knn_share(len(fit) + len(val), len(test), width) if name == KNN else (1.0, [])
            fitted = self._fit(plain, drawn(fit, share, self._seed), drawn(val, share, self._seed), names)
            outputs[name] = self._predict(fitted, test, names)
        for name in names if len(names) > 1 else ():
            self._say(f"{name} alone{where}")
            self._alone[name] = self._fit(self._task.plain_linear(), fit, val, [name])
            outputs[self._task.linear_on(name)] = self._predict(self._alone[name], test, [name])
        return head, outputs

    def _folds(self, items: Codes, k: int, seed: int) -> Codes:
        """Fold (m,) of each of `items`; copies and groups stay together."""
        strata, view = self._task.strata(self.labels)[items], self._view
        return made_folds(strata, view.ids[items], self._same[items], k, seed=seed, grouped=view.groups is not None)

    def _cross_fit(self, head: Head, every: Codes, test: Codes, outputs: dict[str, Float]) -> tuple[Sequence[OutOfFold], float]:
        """Predictions of all items, and seconds: of `every` by heads that did not see its fold, of `test` in `outputs` already.

        The heads are like `head`, and choose nothing that it has chosen. Where these predictions say that another temperature
        would be more honest, `head` gets it, and what it says of `test` in `outputs` is replaced.
        """
        k = min(self._options.out_of_fold, len(set(self._same[every].tolist())))
        if k < 2 or not can_keep(self._task, self.labels.take(test), {HEAD: outputs[HEAD]}):
            return (), 0.0
        start, folds = time.perf_counter(), self._folds(every, k, self._seed + 1)
        alone = {self._task.linear_on(name): (plain, [name]) for name, plain in self._alone.items()}
        likes = {HEAD: (head, self._view.names), **alone}
        found = {name: np.zeros((len(self.labels), *outputs[name].shape[1:])) for name in likes}
        try:
            for fold in range(k):
                self._say(f"out of fold, {fold + 1} of {k}")
                fit, val = self._validation(every[folds != fold])
                if not self._task.learnable(self.labels.take(fit)):
                    raise HeadError(f"without fold {fold + 1} of {k} there is nothing to learn from")
                left_out = every[folds == fold]
                for name, (like, inputs) in likes.items():
                    found[name][left_out] = self._predict(self._fit(settled(like), fit, val, inputs), left_out, inputs)
        except HeadError as error:
            self._notes = [*self._notes, f"no out-of-fold predictions are kept: {error}"]
            return (), 0.0
        found[HEAD][every], head.calibration_ = self._calibrated(found[HEAD][every], every, folds)
        if head.calibration_ != 1:
            outputs[HEAD] = self._predict(head, test, self._view.names)
        for name, of_all in found.items():
            of_all[test] = outputs[name]
        named = np.full(len(self.labels), TEST, object)
        named[every] = folds.astype(str)
        return keep(self._task, self._view, self.labels, named, found), time.perf_counter() - start

    def _calibrated(self, outputs: Float, items: Codes, folds: Codes) -> tuple[Float, float]:
        groups = None if self._view.groups is None else self._view.groups[items]
        return self._task.calibrated(outputs, self.labels.truth[items], folds, groups)

    def _over_seeds(self, head: Head, first: Float, parts: Sequence[tuple[Codes, Codes, Codes]], judged: Codes) -> list[float]:
        """The main score over `judged` with `seeds` seeds, of which the first is known."""
        inside = head.member_ if isinstance(head, BalancedHead | Matcher) else head
        kind = inside.chosen_ if isinstance(inside, AutoHead | AutoLabeller) else self._options.head
        if kind not in heads_for(self._task.heads) or not self._plain(kind, self._seed).stochastic:
            return []
        truth = self.labels.truth[judged]
        found = [self._task.main_score(truth, first)]
        names = self._view.names
        for i in range(1, self._options.seeds):
            self._say(f"seed {i + 1} of {self._options.seeds}")
            again = np.empty((len(self.labels), *first.shape[1:]))
            for part, (fit, val, test) in enumerate(parts):
                made = self._make(kind, self._seed + i, self._studies[part].settings if self._studies else None)
                again[test] = self._predict(self._fit(made, fit, val, names), test, names)
            found.append(self._task.main_score(truth, again[judged]))
        return found

    def _fit(self, head: Head, fit: Codes, val: Codes, names: Sequence[str]) -> Head:
        X, present = self._take(head, fit, names)
        v_X, v_present = self._take(head, val, names)
        return head.fit(X, self.labels.values[fit], present=present, validation=(v_X, self.labels.values[val], v_present))

    def _predict(self, head: Head, items: Codes, names: Sequence[str]) -> Float:
        X, present = self._take(head, items, names)
        return self._task.outputs(head, X, present, self.labels)

    def _take(self, head: Head, items: Codes, names: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
        view, inputs = self._view, fed(head, self._view)
        return {n: inputs[n][items] for n in names}, {n: view.present[n][items] for n in names}

    def _copies(self, train: Codes, test: Codes) -> Copies:
        view = self._view
        if not self._task.looks_for_copies:
            return Copies.none()
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
        view = self._view
        if view.groups is not None and len(set(view.groups[items].tolist())) == 1:
            self._alike = [
                f"one value of {view.group_name!r} alone is left to fit on: heads choose on other items that have it"
            ]
        chosen = to_choose_on(view.keys[items], view.ids[items], seed=self._seed + 1_000_003)
        return items[~chosen], items[chosen]


def _digest(*arrays: Array) -> str:
    """A few letters that stand for the values of arrays (n,)."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(repr(array.tolist()).encode())
    return digest.hexdigest()[:16]
