"""``embedstore evaluate``: the scores of a saved head."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .opening import opened, saved_head
from .options import SECONDS, Json, NoCheck, SavedHead, Store, Where, WhereTimeout


def evaluate(
    store: Store,
    head: SavedHead = None,
    where: Where = None,
    where_timeout: WhereTimeout = SECONDS,
    no_check: NoCheck = False,
    group: Annotated[str | None, typer.Option(help="Column; the intervals draw its values instead of items.")] = None,
    seen: Annotated[bool, typer.Option("--seen", help="Count items that the head was fitted on, too.")] = False,
    report: Annotated[Path | None, typer.Option(readable=False, help="Write an HTML report here.")] = None,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
    json: Json = False,
) -> None:
    """Score a saved head on labelled items that it was not fitted on."""
    import embedstore as es

    from . import render

    with render.status("evaluating"):
        held = opened(store, where_timeout=where_timeout, no_check=no_check)
        result = es.evaluate(held, saved_head(store, head), where=where, group=group, seen=seen, report=report, seed=seed)
    render.print_json(result.to_dict()) if json else render.print_evaluation(result)
