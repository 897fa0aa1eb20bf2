"""Links, pipes, sockets, devices and folders where a store has files, and files where it has folders. Cases of ``hostile``."""

from __future__ import annotations

import os
import random
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

WAYS = ("moved", "link", "dangling", "fifo", "socket", "device", "folder", "file")
"""``moved``: a link to the true thing, which lies in the precious folder; ``link``: to a letter there."""
NEW = (
    *("store.json.tmp", "embeddings.h5.tmp", "items/part-000002.parquet.tmp", "items/part-000002.parquet", "items/deep"),
    *("spaces/text/part-000002.h5.tmp", "spaces/new", "heads/label/head.json.tmp", "heads/label/deep", "heads/new"),
    *("spaces/given/index/index.json.tmp", "spaces/given/index/base-000002.faiss.tmp", "heads/.label.lock", "readers"),
)
"""Names that a writer may come to use."""


def cases(base: Path, rng: random.Random) -> list[str]:
    """Every file and folder of the store, and every name in `NEW`, in every way."""
    there = sorted({str(p.relative_to(base)) for p in base.rglob("*")} | set(NEW))
    every = [f"strange {way} {path}" for path in there for way in WAYS]
    rng.shuffle(every)
    return every


def estrange(case: str, store: Path, precious: Path) -> bool:
    """Make the store at `store` what `case` says; False where this machine cannot, or nothing would change."""
    _, way, name = case.split(" ", 2)
    path, target = store / name, precious / "deep" / "true"
    path.parent.mkdir(parents=True, exist_ok=True)
    if way == "moved":
        if not os.path.lexists(path):
            return False
        shutil.move(path, target)
    elif os.path.lexists(path):
        if (way == "folder" and path.is_dir()) or (way == "file" and path.is_file()):
            return False
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    if way == "device":
        return _made(lambda: os.mknod(path, 0o20666, os.makedev(1, 5)))  # /dev/zero: reads never end
    if way == "fifo":
        os.mkfifo(path)
    elif way == "socket":
        return _made(lambda: _bind(path))
    elif way == "folder":
        (path / "inner").mkdir(parents=True)
    elif way == "file":
        path.write_text("a file")
    else:
        path.symlink_to({"moved": target, "link": precious / "letter.txt", "dangling": precious / "new"}[way])
    return True


def _made(make: object) -> bool:
    try:
        make()  # type: ignore[operator]
    except OSError:
        return False
    return True


def _bind(path: Path) -> None:
    """A socket at `path`, whose own name may be too long for one."""
    here = os.open(path.parent, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(f"/proc/self/fd/{here}/{path.name}")
    finally:
        os.close(here)


def picture(folder: Path) -> dict[str, tuple[object, ...]]:
    """Everything below a folder: what each entry is, when it changed, and what it holds."""
    return dict(_entries(folder))


def _entries(folder: Path) -> Iterator[tuple[str, tuple[object, ...]]]:
    for parent, folders, files in os.walk(folder):
        for path in (Path(parent), *(Path(parent) / name for name in (*folders, *files))):
            status = path.lstat()
            plain = path.is_file() and not path.is_symlink()
            yield str(path), (status.st_mode, status.st_ino, status.st_mtime_ns, path.read_bytes() if plain else b"")
