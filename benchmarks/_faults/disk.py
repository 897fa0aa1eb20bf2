"""A disk that forgets: which of a process's file operations would have survived a cut of power, and the state that leaves."""

from __future__ import annotations

import os
import shutil
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks._faults.hooks import Do, Operation

Entries = dict[str, list[str]]
"""Name → kind (``file`` or ``folder``) and inode."""


@dataclass(frozen=True)
class Cut:
    """What was on the disk, and what only in memory, before one operation.

    Parameters
    ----------
    durable : mapping of a folder's inode to Entries
        As of each folder's last flush.
    live : Entries
        By path relative to the recorded folder, as processes see it.
    flushed : mapping of inode to str
        The blob that holds a file's bytes as of its last flush.
    unflushed : mapping of inode to str
        The same for files that changed since, as processes see them.
    committed : bool
        Whether the command had reported its end, so that all it did has to be there.
    """

    durable: dict[str, Entries]
    live: Entries
    flushed: dict[str, str]
    unflushed: dict[str, str]
    committed: bool

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Cut:
        return cls(**data)

    def rebuild(self, variant: str, root: str, blobs: Path, to: Path) -> None:
        """Make at `to` what is left of the recorded folder, whose inode is `root`, in one of `power.VARIANTS`."""
        if variant == "strict":
            self._grow(root, blobs, to)
            return
        to.mkdir(parents=True)
        for path, (kind, inode) in sorted(self.live.items()):
            if kind == "folder":
                (to / path).mkdir()
            elif inode in self.unflushed:
                data = (blobs / self.unflushed[inode]).read_bytes()
                (to / path).write_bytes(b"" if variant == "empty" else data[: len(data) // 2])
            else:
                shutil.copyfile(blobs / self.flushed[inode], to / path)

    def _grow(self, folder: str, blobs: Path, to: Path) -> None:
        to.mkdir(parents=True)
        for name, (kind, inode) in self.durable.get(folder, {}).items():
            if kind == "folder":
                self._grow(inode, blobs, to / name)
            elif inode in self.flushed:
                shutil.copyfile(blobs / self.flushed[inode], to / name)
            else:
                (to / name).touch()


class Recorder:
    """Watches a process (see `hooks.install`): what every flush makes durable, and the state before every operation.

    Everything that is below `root` at the beginning is durable. Inodes are held open, so that no number is used twice.
    """

    def __init__(self, root: Path, blobs: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        blobs.mkdir(parents=True)
        self.cuts: list[Cut] = []
        self._root, self._blobs = root, blobs
        self._lock = threading.RLock()
        self._held: dict[str, int] = {}
        self._durable: dict[str, Entries] = {}
        self._flushed: dict[str, str] = {}
        self._at_flush: dict[str, tuple[int, int]] = {}
        self.top = self._seen(str(root))[1]
        for folder, _, files in os.walk(root):
            self._flush_folder(folder)
            for name in files:
                self._flush_file(os.path.join(folder, name))

    def __call__(self, operation: Operation, do: Do) -> Any:
        with self._lock:  # one after the other: a state belongs to one operation
            self.note()
            result = do()
            if operation.name in ("fsync", "fdatasync") and os.path.exists(operation.path):
                flush = self._flush_folder if os.path.isdir(operation.path) else self._flush_file
                flush(operation.path)
            return result

    def note(self, *, committed: bool = False) -> None:
        """Keep the state as it is."""
        live: Entries = {}
        unflushed: dict[str, str] = {}
        for folder, folders, files in os.walk(self._root):
            for name in (*folders, *files):
                path = os.path.join(folder, name)
                kind, inode = live[os.path.relpath(path, self._root)] = self._seen(path)
                if kind == "file" and self._at_flush.get(inode) != _changed(path):
                    unflushed[inode] = self._blob(path, inode)
        durable = {inode: dict(entries) for inode, entries in self._durable.items()}
        self.cuts.append(Cut(durable, live, dict(self._flushed), unflushed, committed))

    def _seen(self, path: str) -> list[str]:
        status = os.lstat(path)
        inode = f"{status.st_dev}-{status.st_ino}"
        if inode not in self._held:
            self._held[inode] = os.open(path, os.O_PATH | os.O_NOFOLLOW)
        return ["folder" if os.path.isdir(path) else "file", inode]

    def _flush_folder(self, path: str) -> None:
        self._durable[self._seen(path)[1]] = {name: self._seen(os.path.join(path, name)) for name in os.listdir(path)}

    def _flush_file(self, path: str) -> None:
        inode = self._seen(path)[1]
        self._flushed[inode] = self._blob(path, inode)
        self._at_flush[inode] = _changed(path)

    def _blob(self, path: str, inode: str) -> str:
        size, modified = _changed(path)
        name = f"{inode}-{modified}-{size}"
        if not (self._blobs / name).exists():
            shutil.copyfile(path, self._blobs / name)
        return name


def _changed(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns
