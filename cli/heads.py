"""``embedstore heads``: the heads that a store keeps, listed, renamed and deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from embedstore._core.words import counted

from .options import Json, Store

if TYPE_CHECKING:
    from embedstore.training.saved_heads import SavedHead


def heads(
    store: Store,
    rename: Annotated[tuple[str, str] | None, typer.Option(metavar="OLD NEW", help="Give a head another name.")] = None,
    delete: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Delete a head; may be repeated.")] = None,
    json: Json = False,
) -> None:
    """List the heads of a store, after renaming or deleting some."""
    import embedstore as es

    from . import render

    opened = es.Store.open(store)
    for name in delete or ():
        es.delete_head(opened, name)
        render.say(f"Deleted head {name!r}.", stderr=json)
    if rename is not None:
        es.rename_head(opened, *rename)
        render.say(f"Head {rename[0]!r} is now {rename[1]!r}.", stderr=json)
    found = es.list_heads(opened)
    render.print_json({"heads": [head.to_dict() for head in found]}) if json else _print(found, str(store))


def _print(found: list[SavedHead], store: str) -> None:
    from . import render

    if not found:
        render.say(f"{store} has no heads yet: embedstore train makes one.")
        return
    rows = [
        (h.name, h.target, h.task, h.kind, " + ".join(h.inputs), f"{h.metric} {h.score}" if h.score else "", h.made, _size(h))
        for h in found
    ]
    columns = ["head", "target", "task", "kind", "inputs", "score [95 %]", "saved", "kB"]
    render.print_table(columns, rows, numeric=["kB"])
    for head in found:
        if head.problem:
            render.say(f"note: {head.problem}")
    render.say(counted(len(found), "head"))


def _size(head: SavedHead) -> str:
    return f"{head.bytes / 1000:,.0f}" if head.bytes else ""
