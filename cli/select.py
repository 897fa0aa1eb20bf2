"""``embedstore select``: items that are worth a label, or worth keeping."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from embedstore.training.select_options import SelectOptions

from .from_options import takes
from .opening import opened
from .options import SECONDS, Json, NoCheck, Store, Where, WhereTimeout

SHOWN = 20


@takes(SelectOptions)
def select(
    store: Store,
    *,
    where: Where = None,
    where_timeout: WhereTimeout = SECONDS,
    no_check: NoCheck = False,
    out: Annotated[Path | None, typer.Option(readable=False, help="Write them to a .csv, .parquet or .jsonl.")] = None,
    json: Json = False,
    **given: Any,
) -> None:
    """Select what to label next, or to keep: diverse, typical, uncertain or balanced items."""
    import embedstore as es

    from . import render

    with render.status("selecting"):
        held = opened(store, where_timeout=where_timeout, no_check=no_check)
        found = es.select(held, where=where, **given)
    if out is not None:
        render.say(f"{len(found.items):,} items written to {found.save(out)}", stderr=json)
    if json:
        render.print_json(found.to_dict())
        return
    said = ["prediction"] if found.head else []
    rows = [(i.rank, i.id, f"{i.score:.3f}", *([i.prediction] if said else [])) for i in found.items[:SHOWN]]
    render.print_table(["#", "id", found.to_dict()["score"], *said], rows, numeric=["#"])
    more = f"; {SHOWN} are shown" if len(found.items) > SHOWN and out is None else ""
    render.say(f"{len(found.items):,} of {found.candidates:,} candidates, {found.labelled:,} have a label{more}.")
    for note in found.notes:
        render.say(f"note: {note}")
