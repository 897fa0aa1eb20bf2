"""``embedstore info``: what a store holds."""

from __future__ import annotations

from typing import Annotated

import typer

from embedstore._core.words import counted

from .options import Json, Store


def info(
    store: Store,
    failures: Annotated[bool, typer.Option("--failures", help="List every failure with its reason.")] = False,
    json: Json = False,
) -> None:
    """Show what a store holds."""
    import embedstore as es

    from . import render

    opened = es.Store.open(store)
    document = opened.info()
    listed = [{"space": s.name, **row} for s in opened.spaces.values() for row in s.failures.to_pylist()]
    if failures:
        document["failures"] = [{k: row[k] for k in ("space", "id", "stage", "reason")} for row in listed]
    if json:
        render.print_json(document)
        return
    columns = ["space", "vectors", "missing", "failed", "dim", "dtype", "encoder", "fingerprint"]
    rows = [
        (name, *(f"{space[c]} (declared)" if c == "encoder" and "declared" in space else space[c] for c in columns[1:]))
        for name, space in document["spaces"].items()
    ]
    render.print_table(columns, rows, numeric=columns[1:5])
    heads = ", ".join(document["heads"]) or "none"
    metadata = ", ".join(f"{name} ({kind})" for name, kind in document["columns"].items()) or "none"
    render.say(
        f"{counted(document['items'], 'item')}; columns: {metadata}; heads: {heads}; generation {document['generation']}"
    )
    for name, space in document["spaces"].items():
        if told := render.told(space):
            render.say(f"{name}: {told}")
    for row in document.get("failures", ()):
        render.say(f"failed: {row['id']} ({row['space']}, {row['stage']}): {row['reason']}")
