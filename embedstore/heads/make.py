"""`make_head`: heads by their kind, for users and for heads that are made of others; none is imported before it is needed."""

from __future__ import annotations

from typing import Any

from embedstore.errors import UsageError
from embedstore.heads.base import Head
from embedstore.registry import HEADS, PROMPTED, WRAPPERS, Registry, heads_for, kinds_of_heads


def head_class(kind: str) -> type[Head]:
    """The class of heads called `kind`; `UsageError` lists those there are."""
    if kind not in HEADS:
        for others in (*kinds_of_heads(), WRAPPERS):
            for made in (others.get(name) for name in others if others is not HEADS):
                if kind == made.kind:
                    return made  # type: ignore[no-any-return]
    found: type[Head] = HEADS.get(kind)
    return found


def make_head(kind: str, *, task: str = "classification", **params: Any) -> Head:
    """A new head of `kind` for a task; parameters that it does not have (a device, a seed) are left out.

    Parameters
    ----------
    task : str
        What it has to serve: its `Head.task`.

    Raises
    ------
    UsageError
        No such head, or none for that task; lists those that it has.
    """
    serving = PROMPTED if kind in PROMPTED and heads_for(task) is HEADS else heads_for(task)
    if kind not in serving:
        for others in kinds_of_heads():
            if kind in others:
                known = ", ".join(serving) or "none"
                raise UsageError(f"Head {kind!r} predicts {_given_by(others)}. For {_given_by(serving)} there are: {known}.")
    made: type[Head] = serving.get(kind)
    known_params = made().get_params()
    return made(**{name: value for name, value in params.items() if name in known_params})


def _given_by(heads: Registry) -> str:
    """What heads predict, in a word."""
    return "classes" if heads in (HEADS, PROMPTED) else heads.kind.removeprefix("head for ")


def params_of(head: Head) -> dict[str, Any]:
    """The constructor's arguments as JSON values."""
    params = {name: v for name, v in head.get_params().items() if name not in head.kept_in_state}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in params.items()}
