"""`serve`: a store as a page and an API."""

from __future__ import annotations

from typing import Any

from embedstore.serving.serve_options import ServeOptions

from .from_options import takes
from .opening import opened
from .options import SECONDS, AllowModel, NoCheck, Store, WhereTimeout


@takes(ServeOptions)
def serve(
    store: Store,
    *,
    where_timeout: WhereTimeout = SECONDS,
    no_check: NoCheck = False,
    allow_model: AllowModel = None,
    **given: Any,
) -> None:
    """Serve a page to search, look and teach, and an API, until Ctrl-C."""
    import embedstore as es

    from . import render

    held = opened(store, where_timeout=where_timeout, allow_model=allow_model, no_check=no_check)
    es.serve(held, **given, on_ready=lambda address: render.say(f"Serving {store} at {address} (Ctrl-C ends it)"))
