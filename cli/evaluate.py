"""``embedstore evaluate``: the scores of a saved head."""

from __future__ import annotations

from typing import Any

from embedstore.training.evaluate_options import EvaluateOptions

from .from_options import takes
from .opening import opened, saved_head
from .options import SECONDS, Json, NoCheck, SavedHead, Store, Where, WhereTimeout


@takes(EvaluateOptions)
def evaluate(
    store: Store,
    head: SavedHead = None,
    *,
    where: Where = None,
    where_timeout: WhereTimeout = SECONDS,
    no_check: NoCheck = False,
    json: Json = False,
    **given: Any,
) -> None:
    """Score a saved head on labelled items that it was not fitted on."""
    import embedstore as es

    from . import render

    with render.status("evaluating"):
        held = opened(store, where_timeout=where_timeout, no_check=no_check)
        result = es.evaluate(held, saved_head(store, head), where=where, **given)
    render.print_json(result.to_dict()) if json else render.print_evaluation(result)
