"""Whether a file still is what was written, read in full only once on a machine.

What was compared is noted in the user's cache, one file of lines a folder: a file's inode, size, times
and digest, and its name.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from pathlib import Path

from embedstore._core.atomic_files import cache_home, sha256_file
from embedstore.errors import CorruptStoreError

CLOCK_TICK_NS = 20_000_000
WORN = 4
"""A note of so many lines for each that still says something is written anew."""


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
    note = note_of(path.parent)
    if always or not note.knows(path.name, status, sha256):
        if sha256_file(path) != sha256:
            raise CorruptStoreError(f"{path}: its bytes differ from what was written (SHA-256).")
        note.keep(path.name, status, sha256)


def _identity(status: os.stat_result, digest: str) -> str:
    seen = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, digest)
    return " ".join(map(str, seen))


class Note:
    """What is known of the files of one folder; made by `note_of`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.lines: dict[str, str] = {}
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return
        lines = text.splitlines()
        for line in lines:
            identity, tab, name = line.partition("\t")
            if tab:
                self.lines[name] = identity
        if len(lines) > WORN * len(self.lines):
            self._write("".join(map(self._line, self.lines)), fresh=True)

    def knows(self, name: str, status: os.stat_result, digest: str) -> bool:
        """Whether file `name`, whose `status` this is, was found to have `digest` and was not touched since."""
        return self.lines.get(name) == _identity(status, digest)

    def keep(self, name: str, status: os.stat_result, digest: str) -> None:
        """Note that file `name` was found to have `digest`; `status` is from before it was read."""
        changed, identity = max(status.st_mtime_ns, status.st_ctime_ns), _identity(status, digest)
        settled = time.time_ns() - changed > CLOCK_TICK_NS  # a change within one tick leaves a file's times as they are
        if settled and self.lines.get(name) != identity and name.isprintable():
            self.lines[name] = identity
            self._write(self._line(name))

    def _line(self, name: str) -> str:
        return f"{self.lines[name]}\t{name}\n"

    def _write(self, text: str, *, fresh: bool = False) -> None:
        """Add `text` in one piece, so that two processes do not mix theirs; a machine that cannot remember reads again."""
        with contextlib.suppress(OSError, UnicodeError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            target = self._path.with_suffix(f".{os.getpid()}") if fresh else self._path
            with open(target, "ab", buffering=0) as file:
                file.write(text.encode())
            if fresh:
                os.replace(target, self._path)


_NOTES: dict[tuple[Path, str], Note] = {}


def note_of(folder: Path) -> Note:
    """The note of a folder, read once in a process."""
    home, absolute = cache_home(), os.path.abspath(folder)
    note = _NOTES.get((home, absolute))
    if note is None:
        name = hashlib.sha256(os.fsencode(os.path.realpath(absolute))).hexdigest()[:32]
        note = _NOTES[home, absolute] = Note(home / "checked" / name)
    return note
