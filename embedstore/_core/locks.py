"""Lock files of stores, heads and indexes: one process at a time changes each."""

from __future__ import annotations

import errno
import io
from collections.abc import Iterator
from contextlib import contextmanager

from embedstore._core.folders import Folder
from embedstore.errors import StoreError, StoreLockedError, reason_of

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


@contextmanager
def locked(folder: Folder, name: str, *, busy: str | None = None) -> Iterator[None]:
    """Hold the lock file `name` of `folder`, which a process gives up when it ends, however it ends.

    Parameters
    ----------
    busy : str, optional
        What to say where another process holds it; without it, wait for that.

    Raises
    ------
    StoreLockedError
        Another process holds it.
    StoreError
        The file system has no locks, or there is no file in the lock's place.
    OSError
    """
    from filelock import unlock_descriptor

    file = _held(folder, name, wait=busy is None)
    if file is None:
        raise StoreLockedError(busy)
    with file:
        try:
            yield
        finally:
            unlock_descriptor(file.fileno())  # closing it would not, where a child process has it open, too


def _held(folder: Folder, name: str, *, wait: bool) -> io.FileIO | None:
    """The lock file, locked; None where another process has it.

    Whoever discards a store removes its lock file while holding it: a lock of a file that is no longer there is worth nothing.
    """
    from filelock import lock_descriptor

    while True:
        file = folder.open_lock(name)
        try:
            if not lock_descriptor(file.fileno(), blocking=wait):
                file.close()
                return None
            if folder.is_at(name, file):
                return file
        except OSError as error:
            file.close()
            if error.errno not in _NO_LOCKS:
                raise
            raise StoreError(
                f"{folder.path} lies on a file system without locks ({reason_of(error)}), so two processes could write to it "
                "at once. Keep it on a disk of this machine, or mount the file system with locks (NFS: without nolock)."
            ) from error
        except BaseException:
            file.close()
            raise
        file.close()
