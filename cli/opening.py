"""How commands open a store: with a limit on its filters, and with the models that its user trusts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .options import SECONDS

if TYPE_CHECKING:
    from embedstore.store import Store


def opened(
    path: Path, *, where_timeout: float = SECONDS, allow_model: Sequence[str] | None = None, no_check: bool = False
) -> Store:
    """The store at `path`."""
    import embedstore as es

    return es.Store.open(path, check=not no_check, where_timeout=where_timeout, allow_models=allow_model or ())


def saved_head(store: Path, given: str | None) -> str:
    """The head that was named; an error that lists those there are where none was."""
    import embedstore as es
    from embedstore.errors import UsageError

    if given is None:
        heads = ", ".join(es.Store.open(store).heads) or "none yet: embedstore train makes one"
        raise UsageError(f"Name a head of {store}. Heads: {heads}.")
    return given
