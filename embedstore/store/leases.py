"""Leases: how a compaction knows that readers still go by the files that it replaced.

A manifest has an epoch, and every reader holds a shared lock on that epoch's file for as long as it lives; the system lets go
of it when the process dies. A compaction begins the next epoch and lists what the last one leaves behind; those files are
deleted once no reader holds that epoch or an earlier one. Where a file system has no locks, or the folder is absent, a reader
has no lease: it is told to open the store again.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterable
from contextlib import suppress

from embedstore._core.atomic_files import json_bytes
from embedstore._core.encoding import encoding, open_sealed, sealed
from embedstore._core.folders import Folder
from embedstore.errors import StoreError
from embedstore.store.format import is_part

LEASES = "leases"


class LeaseGoneError(Exception):
    """The epoch ended while a reader asked for its lease."""


def take_lease(root: Folder, epoch: int) -> int | None:
    """A descriptor that holds the lease of `epoch` until it is closed; None where there are no leases.

    Raises
    ------
    LeaseGoneError
        A compaction ends this epoch now.
    """
    try:
        with root.child(LEASES) as folder, folder.open(_lease(epoch)) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if os.fstat(file.fileno()).st_nlink:
                return os.dup(file.fileno())  # the lock is of what both name
    except OSError as error:
        if error.errno != errno.EWOULDBLOCK:
            return None
    raise LeaseGoneError


def begin_epoch(root: Folder, epoch: int) -> None:
    """Make the file that readers of `epoch` hold, where there is none."""
    with root.child(LEASES, create=not _has_folder(root)) as folder:
        folder.open_lock(_lease(epoch)).close()


def leave_behind(root: Folder, epoch: int, files: Iterable[str]) -> None:
    """Note, before `epoch` ends, which files its readers alone go by."""
    with root.child(LEASES) as folder:
        folder.write(_left(epoch), json_bytes(sealed({**encoding("embedstore-left"), "files": sorted(files)})))


def files_left(root: Folder, epoch: int) -> set[str]:
    """Files that readers of epochs before `epoch` may still go by."""
    if not _has_folder(root):
        return set()
    with root.child(LEASES) as folder:
        return {file for old in _epochs(folder) if old < epoch for file in _files(folder, old)}


def retire(root: Folder, epoch: int) -> None:
    """Forget the epochs before `epoch`, up to the first that a reader holds: what they left behind is then nobody's."""
    if not _has_folder(root):
        return
    with root.child(LEASES) as folder:
        for old in sorted(_epochs(folder)):
            if old >= epoch or not _free(folder, old):
                return


def _free(folder: Folder, epoch: int) -> bool:
    """Forget one epoch, unless a reader holds it."""
    try:
        with folder.open_lock(_lease(epoch)) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            folder.unlink(_left(epoch))
            folder.unlink(_lease(epoch))
    except OSError as error:
        return error.errno != errno.EWOULDBLOCK
    return True


def discard_leases(root: Folder) -> None:
    """Delete the leases of a store that is discarded."""
    with suppress(FileNotFoundError):
        with root.child(LEASES) as folder:
            for name in folder.listing()[0]:
                folder.unlink(name)
        root.remove_empty(LEASES)


def _has_folder(root: Folder) -> bool:
    try:
        root.child(LEASES).close()
    except FileNotFoundError:
        return False
    return True


def _files(folder: Folder, epoch: int) -> set[str]:
    try:
        data = open_sealed(json.loads(folder.read(_left(epoch))), "embedstore-left", str(folder.path / _left(epoch)))
    except (OSError, StoreError, ValueError, RecursionError, AttributeError):
        return set()  # they are orphans then, as everything that nothing names
    files = data.get("files")
    return {file for file in files if is_part(file)} if isinstance(files, list) else set()


def _epochs(folder: Folder) -> set[int]:
    """Epochs that have a file here."""
    stems = {name.partition(".")[0] for name in folder.listing()[0]}
    return {int(stem) for stem in stems if stem.isascii() and stem.isdigit() and len(stem) < 20}


def _lease(epoch: int) -> str:
    return f"{epoch:06d}.lease"


def _left(epoch: int) -> str:
    return f"{epoch:06d}.json"
