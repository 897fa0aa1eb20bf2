"""Whether a file still is what was written, read in full only once on a machine."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from pathlib import Path

from embedstore._files import cache_home, sha256_file
from embedstore.errors import CorruptStoreError

CLOCK_TICK_NS = 20_000_000


def check_digest(path: Path, size: int, sha256: str, *, always: bool = False) -> None:
    """Compare a file with its size and digest.

    A file that was compared before on this machine, and has the same inode, size and times since, is not read again unless
    `always`.

    Raises
    ------
    CorruptStoreError
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        raise CorruptStoreError(f"{path} is missing.") from None
    if status.st_size != size:
        raise CorruptStoreError(f"{path} has {status.st_size:,} bytes; {size:,} were written.")
    memory = _Memory(path, status, sha256)
    if always or not memory.holds():
        if sha256_file(path) != sha256:
            raise CorruptStoreError(f"{path}: its bytes differ from what was written (SHA-256).")
        memory.keep()


class _Memory:
    """Remembers, for this user on this machine, that a file was found to have a digest."""

    def __init__(self, path: Path, status: os.stat_result, sha256: str) -> None:
        self._note = cache_home() / "checked" / hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]
        seen = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, sha256)
        self._text = " ".join(map(str, seen))
        self._settled = time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > CLOCK_TICK_NS

    def holds(self) -> bool:
        try:
            return self._note.read_bytes() == self._text.encode()
        except OSError:
            return False

    def keep(self) -> None:
        if not self._settled:  # a change within the same tick of the file system's clock would leave its times as they are
            return
        with contextlib.suppress(OSError):  # a machine that cannot remember reads again
            self._note.parent.mkdir(parents=True, exist_ok=True)
            temporary = self._note.with_suffix(f".{os.getpid()}")
            temporary.write_text(self._text)
            os.replace(temporary, self._note)
