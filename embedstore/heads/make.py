"""`make_head`: heads by their kind, for users and for heads that are made of others; none is imported before it is needed."""

from __future__ import annotations

from typing import Any

from embedstore.errors import UsageError
from embedstore.heads.base import Head
from embedstore.registry import HEADS, LABELLERS, REGRESSORS, WRAPPERS

_SERVING = {"classification": HEADS, "regression": REGRESSORS, "multilabel": LABELLERS}
"""The heads that a kind stands for, by their `Head.task`."""


def head_class(kind: str) -> type[Head]:
    """The class of heads called `kind`; `UsageError` lists those there are."""
    if kind not in HEADS:
        for others in (REGRESSORS, LABELLERS, WRAPPERS):
            for name in others:
                other: type[Head] = others.get(name)
                if kind == other.kind:
                    return other
    found: type[Head] = HEADS.get(kind)
    return found


def make_head(kind: str, *, task: str = "classification", **params: Any) -> Head:
    """A new head of `kind` for a task; parameters that it does not have (a device, a seed) are left out.

    Raises
    ------
    UsageError
        No such head, or none for that task.
    """
    serving = _SERVING.get(task, HEADS)
    if kind not in serving:
        HEADS.get(kind)  # where there is no such head at all, this says so
        wanted = "numbers" if serving is REGRESSORS else "any number of labels"
        raise UsageError(f"Head {kind!r} predicts classes. For {wanted} there are: {', '.join(serving)}.")
    made: type[Head] = serving.get(kind)
    known = made().get_params()
    return made(**{name: value for name, value in params.items() if name in known})


def params_of(head: Head) -> dict[str, Any]:
    """The constructor's arguments as JSON values."""
    return {name: list(v) if isinstance(v, tuple) else v for name, v in head.get_params().items()}
