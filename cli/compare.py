"""``embedstore compare``: encoders, alone and together, by what a head makes of them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from embedstore.training.compare_options import CompareOptions

from .from_options import takes
from .opening import opened
from .options import SECONDS, AllowModel, Json, NoCheck, Store, Where, WhereTimeout


@takes(CompareOptions)
def compare(
    store: Store,
    target: Annotated[str, typer.Argument(metavar="TARGET", help="Metadata column with the labels.")],
    *,
    where: Where = None,
    where_timeout: WhereTimeout = SECONDS,
    allow_model: AllowModel = None,
    no_check: NoCheck = False,
    json: Json = False,
    **given: Any,
) -> None:
    """Compare encoders for a target: the same items, split and head for each, alone and together."""
    import embedstore as es

    from . import render

    with render.status("comparing") as say:
        held = opened(store, where_timeout=where_timeout, no_check=no_check, allow_model=allow_model)
        report = es.compare(held, target, where=where, **given, on_progress=say)
    render.print_json(report.to_dict()) if json else render.print_comparison(report)
