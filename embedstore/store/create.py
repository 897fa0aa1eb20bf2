"""How a store begins, and how one to which nothing was ever committed ends. Both hold the lock of its writer."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from embedstore._core.atomic_files import json_bytes
from embedstore._core.folders import Folder, make_root
from embedstore._core.locks import locked
from embedstore.errors import StoreError, StoreLockedError, next_step, reason_of
from embedstore.store.format import COMBINED, HEADS, LOCK, MANIFEST, Manifest
from embedstore.store.leases import discard_leases

PATIENCE, POLL = 5.0, 0.02
"""Seconds that another process may take to make the store, and between two looks at it."""
TRIES = 10
"""So often may others discard the folder in which a store is being made."""


def create_store(root: Path) -> None:
    """Make an empty store at `root`, unless another process was quicker.

    Raises
    ------
    StoreError
        The folder holds something else, or cannot be made.
    StoreLockedError
        Another process is just making, or discarding, a store there.
    """
    for left in reversed(range(TRIES)):
        try:
            make_root(root)
            with Folder.at(root) as folder:
                _create_in(folder)
            return
        except FileNotFoundError as error:  # discarded meanwhile
            failure: OSError = error
            if left:
                continue
        except OSError as error:
            failure = error
        raise StoreError(f"A store cannot be made at {root}: {reason_of(failure)}.{next_step(failure)}") from failure


def _create_in(folder: Folder) -> None:
    if folder.has(MANIFEST):
        return
    if any(not name.startswith("store.") for name in folder.names()) and not folder.has(MANIFEST):
        raise StoreError(f"{folder.path} is not empty and not a store. Choose a new folder, such as {folder.path}/my.store.")
    until = time.monotonic() + PATIENCE
    while not folder.has(MANIFEST):
        try:
            with locked(folder, LOCK, busy=busy(folder.path)):
                if not folder.has(MANIFEST):
                    folder.write(MANIFEST, json_bytes(Manifest().to_dict()))
        except StoreLockedError:  # whoever makes it is about to be done
            if time.monotonic() > until:
                raise
            time.sleep(POLL)


def discard_empty(folder: Folder) -> None:
    """Delete a store to which nothing was ever committed; the caller holds its lock.

    The lock file goes after the manifest, so that whoever finds no manifest, and gets the lock, knows that the store is gone.
    """
    for name in ("items", "spaces", HEADS):
        folder.remove_empty(name)
    discard_leases(folder)
    for name in (COMBINED, MANIFEST, LOCK):
        folder.unlink(name)
    with suppress(OSError):  # it is a link, or somebody is making the next store in it
        folder.path.rmdir()


def busy(root: Path) -> str:
    """What to say where another process holds the lock of the store at `root`."""
    return f"Another process is writing to {root}. Wait for it to end, or stop it, and try again."
