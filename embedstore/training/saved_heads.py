"""`list_heads`, `rename_head`, `delete_head`: the heads that a store keeps."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from embedstore._core.encoding import open_sealed
from embedstore.errors import EmbedstoreError, HeadError, UsageError, next_step, reason_of
from embedstore.evaluation.metrics import Score
from embedstore.heads.head_folders import remove_head, rename_folder, size_of
from embedstore.heads.io import ALIGN, HEAD, main_score, read_head
from embedstore.store import Store
from embedstore.store.format import HEADS, check_name

__all__ = ["SavedHead", "delete_head", "list_heads", "rename_head"]


@dataclass(frozen=True)
class SavedHead:
    """A head that a store keeps; none of its weights is read for it.

    Parameters
    ----------
    task : str
        ``"align"`` of an alignment, which search uses and which has no target.
    metric, score : str, Score or None
        The main score, as it was measured when the head was trained.
    made : str
        When it was saved: local time, ISO 8601 to the second.
    bytes : int
        Of all its files.
    problem : str
        What is wrong with ``head.json``, where it cannot be read.
    """

    name: str
    task: str = ""
    target: str = ""
    kind: str = ""
    inputs: list[str] = field(default_factory=list)
    metric: str = ""
    score: Score | None = None
    made: str = ""
    bytes: int = 0
    problem: str = ""

    def to_dict(self) -> dict[str, Any]:
        """One of ``embedstore heads --json``."""
        return {**vars(self), "score": None if self.score is None else self.score.to_dict()}


def list_heads(store: Store | str | Path) -> list[SavedHead]:
    """The heads of a store, by name.

    Examples
    --------
    >>> import embedstore as es
    >>> [head.name for head in es.list_heads("my.store")]  # doctest: +SKIP
    ['label']
    """
    opened = store if isinstance(store, Store) else Store.open(store)
    return [_described(opened.path / HEADS / name) for name in opened.heads]


def rename_head(store: Store | str | Path, old: str, new: str) -> None:
    """Give the head `old` the name `new`, by one rename of its folder.

    Raises
    ------
    UsageError
        There is no head `old`, or `new` cannot be a name.
    HeadError
        There is a head `new`, or the folder cannot be renamed.
    """
    opened = store if isinstance(store, Store) else Store.open(store)
    _known(opened, old)
    check_name(new, "head")
    if new in opened.heads:
        raise HeadError(f"{opened.path} has a head {new!r} already. Delete it first (--delete {new}), or choose another name.")
    try:
        rename_folder(opened.path / HEADS, old, new)
    except OSError as error:
        raise HeadError(f"Head {old!r} cannot be renamed: {reason_of(error)}.{next_step(error)}") from error


def delete_head(store: Store | str | Path, name: str) -> None:
    """Delete a head, which is gone with one rename of its folder.

    Raises
    ------
    UsageError
        There is no such head.
    HeadError
        It cannot be removed.
    """
    opened = store if isinstance(store, Store) else Store.open(store)
    _known(opened, name)
    try:
        remove_head(opened.path / HEADS, name)
    except OSError as error:
        raise HeadError(f"Head {name!r} cannot be deleted: {reason_of(error)}.{next_step(error)}") from error


def _known(store: Store, name: str) -> None:
    if name not in store.heads:
        known = ", ".join(store.heads) or "none"
        raise UsageError(f"{store.path} has no head {name!r}. Heads: {known}.")


def _described(folder: Path) -> SavedHead:
    try:
        made = datetime.fromtimestamp((folder / HEAD).lstat().st_mtime).isoformat(" ", "seconds")
        document = open_sealed(
            read_head(folder), "embedstore-head", str(folder / HEAD), "Train the head again, with --replace."
        )
        metric, score = main_score(document)
        aligns = document["kind"] == ALIGN
        return SavedHead(
            name=folder.name,
            task=ALIGN if aligns else str(document["report"].get("task", "")),
            target="" if aligns else str(document["target"]),
            kind=str(document["kind"]),
            inputs=[str(name) for name in document["inputs"]],
            metric=metric,
            score=score,
            made=made,
            bytes=size_of(folder),
        )
    except EmbedstoreError as error:
        return SavedHead(folder.name, problem=str(error))
    except (OSError, LookupError, AttributeError, TypeError, ValueError) as error:
        return SavedHead(folder.name, problem=f"{folder / HEAD} is damaged ({type(error).__name__}).")
