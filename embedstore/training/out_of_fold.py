"""`out_of_fold`: what models that did not see them say of the items that a saved head was trained from."""

from __future__ import annotations

from pathlib import Path

from embedstore.heads.held_out import OutOfFold
from embedstore.store import Store
from embedstore.training.kept import kept_with
from embedstore.training.saved import find_head

__all__ = ["OutOfFold", "out_of_fold"]


def out_of_fold(store: Store | str | Path, head: str | Path, *, target: str | None = None) -> OutOfFold:
    """The predictions that are kept with a head, each by a model that was fitted without the item.

    Parameters
    ----------
    store : Store or path
    head : str or path
        Its name in `store`, or the folder of a head of another store: ``other.store/heads/label``.
    target : str, optional
        Of several targets, the one whose predictions are asked for: those of the items that have it.

    Raises
    ------
    HeadError
        The head keeps none.
    UsageError
        There is no such head, or it has several targets and `target` is none of them.
    """
    home, record = find_head(store if isinstance(store, Store) else Store.open(store), head)
    return kept_with(home, record, target)[1]
