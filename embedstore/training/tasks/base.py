"""What a task is: all that depends on what a target asks of a head. A new task is one small class.

`train`, `evaluate`, `predict` and the report ask a `Task`; none of them knows what it is called. Tasks are found by name among
the entry points of the group ``embedstore.tasks``; ours are registered the same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from embedstore.errors import UsageError
from embedstore.evaluation.bootstrap import Bootstrap
from embedstore.evaluation.copies import EVERY, LEAST_JUDGED, Copies
from embedstore.evaluation.metrics import Score
from embedstore.evaluation.target_scores import TargetScores
from embedstore.evaluation.tuned import Tuned
from embedstore.heads import Head, make_head
from embedstore.heads.held_out import OutOfFold
from embedstore.heads.io import HeadRecord
from embedstore.registry import TASKS
from embedstore.store import Store, View
from embedstore.training.evaluate_options import EvaluateOptions
from embedstore.training.tasks.values import (
    ALONE,
    CLASSES,
    DEFAULT,
    HEAD,
    KNN,
    MAJORITY,
    MULTILABEL,
    POOLED,
    SEVERAL,
    UNBALANCED,
    UNTUNED,
    Array,
    Codes,
    Float,
    Labels,
    Predicted,
    Scores,
)
from embedstore.training.train_options import TrainOptions

__all__ = [
    "ALONE", "CLASSES", "DEFAULT", "HEAD", "KNN", "MAJORITY", "MULTILABEL", "POOLED", "SEVERAL", "UNBALANCED", "UNTUNED",
    "Array", "Codes", "Float", "Judged", "Labels", "Part", "Predicted", "Scores", "Task", "task_called", "task_for",
]  # fmt: skip


@dataclass(frozen=True)
class Judged:
    """A fitted head and what it and its baselines say of items they did not see.

    Parameters
    ----------
    task : Task
    labels : Labels
        Of all n items of the view.
    head : Head
    fitted_on : (m,) positions in the view
    test : (t,) positions
    outputs : dict of name to (t, …)
        Of ``"head"`` and of the baselines, see `Task.outputs`.
    evaluation : str
        What `test` is, in words.
    sizes : dict
    split : (n,) str
    copies : Copies
    witness : (Head, fitted on, test)
        A head like `head` for closer looks, and the items it was and was not fitted on.
    seeds : sequence of float
        The main score of the head with each seed, if it depends on one.
    fit_seconds : float
        Of the head alone.
    notes : sequence of str
        What people should know about the baselines.
    kept : sequence of OutOfFold
        What is kept with the head, one a target.
    out_of_fold_seconds : float
        What it cost beside the rest.
    tuned : sequence of Tuned
        How the parameters of the head were found, then those of the heads that judge its folds.
    """

    task: Task
    labels: Labels
    head: Head
    fitted_on: Codes
    test: Codes
    outputs: dict[str, Float]
    evaluation: str
    sizes: dict[str, int]
    split: Array
    copies: Copies
    witness: tuple[Head, Codes, Codes]
    seeds: Sequence[float] = ()
    fit_seconds: float = 0.0
    notes: Sequence[str] = ()
    kept: Sequence[OutOfFold] = ()
    out_of_fold_seconds: float = 0.0
    tuned: Sequence[Tuned] = ()

    @cached_property
    def truth(self) -> Array:
        """What the outputs are compared with (t, …)."""
        return np.asarray(self.labels.truth[self.test])

    @property
    def out_of_fold(self) -> OutOfFold | None:
        """What is kept of the only target."""
        return self.kept[0] if len(self.kept) == 1 else None

    def bootstrap(self, view: View, seed: int) -> Bootstrap:
        """Resamples of the test items, or of their groups."""
        groups = None if view.groups is None else view.groups[self.test]
        return Bootstrap.of(len(self.test), groups=groups, seed=seed)

    def metrics(self, bootstrap: Bootstrap) -> Scores:
        """The scores of the head."""
        return self.task.scores(self.truth, self.outputs[HEAD], bootstrap)

    def baselines(self, bootstrap: Bootstrap) -> dict[str, Scores]:
        """The scores of each baseline."""
        named = self.outputs.items()
        return {name: self.task.baseline_scores(self.truth, found, bootstrap) for name, found in named if name != HEAD}

    def gain(self, bootstrap: Bootstrap) -> tuple[str, Score]:
        """The best baseline, and how much more the head's outputs are worth than its outputs, paired by item."""
        worth = {name: self.task.worth(self.truth, found) for name, found in self.outputs.items()}
        mine = worth.pop(HEAD)
        if not worth:
            return "nothing", Score(float("nan"), float("nan"), float("nan"))
        best = max(worth, key=lambda name: float(worth[name].mean()))
        return best, bootstrap.mean(mine - worth[best])

    def gain_over(self, name: str, bootstrap: Bootstrap) -> Score:
        """How much more the head's outputs are worth than those of a baseline, paired by item."""
        mine, its = (self.task.worth(self.truth, self.outputs[one]) for one in (HEAD, name))
        return bootstrap.mean(mine - its)

    def without_copies(self, view: View, seed: int) -> Score | None:
        """The worth of the head's outputs over the items that have no near copy in training.

        None if no item has a copy, if few have none, or if the task does not report it.
        """
        at = np.isin(self.test, self.copies.checked[~self.copies.near[EVERY]])
        if not self.task.reports_without_copies or at.sum() < LEAST_JUDGED or at.sum() == len(self.copies.checked):
            return None
        groups = None if view.groups is None else view.groups[self.test[at]]
        worth = self.task.worth(self.truth[at], self.outputs[HEAD][at])
        return Bootstrap.of(int(at.sum()), groups=groups, seed=seed).mean(worth)


@dataclass(frozen=True)
class Part:
    """One target of a task.

    Parameters
    ----------
    task : Task
        The one that it would be alone.
    labels : Labels
        Of the m items that have it.
    there : (n,) bool
        Which those are.
    outputs : mapping of name to (m, …)
        As `task` has them.
    """

    task: Task
    labels: Labels
    there: Array
    outputs: Mapping[str, Float]


class Task:
    """What a target asks of a head.

    A task has no state. A subclass defines at least `name`, `heads`, `lead`, `headlines`, `labels`, `evaluation_labels`,
    `plain_knn`, `plain_linear`, `constant_outputs`, `scores` and `worth`; the rest has defaults that fit many tasks.
    ``tests/contracts/toy_task.py`` is a small one.
    """

    name: ClassVar[str]
    heads: ClassVar[str]
    """The heads that serve it: their `Head.task`. Others than ours are entry points of ``embedstore.heads.`` and this."""
    lead: ClassVar[str]
    """The metric whose value, up to its sign, is the mean of `worth`; gains over baselines are in it."""
    headlines: ClassVar[Mapping[str, str]]
    """The metrics that a terminal shows beside those of the baselines, and their titles."""
    compared: ClassVar[Sequence[str]] = ()
    """The metrics that a report shows beside those of the baselines; all, if empty."""
    constant: ClassVar[str] = "constant"
    """The name of the baseline that says the same of every item."""
    titles: ClassVar[Mapping[str, str]] = {}
    """Baselines in words, where their names are not; those of `rivals` are among them."""
    needs_target: ClassVar[bool] = True
    """Whether it learns a column; one that does not makes its own `view`."""
    looks_for_copies: ClassVar[bool] = True
    """Whether copies across the split are counted: they are, but where the task's view has none."""
    reports_without_copies: ClassVar[bool] = False
    """Whether `lead` is reported a second time, over the items that have no copy in training."""

    # What the target is

    def claims(self, view: View) -> bool:
        """Whether a target is this task's, where the user has named none."""
        return False

    def view(self, store: Store, options: TrainOptions) -> tuple[View, list[str]]:
        """What a task that needs no target is trained on, with its target, and what people should know of it."""
        raise NotImplementedError

    def view_to_judge(self, store: Store, record: HeadRecord, options: EvaluateOptions, never: Array) -> tuple[View, list[str]]:
        """The same for a saved head: of items whose ids are `never` (n,) among those given."""
        raise NotImplementedError

    def labels(self, view: View) -> Labels:
        """Those of a view whose target a head is to learn.

        Raises
        ------
        HeadError
            They are not fit for it; says why, and names the item where it is one.
        """
        raise NotImplementedError

    def evaluation_labels(self, record: HeadRecord, views: Sequence[View]) -> list[Labels]:
        """Those of several views on which a saved head is judged, with the same classes for all of them.

        Raises
        ------
        HeadError
            A value is of another type than those that the head learned.
        """
        raise NotImplementedError

    def strata(self, labels: Labels) -> Array:
        """What folds are balanced by (n,)."""
        return np.zeros(len(labels), np.int64)

    # The heads that learn it

    def make_head(self, kind: str, **params: Any) -> Head:
        """A new head; parameters that it does not have are left out.

        Raises
        ------
        UsageError
            There is no such kind, or none for this task.
        """
        return make_head(kind, task=self.heads, **params)

    def plain_knn(self) -> Head:
        """The kNN baseline: nothing about it is tuned."""
        raise NotImplementedError

    def plain_linear(self) -> Head:
        """The baseline on each input alone."""
        raise NotImplementedError

    def rivals(self, kind: str, **params: Any) -> dict[str, Head]:
        """New heads on all inputs that one of `kind` is judged beside, by the names of these baselines; by default none."""
        return {}

    def baselines(self) -> dict[str, Head]:
        """Heads on all inputs that a head is judged beside, whatever its kind, by name."""
        return {KNN: self.plain_knn()}

    def learnable(self, labels: Labels) -> bool:
        """Whether the plain kNN can be fitted to them."""
        return len(labels) > 1

    # What heads say of items

    def outputs(self, head: Head, X: Mapping[str, Array], present: Mapping[str, Array], labels: Labels) -> Float:
        """What a head says of items (n, …), in the order of the classes of `labels`."""
        return head.outputs(X, present=present)

    def constant_outputs(self, labels: Labels, n: int) -> Float:
        """The same outputs (n, …) for n items: the best that can be said of items like `labels` without looking at them."""
        raise NotImplementedError

    def predicted(self, head: Head, outputs: Float) -> Predicted:
        """The predictions in the head's own outputs (n, …)."""
        return Predicted(outputs, np.empty((len(outputs), 0)), np.empty(0))

    def kept(self, outputs: Float, labels: Labels) -> Predicted | None:
        """The predictions in `outputs` (n, …), which are in the order of the classes of `labels`, to be kept with a head.

        None where a row of the file of `OutOfFold` cannot hold them.
        """
        return Predicted(outputs, np.empty((len(outputs), 0)), np.empty(0)) if outputs.ndim == 1 else None

    def apart(self, labels: Labels, outputs: Mapping[str, Float]) -> list[Part]:
        """`labels` and `outputs` (n, …) by name, target by target."""
        return [Part(self, labels, np.ones(len(labels), bool), outputs)]

    def calibrated(self, outputs: Float, truth: Array, folds: Array, groups: Array | None) -> tuple[Float, float]:
        """Held-out outputs (n, …) made more honest, and what that makes the head's `calibration_`; by default left as they are.

        Parameters
        ----------
        truth, folds, groups : (n, …), (n,), (n,)
        """
        return outputs, 1.0

    def explained(self, head: Head, outputs: Float) -> dict[str, Codes]:
        """Which of the head's own outputs of an item (n, …), flattened, is to be explained (n,), by what stands before inputs.

        By default one, the largest.
        """
        return {"": outputs.reshape(len(outputs), -1).argmax(axis=1)}

    def columns(self, found: Predicted) -> dict[str, Sequence[Any]]:
        """The columns of a table of predictions, beside the ids."""
        columns: dict[str, Sequence[Any]] = {"prediction": found.labels.tolist()}
        if len(found.classes):
            columns["probability"] = found.probabilities.max(axis=1).tolist() if len(found.labels) else []
        return columns | {f"p:{name}": found.probabilities[:, k].tolist() for k, name in enumerate(found.class_names())}

    def rows(self, found: Predicted) -> list[dict[str, Any]]:
        """The same as JSON values, one mapping an item."""
        names = found.class_names()
        rows: list[dict[str, Any]] = [{"prediction": label} for label in found.labels.tolist()]
        for row, p in zip(rows, found.probabilities.tolist() if names else (), strict=False):
            rounded = {name: round(value, 6) for name, value in zip(names, p, strict=True)}
            row |= {"probability": round(max(p), 6), "probabilities": rounded}
        return rows

    # How good they are

    def scores(self, truth: Array, outputs: Float, bootstrap: Bootstrap) -> Scores:
        """Every metric of a head's outputs (n, …), the most important one first."""
        raise NotImplementedError

    def paired(self, truth: Array, before: Float, after: Float, bootstrap: Bootstrap) -> dict[str, Score]:
        """How much some metrics of outputs `after` (n, …) are above those of outputs `before`, paired by item."""
        return {self.lead: bootstrap.mean(self.worth(truth, after) - self.worth(truth, before))}

    def by_target(self, judged: Judged, bootstrap: Bootstrap) -> dict[str, TargetScores]:
        """The scores of each of several targets."""
        return {}

    def baseline_scores(self, truth: Array, outputs: Float, bootstrap: Bootstrap) -> Scores:
        """The metrics of a baseline's outputs."""
        return self.scores(truth, outputs, bootstrap)

    def worth(self, truth: Array, outputs: Float) -> Float:
        """What each output is worth (n,), the more the better. The gain of one head over another is the mean difference."""
        raise NotImplementedError

    def main_score(self, truth: Array, outputs: Float) -> float:
        """The first of `scores`, without an interval."""
        scores = self.scores(truth, outputs, Bootstrap.of(len(truth), resamples=1))
        return next(iter(scores.values())).value

    # What people are told

    def notes(self, judged: Judged) -> list[str]:
        """What people should know of the labels that a head was trained on, before they believe its scores."""
        return []

    def evaluation_notes(self, judged: Judged) -> list[str]:
        """What people should know of the labels that a saved head was evaluated on."""
        return []

    def sections(self, view: View, judged: Judged, seed: int) -> dict[str, Any]:
        """What the report shows beside scores and baselines: fields of `embedstore.reports.data.ReportData`."""
        return {}

    def title(self, baseline: str) -> str:
        """A baseline in words."""
        own = {KNN: "kNN (k = 8)", UNTUNED: "the same, not tuned", POOLED: "the same on the mean of pieces"}
        return {**own, **self.titles}.get(baseline, baseline)

    def linear_on(self, name: str) -> str:
        """What `plain_linear` on the input `name` is called: like the input, but where something else that is judged is."""
        taken = {HEAD, UNTUNED, POOLED, UNBALANCED, self.constant, *self.titles, *self.baselines()}
        return f"linear on {name}" if name in taken else name


def task_called(name: str) -> Task:
    """The task called `name`; `UsageError` lists those there are."""
    if name not in TASKS:
        raise UsageError(f"task should be {' or '.join(TASKS)}. Got {name!r} instead.")
    found: Task = TASKS.get(name)()
    return found


def task_for(view: View) -> Task:
    """The task of embedstore's own that claims the target of `view`, or else `DEFAULT`; others are asked for by name."""
    named = (task_called(name) for name in TASKS.order if name != DEFAULT)
    return next((task for task in named if task.claims(view)), None) or task_called(DEFAULT)
