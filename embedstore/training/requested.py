"""What `train` is asked: a target as it is meant, and the task that it is for; what does not go together is refused."""

from __future__ import annotations

from embedstore.errors import UsageError
from embedstore.heads.targets_apart import ApartTargets
from embedstore.registry import heads_for
from embedstore.store import View
from embedstore.training.saved import refuse_certainty
from embedstore.training.tasks.base import MULTILABEL, SEVERAL, Task, task_called, task_for
from embedstore.training.tasks.label_columns import refuse_joined, separated, with_frequent
from embedstore.training.train_options import TrainOptions

__all__ = ["asked_of"]


def asked_of(view: View, options: TrainOptions) -> tuple[View, Task, list[str]]:
    """The view with its target as it is meant, its task, and notes: rare labels left out, an option that does nothing."""
    if view.target_names:
        _check_several(view, options)
    elif options.weights is not None:
        raise UsageError(f"weights are for several targets; {view.target_name!r} is one. Name more, such as label,price.")
    for name in ("negatives", "hard"):
        if getattr(options, name) != getattr(TrainOptions, name):
            raise UsageError(f"{name} says how pairs are drawn, for the task matching; leave it out.")
    if options.separator is not None:
        view = separated(view, options.separator)
    elif options.task is None:
        refuse_joined(view)
    task = task_called(options.task) if options.task else task_for(view)
    notes: list[str] = []
    if options.weights is not None and isinstance(task.make_head(options.head), ApartTargets):
        notes = [f"weights change nothing: targets share no trunk in {options.head} heads; in gated ones, for example, they do"]
    if options.separator is not None and task.name != MULTILABEL:
        raise UsageError(f"separator makes several labels of a text, which are for the task {MULTILABEL}, not {task.name}.")
    if options.least_items == 1:
        return view, task, notes
    if task.name != MULTILABEL:
        raise UsageError(f"least_items leaves out labels, which are for the task {MULTILABEL}, not {task.name}.")
    view, notes = with_frequent(view, options.least_items)
    return view, task, notes


def _check_several(view: View, options: TrainOptions) -> None:
    """Raise `UsageError` where an option is for one target."""
    if options.task not in (None, SEVERAL):
        raise UsageError(f"task {options.task} is for one target; {view.target_name} are several. Leave --task out.")
    if options.weights is not None and len(options.weights) != len(view.target_names):
        raise UsageError(
            f"weights should be one for each of {', '.join(view.target_names)}. Got {len(options.weights)} instead."
        )
    if options.head == "auto":
        first, known = view.target_names[0], ", ".join(heads_for(task_called(SEVERAL).heads))
        raise UsageError(
            f"Head 'auto' chooses for one target; {view.target_name} are several. Train each alone (train STORE {first} --head "
            f"auto), or choose for all: {known}."
        )
    refuse_certainty(task_called(SEVERAL), options.coverage)
    for name in ("separator", "balance", "tune"):
        if getattr(options, name) is not None:
            raise UsageError(f"{name} is for one target; {view.target_name} are several. Leave --{name} out.")
