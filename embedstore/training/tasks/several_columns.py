"""Several targets: classes and numbers, any of which an item may lack. Each is judged by the task that it would be alone.

Labels are structured arrays (n,) with a field for each target, as `TargetsHead` has them; the truth has float64 fields: class
codes and numbers, NaN where an item lacks the target. Outputs are (n, t, w): log-probabilities or a number, then NaN.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from embedstore.errors import HeadError
from embedstore.evaluation.bootstrap import Bootstrap
from embedstore.evaluation.target_scores import TargetScores
from embedstore.heads import Head, KnnTargets, LinearTargets, TargetsHead
from embedstore.heads.base import Inputs
from embedstore.heads.io import HeadRecord
from embedstore.heads.several_targets import NUMBERS, names_of, strata_of
from embedstore.heads.targets_apart import ApartTargets, EachAlone
from embedstore.store import View
from embedstore.training.label_notes import number_notes
from embedstore.training.target_section import target_section
from embedstore.training.tasks.base import ALONE, HEAD, Array, Codes, Float, Judged, Labels, Part, Predicted, Scores, Task
from embedstore.training.tasks.classification import IMPOSSIBLE, Classification, class_notes, labels_as_learned
from embedstore.training.tasks.multilabel import Multilabel
from embedstore.training.tasks.regression import Regression, number_labels

LEAD, CONSTANT = "mean_score", "constant"
CLASSIFICATION, REGRESSION = Classification(), Regression()


class SeveralTargets(Task):
    """Several targets, each a class or a number; gains over baselines are in the mean of their scores.

    The score of classes is accuracy, that of numbers the share of the mean distance from the median that is explained away.
    """

    name = "several"
    heads = "several"
    lead = LEAD
    headlines: ClassVar[Mapping[str, str]] = {LEAD: "mean over targets"}
    compared = (LEAD,)
    constant = CONSTANT
    titles: ClassVar[Mapping[str, str]] = {
        ALONE: "a head for each target alone",
        CONSTANT: "most frequent class, mean",
    }

    def claims(self, view: View) -> bool:
        """Whether there are several targets."""
        return len(view.target_names) > 1

    def labels(self, view: View) -> Labels:
        if not view.target_names:
            raise HeadError(f"Target {view.target_name!r} is one; the task {self.name} needs more, such as 'label,price'.")
        return _joined(view, {name: task.labels(part) for name, part, task in _parts(view)})

    def evaluation_labels(self, record: HeadRecord, views: Sequence[View]) -> list[Labels]:
        """Their classes are those of the head and those that the items have beyond them."""
        assert isinstance(record.head, TargetsHead)  # `heads` says so
        found: list[dict[str, Labels]] = [{} for _ in views]
        for (name, kind), learned in zip(record.head.targets_.items(), record.head.classes_, strict=True):
            parts = [view.of_target(name) for view in views]
            if kind == NUMBERS:
                labels = [number_labels(part) for part in parts]
            else:
                labels = labels_as_learned(learned, record.name, parts)
            for of_view, mine in zip(found, labels, strict=True):
                of_view[name] = mine
        return [_joined(view, parts) for view, parts in zip(views, found, strict=True)]

    def strata(self, labels: Labels) -> Array:
        codes = np.column_stack([labels.truth[name] for name in names_of(labels.truth)])
        return strata_of(codes, labels.classes)

    def plain_knn(self) -> Head:
        return KnnTargets(ks=(8,), temperatures=(0.1,), weights="equal")

    def plain_linear(self) -> Head:
        return LinearTargets()

    def rivals(self, kind: str, **params: Any) -> dict[str, Head]:
        """Where targets share a trunk, a head of the same kind for each target alone."""
        like = self.make_head(kind, **params)
        assert isinstance(like, TargetsHead)
        return {} if isinstance(like, ApartTargets) else {ALONE: EachAlone(like)}

    def linear_on(self, name: str) -> str:
        """Of each target there is the baseline that always says the same, too."""
        told = (super().linear_on(name), CLASSIFICATION.linear_on(name), REGRESSION.linear_on(name))
        return next((found for found in told if found != name), name)

    def learnable(self, labels: Labels) -> bool:
        """Whether each target has two classes, or two numbers."""
        for name, known in zip(names_of(labels.truth), labels.classes, strict=True):
            values = labels.truth[name][~np.isnan(labels.truth[name])]
            if (len(set(values.tolist())) if len(known) else len(values)) < 2:
                return False
        return True

    def outputs(self, head: Head, X: Inputs, present: Any, labels: Labels) -> Float:
        """Outputs (n, t, w) over all classes of `labels`, those that the head did not see next to impossible."""
        assert isinstance(head, TargetsHead)
        found = head.outputs(X, present=present)
        out = _empty(len(found), labels)
        for k, (learned, known) in enumerate(zip(head.classes_, labels.classes, strict=True)):
            if not len(known):
                out[:, k, 0] = found[:, k, 0]
                continue
            code = {label: i for i, label in enumerate(known.tolist())}
            out[:, k, : len(known)] = IMPOSSIBLE
            out[:, k, [code[label] for label in learned.tolist()]] = found[:, k, : len(learned)]
        return out

    def constant_outputs(self, labels: Labels, n: int) -> Float:
        """The frequencies of classes, the mean of numbers."""
        out = _empty(n, labels)
        for k, (name, known) in enumerate(zip(names_of(labels.truth), labels.classes, strict=True)):
            values = labels.truth[name][~np.isnan(labels.truth[name])]
            if not len(known):
                out[:, k, 0] = values.mean() if len(values) else 0.0
                continue
            counts = np.bincount(values.astype(np.int64), minlength=len(known))
            out[:, k, : len(known)] = np.log(np.maximum(counts, 0.5) / max(counts.sum(), 1))
        return out

    def predicted(self, head: Head, outputs: Float) -> Predicted:
        assert isinstance(head, TargetsHead)
        targets = {}
        said = head.decided(outputs)
        for k, (name, known) in enumerate(zip(head.targets_, head.classes_, strict=True)):
            targets[name] = Predicted(said[name], np.exp(outputs[:, k, : len(known)]), known)
        rows = [dict(zip(head.targets_, row, strict=True)) for row in said.tolist()]
        return Predicted(np.fromiter(rows, object, len(rows)), np.empty((len(rows), 0)), np.empty(0), targets)

    def apart(self, labels: Labels, outputs: Mapping[str, Float]) -> list[Part]:
        """Of each target, in their order, the items that have it."""
        parts = []
        for k, (name, known) in enumerate(zip(names_of(labels.truth), labels.classes, strict=True)):
            there = ~np.isnan(labels.truth[name])
            truth = labels.truth[name][there].astype(np.int64 if len(known) else np.float64)
            said = {one: found[there, k, : len(known)] if len(known) else found[there, k, 0] for one, found in outputs.items()}
            task = CLASSIFICATION if len(known) else REGRESSION
            parts.append(Part(task, Labels(labels.values[name][there], truth, known), there, said))
        return parts

    def explained(self, head: Head, outputs: Float) -> dict[str, Codes]:
        """Of each target the likeliest class, or the number."""
        assert isinstance(head, TargetsHead)
        width = outputs.shape[-1]
        return {
            f"{name}:": k * width + outputs[:, k, : max(1, len(known))].argmax(axis=1)
            for k, (name, known) in enumerate(zip(head.targets_, head.classes_, strict=True))
        }

    def columns(self, found: Predicted) -> dict[str, Sequence[Any]]:
        """Of each target the columns that it would have alone: ``prediction:TARGET``, ``p:TARGET:CLASS``."""
        columns = {}
        for name, part in found.targets.items():
            for column, values in super().columns(part).items():
                first, *rest = column.split(":", 1)
                columns[":".join([first, name, *rest])] = values
        return columns

    def rows(self, found: Predicted) -> list[dict[str, Any]]:
        """The keys that a target would have alone, each with a mapping of target to value."""
        rows: list[dict[str, Any]] = [{} for _ in found.labels]
        for name, part in found.targets.items():
            for row, own in zip(rows, super().rows(part), strict=True):
                for key, value in own.items():
                    row.setdefault(key, {})[name] = value
        return rows

    def scores(self, truth: Array, outputs: Float, bootstrap: Bootstrap) -> Scores:
        """The mean score, then the most telling metrics of each target: ``TARGET:METRIC``."""
        found = {LEAD: bootstrap.mean(self.worth(truth, outputs))}
        for name, there, task, mine, said in _each(truth, outputs):
            scores = task.baseline_scores(mine, said, bootstrap.take(there))
            found |= {f"{name}:{metric}": scores[metric] for metric in task.headlines}
        return found

    def worth(self, truth: Array, outputs: Float) -> Float:
        """What the outputs of an item add to the mean over targets of their scores, times the number of items."""
        total, targets = np.zeros(len(truth)), 0
        for _, there, task, mine, said in _each(truth, outputs):
            worth, targets = task.worth(mine, said), targets + 1
            if isinstance(task, Regression):
                spread = float(np.abs(mine - np.median(mine)).mean())
                worth = 1 + worth / (spread or 1.0)
            total[there] += worth * (len(truth) / len(mine))
        return total / max(targets, 1)

    def main_score(self, truth: Array, outputs: Float) -> float:
        """The mean score."""
        return float(self.worth(truth, outputs).mean())

    def by_target(self, judged: Judged, bootstrap: Bootstrap) -> dict[str, TargetScores]:
        found = {}
        for name, there, part in _each_judged(judged):
            own, alone = bootstrap.take(there), part.outputs.get(ALONE)
            found[name] = TargetScores(
                task=part.task.name,
                items=len(part.test),
                classes=len(part.labels.classes),
                metrics=part.metrics(own),
                baselines=part.baselines(own),
                change={} if alone is None else part.task.paired(part.truth, alone, part.outputs[HEAD], own),
            )
        return found

    def notes(self, judged: Judged) -> list[str]:
        notes = []
        for name, _, part in _each_judged(judged):
            own = number_notes(part.labels.values) if isinstance(part.task, Regression) else class_notes(part)
            notes += [f"{name}: {note}" for note in own]
        for name in names_of(judged.labels.truth):
            if lacking := int(np.isnan(judged.labels.truth[name]).sum()):
                notes.append(f"{lacking:,} items have no {name!r}; they count for the other targets")
        notes += [
            f"{name}: nothing was learned of it from these inputs; the head says its frequencies, or its mean"
            for name in getattr(judged.head, "unlearned_", ())
        ]
        return notes + _unjudged(judged)

    def evaluation_notes(self, judged: Judged) -> list[str]:
        assert isinstance(judged.head, TargetsHead)
        notes = []
        learned = dict(zip(judged.head.targets_, judged.head.classes_, strict=True))
        for name, _, part in _each_judged(judged):
            known = np.isin(part.labels.classes, learned[name])
            if not known.all() and isinstance(part.task, Classification):
                count, strange = int((~known[part.truth]).sum()), ", ".join(map(str, part.labels.classes[~known][:5].tolist()))
                notes.append(f"{name}: {count:,} items are of classes that the head does not know: {strange}")
        return notes + _unjudged(judged)

    def sections(self, view: View, judged: Judged, seed: int) -> dict[str, Any]:
        """A table for each target."""
        bootstrap = judged.bootstrap(view, seed)
        scores = self.by_target(judged, bootstrap)
        parts = ((name, part, bootstrap.take(there)) for name, there, part in _each_judged(judged))
        return {"sections": [target_section(name, part, scores[name], own) for name, part, own in parts]}


def _parts(view: View) -> Iterator[tuple[str, View, Task]]:
    """Each target with the items that have it, and the task that it would be alone."""
    for name in view.target_names:
        part = view.of_target(name)
        if not len(part):
            raise HeadError(f"No item has a value of target {name!r}.")
        if Multilabel().claims(part):
            raise HeadError(f"Target {name!r} holds lists; each of several targets is a class or a number.")
        yield name, part, REGRESSION if REGRESSION.claims(part) else CLASSIFICATION


def _joined(view: View, parts: Mapping[str, Labels]) -> Labels:
    """The labels of each target, of the items that have it, as those of all items of `view`."""
    n = len(view)
    values = np.empty(n, [(name, object if len(part.classes) else np.float64) for name, part in parts.items()])
    truth = np.full(n, np.nan, [(name, np.float64) for name in parts])
    for k, (name, part) in enumerate(parts.items()):
        there = [] if view.target is None else [row[k] is not None for row in view.target]
        at = np.flatnonzero(there)
        values[name] = None if len(part.classes) else np.nan
        values[name][at], truth[name][at] = part.values, part.truth
    classes = [part.classes for part in parts.values()]
    return Labels(values, truth, np.fromiter(classes, object, len(classes)))


def _empty(n: int, labels: Labels) -> Float:
    return np.full((n, len(labels.classes), max(1, *(len(known) for known in labels.classes))), np.nan)


def _each(truth: Array, outputs: Float) -> Iterator[tuple[str, Array, Task, Array, Float]]:
    """Of each target that an item has: its name, which items have it (n,), its task, and its truth and outputs for them."""
    for k, name in enumerate(names_of(truth)):
        there = ~np.isnan(truth[name])
        if there.any():
            said = outputs[there, k]
            said = said[:, ~np.isnan(said[0])]
            mine = truth[name][there]
            if said.shape[1] > 1:
                yield name, there, CLASSIFICATION, mine.astype(np.int64), said
            else:
                yield name, there, REGRESSION, mine, said[:, 0]


def _each_judged(judged: Judged) -> Iterator[tuple[str, Array, Judged]]:
    """Of each target that a judged item has: its name, which of those have it (t,), and what is judged of it alone."""
    told = {other: list(_each(judged.truth, outputs)) for other, outputs in judged.outputs.items()}
    for k, (name, there, task, _, _) in enumerate(told[HEAD]):
        truth = judged.labels.truth[name]
        has = ~np.isnan(truth)
        position = np.cumsum(has) - 1
        at = names_of(judged.truth).index(name)
        values = judged.labels.values[name][has]
        labels = Labels(
            values, truth[has].astype(np.int64 if task is CLASSIFICATION else np.float64), judged.labels.classes[at]
        )
        yield (
            name,
            there,
            replace(
                judged,
                task=task,
                labels=labels,
                fitted_on=position[judged.fitted_on[has[judged.fitted_on]]],
                test=position[judged.test[there]],
                outputs={task.constant if other == CONSTANT else other: found[k][-1] for other, found in told.items()},
                split=judged.split[has],
                kept=(),
            ),
        )


def _unjudged(judged: Judged) -> list[str]:
    names = [name for name in names_of(judged.truth) if np.isnan(judged.truth[name]).all()]
    return [f"no judged item has a value of {name!r}: nothing is known of how well it is predicted" for name in names]
