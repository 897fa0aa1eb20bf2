"""Files of items that are still what was embedded, opened for a request."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from embedstore._core.keys import hash_file
from embedstore.errors import PayloadError
from embedstore.serving.once import Once
from embedstore.serving.own_files import OwnFile
from embedstore.sources.files import readable

HEAD = 64
"""Bytes that say what a file is."""
KEPT = 10_000
"""Files whose hashes are kept."""


class Identity(NamedTuple):
    """What tells a file from the one that replaced it, and from what it was before it was written to."""

    path: str
    device: int
    inode: int
    size: int
    written: int
    changed: int


class KnownFile(NamedTuple):
    """A file that is open, and what was embedded: its first bytes say what it is."""

    file: io.FileIO
    identity: Identity
    head: bytes


class KnownFiles:
    """Threads share it. A file is read whole once, to see that it is what was embedded, and again when it was written since."""

    def __init__(self) -> None:
        self._looked_at: Once[Identity, tuple[bytes, bytes]] = Once(KEPT)

    @contextmanager
    def opened(self, own: OwnFile) -> Iterator[KnownFile]:
        """The file, at its beginning.

        Raises
        ------
        PayloadError
            It is gone, cannot be read, is no regular file, or is not what was embedded.
        """
        with readable(own.path) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise PayloadError("read", f"{own.path} is not a regular file")
            identity = _identity(own.path, status)
            digest, head = self._looked_at.get(identity, lambda: _looked_at(file, identity))
            if digest != own.digest:
                raise PayloadError("read", f"{own.path} is not what was embedded")
            file.seek(0)
            yield KnownFile(file, identity, head)


def _identity(path: str, status: os.stat_result) -> Identity:
    return Identity(path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _looked_at(file: io.FileIO, identity: Identity) -> tuple[bytes, bytes]:
    """The hash of a file, and its first bytes."""
    head = file.read(HEAD)
    file.seek(0)
    digest = hash_file(file)
    if _identity(identity.path, os.fstat(file.fileno())) != identity:
        raise PayloadError("read", f"{identity.path} was written while it was read")
    return digest, head
