"""Folders of saved heads, renamed and removed: each by one rename, so that a kill leaves the one name or the other."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from embedstore._core.folders import Folder, publish
from embedstore._core.locks import locked
from embedstore.errors import HeadError
from embedstore.heads.io import HEAD

__all__ = ["remove_head", "rename_folder", "size_of"]

TRASH = ".trash-"
"""What the name of a folder begins with that is being removed."""


def rename_folder(heads: Path, old: str, new: str) -> None:
    """Call the head `old` in the folder `heads` of a store `new`; both names are there to be used.

    Raises
    ------
    HeadError
        There is a head of that name.
    OSError
    """
    with _alone(heads, [old, new]) as folder:
        if new in folder.listing()[1]:
            with folder.child(new) as there:
                if there.has(HEAD):
                    raise HeadError(f"{heads / new} is a head already. Delete it first, or choose another name.")
            folder.remove(new)  # what a killed training left
        publish(folder, old, new)
        folder.unlink(_lock(old))


def remove_head(heads: Path, name: str) -> None:
    """Remove the head `name` in the folder `heads` of a store.

    It is gone with the first rename; what a kill leaves of it is removed with the next head.

    Raises
    ------
    OSError
    """
    with _alone(heads, [name]) as folder:
        publish(folder, name, f"{TRASH}{name}-{os.getpid()}")
        folder.unlink(_lock(name))
        for left in folder.listing()[1]:
            if left.startswith(TRASH):
                folder.remove(left)


def size_of(folder: Path) -> int:
    """Bytes of all files in a head's folder."""
    with Folder.last(folder, 2) as opened:
        return sum((opened.path / name).lstat().st_size for name in opened.listing()[0])


@contextmanager
def _alone(heads: Path, names: Sequence[str]) -> Iterator[Folder]:
    """The folder of heads, while nobody else changes those of `names`."""
    with Folder.last(heads, 1) as folder, ExitStack() as stack:
        for name in sorted(names):  # two that rename both ways do not wait for each other
            stack.enter_context(locked(folder, _lock(name)))
        yield folder


def _lock(name: str) -> str:
    """As `embedstore.heads.io.changing` names it."""
    return f".{name}.lock"
