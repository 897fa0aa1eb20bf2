"""How commands open a store: with a limit on its filters, and with the models that its user trusts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from embedstore.store import Store

WhereTimeout = Annotated[float, typer.Option(metavar="SECONDS", help="Give --where up after so long.")]
AllowModel = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATH",
        help="Load this model, though the store names it by a relative path or holds it: if you trust it; may be repeated.",
    ),
]
NoCheck = Annotated[
    bool, typer.Option("--no-check", help="Do not compare items and vectors with their checksums on first use.")
]
SECONDS = 60.0


def opened(
    path: Path, *, where_timeout: float = SECONDS, allow_model: Sequence[str] | None = None, no_check: bool = False
) -> Store:
    """The store at `path`."""
    import embedstore as es

    return es.Store.open(path, check=not no_check, where_timeout=where_timeout, allow_models=allow_model or ())
