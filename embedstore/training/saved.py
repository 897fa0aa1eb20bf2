"""Saved heads: found by name or folder, with what they were trained on and for. Wiring of stores, heads and tasks."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedstore._core.arguments import as_type
from embedstore.errors import FingerprintError, HeadError, UsageError
from embedstore.heads import TargetsHead
from embedstore.heads.io import HeadRecord, load_head, read_split
from embedstore.heads.onnx_head import SUFFIX, load_onnx
from embedstore.registry import TASKS
from embedstore.sources.files import absent
from embedstore.spec import EncoderSpec
from embedstore.store import Store, View
from embedstore.store.format import HEADS
from embedstore.store.view import make_view
from embedstore.training.tasks.base import SEVERAL, Task, task_called

__all__ = [
    "check_fingerprints",
    "find_head",
    "find_model",
    "fitted_ids",
    "labelled_view",
    "open_head",
    "refuse_certainty",
    "specs_for",
    "task_of",
    "trained_on",
]


def find_head(store: Store, head: str | Path) -> tuple[Store, HeadRecord]:
    """The store that a head was trained in, and the head.

    Parameters
    ----------
    head : str or path
        Its name in `store`, or the folder of a head of another store.

    Raises
    ------
    UsageError
        There is no such head; lists those there are.
    """
    path = Path(as_type(head, str | os.PathLike[str], "head"))
    elsewhere = path.parent.name == HEADS
    if elsewhere and not path.is_dir():
        raise UsageError(absent(str(path)))
    home = store.alike(path.parent.parent) if elsewhere else store
    name = path.name if home is not store else str(head)
    return home, open_head(home, name)


def find_model(store: Store, head: str | Path) -> tuple[Store, HeadRecord]:
    """`find_head`, which takes the ONNX file of a head too; its home is then `store`."""
    path = Path(as_type(head, str | os.PathLike[str], "head"))
    if path.suffix == SUFFIX and str(head) not in store.heads and path.parent.name != HEADS:
        return store, load_onnx(path)
    return find_head(store, head)


def open_head(store: Store, name: str) -> HeadRecord:
    """The head called `name`; `UsageError` lists those there are."""
    if name not in store.heads:
        known = ", ".join(store.heads) or "none yet: embedstore train makes one"
        raise UsageError(f"{store.path} has no head {name!r}. Heads: {known}.")
    return load_head(store.path / HEADS / name)


def task_of(record: HeadRecord) -> Task:
    """The task that a head was trained for.

    Raises
    ------
    HeadError
        There is no such task here, or it is none that such a head serves.
    """
    name = str(record.report.get("task", record.head.task))
    if name not in TASKS:
        known = ", ".join(TASKS)
        raise HeadError(f"Head {record.name!r} was trained for the task {name!r}, which is not installed. Known: {known}.")
    task = task_called(name)
    if task.heads != record.head.task:
        raise HeadError(
            f"Head {record.name!r} was saved for {name}, and is a head for {record.head.task}. Train the head again, with "
            "--replace."
        )
    return task


def refuse_certainty(task: Task, coverage: float | None, *, explained: bool = False) -> None:
    """Raise `UsageError` where a coverage, or an explanation, is asked of a head of a task that has none."""
    if coverage is not None and task.name == SEVERAL:
        raise UsageError("coverage is for heads of one target; train one for the target that needs it. Leave --coverage out.")
    if not task.needs_target and (explained or coverage is not None):
        asked = "explained" if explained else "coverage"
        raise UsageError(f"{asked} is not for heads of the task {task.name}; leave it out.")


def fitted_ids(record: HeadRecord) -> npt.NDArray[np.str_]:
    """Ids of the items that a head was fitted on. An update changes an item's row, not its id."""
    table = read_split(record.split, record.name)
    split = np.array(table.column("split").to_pylist(), dtype=str)
    return np.asarray(np.array(table.column("id").to_pylist(), dtype=str)[split != "test"])


def target_of(record: HeadRecord) -> str | list[str]:
    """The target's column, or those of several targets."""
    return list(record.head.targets_) if isinstance(record.head, TargetsHead) else record.target


def labelled_view(record: HeadRecord, store: Store, *, where: str | None = None, group: str | None = None) -> View:
    """The items of `store` that have the head's target and any of its inputs; at least one."""
    view = store.view(inputs=list(record.inputs), target=target_of(record), where=where, group=group)
    return replace(view, columns=record.columns)


def trained_on(record: HeadRecord, store: Store) -> View:
    """The items that a head was fitted on, as far as they are still there; there may be none."""
    view = make_view(store, inputs=list(record.inputs), target=target_of(record), may_be_empty=True)
    view = replace(view, columns=record.columns)
    return view.select(np.isin(view.ids.astype(str), fitted_ids(record)))


def specs_for(record: HeadRecord, store: Store) -> dict[str, EncoderSpec]:
    """The encoders of the spaces of `store` that a head takes; `UsageError` where it lacks one."""
    if lacking := [name for name in record.inputs if name not in store.spaces]:
        known = ", ".join(store.spaces) or "none yet"
        raise UsageError(f"Head {record.name!r} takes space {lacking[0]!r}, which {store.path} has not. Spaces: {known}.")
    return {name: store.space(name).spec for name in record.inputs}


def check_fingerprints(record: HeadRecord, specs: Mapping[str, EncoderSpec], where: str) -> None:
    """Raise `FingerprintError` unless the vectors of `where` come from the encoders that the head was trained on."""
    for name, spec in specs.items():
        trained = record.inputs[name]
        if not trained.admits(spec):
            raise FingerprintError(
                f"Head {record.name!r} was trained on {trained.label} for input {name!r}; {where} has {spec.label}. "
                "Train it again on these vectors."
            )
