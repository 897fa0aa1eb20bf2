"""``embedstore remove``: items by id, as often as you like."""

from __future__ import annotations

from typing import Annotated

import typer

from embedstore._core.words import counted

from .options import Json, Store


def remove(
    store: Store,
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Items to remove.")],
    json: Json = False,
) -> None:
    """Remove items by id; those that are not there are counted, and are no error."""
    import embedstore as es

    from . import render

    opened = es.Store.open(store)
    absent = opened.absent(ids)
    left = opened.remove(ids)
    removed = len(set(ids)) - len(absent)
    if absent:
        few = ", ".join(map(repr, absent[:3])) + (" …" if len(absent) > 3 else "")
        render.say(f"note: not there: {counted(len(absent), 'item')} ({few})", stderr=True)
    if json:
        render.print_json({"removed": removed, "absent": absent, "left": len(left)})
    else:
        render.say(f"Removed {removed}; {counted(len(left), 'item')} {'is' if len(left) == 1 else 'are'} left.")
