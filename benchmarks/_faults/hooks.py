"""Every file operation of a process, seen from outside embedstore: to count, delay, record or end it.

`install` wraps the functions of `os` and `open`; what C libraries write is seen when it is flushed or renamed, which the
package does itself. Operations are reported where they are below one folder.
"""

from __future__ import annotations

import builtins
import io
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BY_DESCRIPTOR = ("fsync", "fdatasync", "write", "ftruncate", "posix_fallocate")
BY_PATH = ("unlink", "remove", "mkdir", "rmdir", "truncate")
BY_TWO = ("replace", "rename", "link")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


@dataclass(frozen=True)
class Operation:
    """One operation that is about to happen.

    Parameters
    ----------
    name : str
        Of the function.
    path : str
        What it is done to, absolute; of two paths the second.
    source : str
        The first of two paths.
    descriptor : int
        The open file, or -1.
    """

    name: str
    path: str
    source: str = ""
    descriptor: int = -1


Do = Callable[[], Any]
Watch = Callable[[Operation, Do], Any]
"""Called instead of each operation; calls `do` to have it happen, and returns what it returned."""


def install(watch: Watch, root: Path) -> None:
    """Have `watch` called for every operation that writes below `root`, in this process, from now on."""
    inside = os.path.realpath(root) + os.sep
    for name in (*BY_DESCRIPTOR, *BY_PATH, *BY_TWO, "symlink", "open"):
        setattr(os, name, _wrapped(name, getattr(os, name), watch, inside))
    builtins.open = io.open = _opened(builtins.open, watch, inside)


def _wrapped(name: str, real: Callable[..., Any], watch: Watch, inside: str) -> Callable[..., Any]:
    def called(*args: Any, **kwargs: Any) -> Any:
        operation = _described(name, args, kwargs)
        if operation is None or not (operation.path + os.sep).startswith(inside):
            return real(*args, **kwargs)
        return watch(operation, lambda: real(*args, **kwargs))

    return called


def _opened(real: Callable[..., Any], watch: Watch, inside: str) -> Any:
    def called(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if isinstance(file, int) or not set(mode) & set("wxa+"):
            return real(file, mode, *args, **kwargs)
        path = _absolute(file, None)
        if not path.startswith(inside):
            return real(file, mode, *args, **kwargs)
        return watch(Operation("open", path), lambda: real(file, mode, *args, **kwargs))

    return called


def _described(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Operation | None:
    if name in BY_DESCRIPTOR:
        descriptor = args[0] if isinstance(args[0], int) else args[0].fileno()
        return Operation(name, _of_descriptor(descriptor), descriptor=descriptor)
    if name in BY_TWO:
        source = _absolute(args[0], kwargs.get("src_dir_fd"))
        return Operation(name, _absolute(args[1], kwargs.get("dst_dir_fd")), source)
    if name == "open":
        flags = args[1] if len(args) > 1 else kwargs.get("flags", 0)
        return Operation(name, _absolute(args[0], kwargs.get("dir_fd"))) if flags & WRITING else None
    path = args[1] if name == "symlink" else args[0]
    return Operation(name, _absolute(path, kwargs.get("dir_fd")))


def _absolute(path: Any, folder: int | None) -> str:
    """`path` without links in its folders, so that it can be compared with the watched one."""
    if isinstance(path, int):
        return _of_descriptor(path)
    base = os.getcwd() if folder is None else _of_descriptor(folder)
    head, tail = os.path.split(os.path.join(base, os.fsdecode(path)))
    return os.path.join(os.path.realpath(head), tail)


def _of_descriptor(descriptor: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return ""


class Counter:
    """Lets everything happen, and keeps the names and paths of what did."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        self._lock = threading.Lock()

    def __call__(self, operation: Operation, do: Do) -> Any:
        with self._lock:
            self.seen.append((operation.name, operation.path))
        return do()


class Killer:
    """Ends the process at one operation.

    Parameters
    ----------
    at : int
        Which one, from 0.
    when : str
        ``before`` or ``after`` it; ``torn``: before it, and half of the file that is about to be flushed was never written.
    """

    def __init__(self, at: int, when: str) -> None:
        self._left, self._when = at, when
        self._lock = threading.Lock()

    def __call__(self, operation: Operation, do: Do) -> Any:
        with self._lock:
            self._left -= 1
            mine = self._left == -1
        if mine and self._when == "torn" and operation.descriptor >= 0 and os.path.isfile(operation.path):
            os.truncate(f"/proc/self/fd/{operation.descriptor}", os.fstat(operation.descriptor).st_size // 2)
        if mine and self._when != "after":
            os.kill(os.getpid(), signal.SIGKILL)
        result = do()
        if mine:
            os.kill(os.getpid(), signal.SIGKILL)
        return result


class Delayer:
    """Waits a random while before and after operations, so that two processes meet in many ways."""

    def __init__(self, seed: int, longest: float) -> None:
        self._random, self._longest = random.Random(seed), longest

    def __call__(self, operation: Operation, do: Do) -> Any:
        self._wait()
        result = do()
        self._wait()
        return result

    def _wait(self) -> None:
        if self._random.random() < 0.5:
            time.sleep(self._random.random() * self._longest)
