"""What is kept with a head: of each target, predictions of its items by heads that did not see them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from embedstore.errors import UsageError
from embedstore.heads import TargetsHead
from embedstore.heads.held_out import OutOfFold, load_out_of_fold
from embedstore.heads.io import HeadRecord
from embedstore.store import Store, View
from embedstore.store.format import HEADS
from embedstore.training.tasks.base import HEAD, Array, Float, Labels, Task

__all__ = ["can_keep", "keep", "kept_with"]


def can_keep(task: Task, labels: Labels, outputs: Mapping[str, Float]) -> bool:
    """Whether files can hold `outputs` (n, …) of a head for items with `labels`."""
    return all(part.task.kept(part.outputs[HEAD], part.labels) is not None for part in task.apart(labels, outputs))


def keep(task: Task, view: View, labels: Labels, folds: Array, outputs: Mapping[str, Float]) -> Sequence[OutOfFold]:
    """`outputs` of all items of `view` (n, …), by name, as they are kept, one a target; none where a file cannot hold them.

    Parameters
    ----------
    folds : (n,) str
        See `OutOfFold`.
    """
    if not can_keep(task, labels, outputs):
        return ()
    found = []
    for part in task.apart(labels, outputs):
        alone = {name: part.outputs.get(task.linear_on(name)) for name in view.names}
        said = {name: part.task.kept(own, part.labels) for name, own in alone.items() if own is not None}
        head = part.task.kept(part.outputs[HEAD], part.labels)
        assert head is not None  # `can_keep` says so
        found.append(
            OutOfFold(
                rows=view.rows[part.there],
                ids=view.ids[part.there],
                target=part.labels.values,
                fold=folds.astype(object)[part.there],
                predicted=head.labels,
                probabilities=head.probabilities.astype(np.float32),
                classes=head.classes,
                alone={
                    name: _where(view.present[name][part.there], own.labels) for name, own in said.items() if own is not None
                },
            )
        )
    return found


def kept_with(home: Store, record: HeadRecord, target: str | None = None) -> tuple[str, OutOfFold]:
    """The target, and the predictions that are kept with a head of the store `home`; of several targets, of the one named.

    Raises
    ------
    HeadError
        It keeps none.
    UsageError
        It has several targets and none is named, or not the one that is.
    """
    folder = home.path / HEADS / record.name
    several = list(record.head.targets_) if isinstance(record.head, TargetsHead) else []
    if target is None and several:
        raise UsageError(
            f"Head {record.name!r} has the targets {', '.join(several)}. Say which: target={several[0]!r} "
            f"(--target {several[0]})."
        )
    if target is not None and target not in (several or [record.target]):
        raise UsageError(f"Head {record.name!r} has no target {target!r}. It has: {', '.join(several) or record.target}.")
    part = several.index(target) if target is not None and several else None
    return target or record.target, load_out_of_fold(folder, part)


def _where(present: Array, labels: Array) -> Array:
    """`labels` (n,), and None where the input is not there."""
    found = labels.astype(object)
    found[~present] = None
    return found
