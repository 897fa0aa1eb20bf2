"""Leases: how a compaction knows that readers still go by the files that it replaced.

A manifest has an epoch, and every reader holds a shared lock on that epoch's file for as long as it lives; the system lets go
of it when the process dies. A compaction begins the next epoch and lists what the last one leaves behind; those files are
deleted once no reader holds that epoch or an earlier one. Where a file system has no locks, or the folder is absent, a reader
has no lease: it is told to open the store again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterable
from pathlib import Path

from embedstore._encoding import encoding, open_sealed, sealed
from embedstore._files import fsync_path, read_json, write_json
from embedstore.errors import CorruptStoreError, StoreError
from embedstore.store.format import is_part

LEASES = "leases"


class LeaseGoneError(Exception):
    """The epoch ended while a reader asked for its lease."""


def take_lease(root: Path, epoch: int) -> int | None:
    """A descriptor that holds the lease of `epoch` until it is closed; None where there are no leases.

    Raises
    ------
    LeaseGoneError
        A compaction ends this epoch now.
    """
    try:
        lease = os.open(_lease(root, epoch), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(lease, fcntl.LOCK_SH | fcntl.LOCK_NB)
        if os.fstat(lease).st_nlink:
            return lease
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.EINTR):
            os.close(lease)
            return None
    os.close(lease)
    raise LeaseGoneError


def begin_epoch(root: Path, epoch: int) -> None:
    """Make the file that readers of `epoch` hold, where there is none."""
    folder = root / LEASES
    if not folder.is_dir():
        folder.mkdir()
        fsync_path(root)
    _lease(root, epoch).touch()


def leave_behind(root: Path, epoch: int, files: Iterable[str]) -> None:
    """Note, before the epoch ends, which files its readers alone go by."""
    write_json(_left(root, epoch), sealed({**encoding("embedstore-left"), "files": sorted(files)}))


def files_left(root: Path, epoch: int) -> set[str]:
    """Files that readers of epochs before `epoch` may still go by."""
    return {file for old in _epochs(root) if old < epoch for file in _files(root, old)}


def retire(root: Path, epoch: int, named: set[str]) -> None:
    """Delete what the epochs before `epoch` left behind and is not `named`, up to the first that a reader holds."""
    for old in sorted(_epochs(root)):
        if old >= epoch:
            return
        with contextlib.ExitStack() as stack:
            try:
                lease = os.open(_lease(root, old), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
                stack.callback(os.close, lease)
                fcntl.flock(lease, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except FileNotFoundError:
                pass
            except OSError as error:
                if error.errno == errno.EWOULDBLOCK:
                    return
            for file in _files(root, old) - named:
                (root / file).unlink(missing_ok=True)
            _left(root, old).unlink(missing_ok=True)
            _lease(root, old).unlink(missing_ok=True)


def _files(root: Path, epoch: int) -> set[str]:
    path = _left(root, epoch)
    try:
        data = open_sealed(read_json(path), "embedstore-left", str(path))
    except CorruptStoreError:
        return set()  # they are orphans then, as everything that nothing names
    except StoreError:
        return set()
    files = data.get("files")
    return {file for file in files if is_part(file)} if isinstance(files, list) else set()


def _epochs(root: Path) -> set[int]:
    """Epochs that have a file here."""
    try:
        names = os.listdir(root / LEASES)
    except OSError:
        return set()
    stems = {name.partition(".")[0] for name in names}
    return {int(stem) for stem in stems if stem.isascii() and stem.isdigit() and len(stem) < 20}


def _lease(root: Path, epoch: int) -> Path:
    return root / LEASES / f"{epoch:06d}.lease"


def _left(root: Path, epoch: int) -> Path:
    return root / LEASES / f"{epoch:06d}.json"
