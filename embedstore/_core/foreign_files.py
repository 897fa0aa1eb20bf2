"""Files that a library in C++ loads, and that were not made here: each is tried once in a child process before it is used.

A crafted file can crash XGBoost or FAISS. What was made on this machine, and what a child loaded without harm, is remembered
by its digest in the user's cache, so that it is loaded at once.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

from embedstore._core.atomic_files import cache_home
from embedstore.errors import CorruptStoreError, one_line

SECONDS = 120
"""A child takes no longer; 1 GB of index is loaded and looked through in a few seconds."""
SPARE = 2 << 30
"""Memory that a child may take beside `FACTOR` times the size of what it loads."""
FACTOR = 4

REFUSED = 3  # exit code of a child that found something wrong
_CHILD = (
    "import os, sys; sys.path[:] = sys.argv[1].split(os.pathsep); "
    "from embedstore._core.foreign_files import main; main(*sys.argv[2:])"
)

_HERE: set[Path] = set()
"""Notes of this process: there may be no folder to keep them in."""


def remember(kind: str, sha256: str) -> None:
    """Note that the file of this digest can be loaded."""
    note = _note(kind, sha256)
    _HERE.add(note)
    with contextlib.suppress(OSError):  # a machine that cannot remember tries again
        note.parent.mkdir(parents=True, exist_ok=True)
        note.touch()


def is_remembered(kind: str, sha256: str) -> bool:
    note = _note(kind, sha256)
    return note in _HERE or note.exists()


def try_once(kind: str, sha256: str, check: str, path: Path | None = None, data: bytes = b"") -> None:
    """Have a child process load a file, unless it is remembered.

    Parameters
    ----------
    kind : str
        The library.
    sha256 : str
        Of the file.
    check : str
        ``"module:function"``, called with the `path`, or with the `data` where there is none; it raises what is wrong.

    Raises
    ------
    CorruptStoreError
        The child found something wrong, or did not survive.
    """
    if is_remembered(kind, sha256):
        return
    size = len(data) if path is None else path.stat().st_size
    paths = os.pathsep.join(os.path.abspath(entry) for entry in sys.path if entry)
    command = [sys.executable, "-I", "-c", _CHILD, paths, check, str(FACTOR * size + SPARE), "" if path is None else str(path)]
    what = f"{path or 'a saved model'} ({size:,} bytes, made elsewhere)"
    try:
        done = subprocess.run(command, input=data, capture_output=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise CorruptStoreError(f"{what}: {kind} did not load it in {SECONDS} s.") from None
    if done.returncode == REFUSED:
        raise CorruptStoreError(f"{what}: {one_line(done.stderr.decode(errors='replace'), 200)}.")
    if done.returncode < 0:
        crash = signal.Signals(-done.returncode).name
        raise CorruptStoreError(f"{what} crashes {kind} ({crash} in a process of its own).")
    if done.returncode:
        told = one_line((done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"])[-1], 200)
        raise CorruptStoreError(f"{what} cannot be loaded by {kind} ({told}).")
    remember(kind, sha256)


def _note(kind: str, sha256: str) -> Path:
    return cache_home() / "loadable" / f"{kind}-{sha256[:64]}"


def main(check: str, memory: str, path: str) -> None:
    """The child: one file, bounded in memory, no core file."""
    module, _, function = check.partition(":")
    run = getattr(importlib.import_module(module), function)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    given = Path(path) if path else sys.stdin.buffer.read()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + int(memory),) * 2)
    try:
        run(given)
    except MemoryError:
        sys.stderr.write("it needs more memory than a file of its size can")
        sys.exit(REFUSED)
    except Exception as error:
        sys.stderr.write(one_line(error, 200).rstrip("."))
        sys.exit(REFUSED)
