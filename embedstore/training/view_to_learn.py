"""What a head is to learn: the items of a store with their target as it is meant, and the task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from embedstore._core.arguments import strings
from embedstore.errors import UsageError
from embedstore.store import Store, View
from embedstore.training.requested import asked_of
from embedstore.training.tasks.base import Task, task_called
from embedstore.training.train_options import TrainOptions


def view_to_learn(
    store: Store | str | Path | View, target: str | Sequence[str] | None, options: TrainOptions
) -> tuple[View, Task, list[str]]:
    """The view, its task, and what people should know of what is in it.

    Raises
    ------
    UsageError
        There is no such target, or an option is not for the task.
    """
    task = task_called(options.task) if options.task else None
    if task is not None and not task.needs_target:
        view, notes = task.view(_without_target(store, target, task), options)
        return view, task, notes
    view = _open(store, target, options)
    if options.columns:
        view = view.with_columns(strings(options.columns, "columns"))
    return asked_of(view, options)


def _open(store: Store | str | Path | View, target: str | Sequence[str] | None, options: TrainOptions) -> View:
    if isinstance(store, View):
        if store.target is None:
            raise UsageError("The view has no target. Make it with store.view(inputs=…, target='COLUMN').")
        _refuse_others(store, target, options)
        return store
    opened = store if isinstance(store, Store) else Store.open(store)
    if target is None:
        columns = ", ".join(opened.items.metadata_columns()) or "none"
        raise UsageError(f"Name the target: a metadata column of {opened.path}. Columns: {columns}.")
    return opened.view(
        inputs=strings(options.inputs, "inputs") if options.inputs else list(opened.spaces),
        target=target,
        where=options.where,
        group=options.group,
        seed=options.seed,
    )


def _refuse_others(view: View, target: str | Sequence[str] | None, options: TrainOptions) -> None:
    """Raise `UsageError` where something is given beside a view that it brings itself, and brings otherwise."""
    asked = {
        "target": (None if target is None else ",".join(strings(target, "target")), view.target_name),
        "inputs": (None if options.inputs is None else ",".join(strings(options.inputs, "inputs")), ",".join(view.spaces)),
        "group": (options.group, view.group_name),
        "where": (options.where, None),
    }
    for name, (given, own) in asked.items():
        if given is not None and given != own:
            brought = "its own items" if name == "where" else f"the {name} {own!r}" if own else f"no {name}"
            raise UsageError(
                f"A view brings {brought}; {name}={given!r} is given beside it. Leave that out, or make the view with it: "
                f"store.view(…, {name}={given!r})."
            )


def _without_target(store: Store | str | Path | View, target: str | Sequence[str] | None, task: Task) -> Store:
    if target is not None:
        raise UsageError(f"The task {task.name} takes no target, but {target!r} is given. Leave it out.")
    if isinstance(store, View):
        raise UsageError(
            f"The task {task.name} makes its own view: give the store, and say with inputs and where what is in it."
        )
    return store if isinstance(store, Store) else Store.open(store)
