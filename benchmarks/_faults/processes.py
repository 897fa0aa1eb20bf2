"""Children that may be killed, hang, crash or write a traceback, and what became of them.

They are forked from a server that has imported what is slow to import, so that a trial costs tenths of a second.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import multiprocessing
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

LIMIT = 60.0
"""Seconds after which a child counts as hanging, even on a machine that has ten times as much to do as it can."""
PRELOAD = ["benchmarks._faults.preload"]


@dataclass(frozen=True)
class Ended:
    """A child that is no more.

    Parameters
    ----------
    code : int
        Its exit code; the negative number of the signal that ended it.
    hung : bool
        It was killed because its time was up.
    out, err : str
        What it wrote to stdout and stderr.
    value : Any
        What its function returned, by way of JSON, if it did.
    """

    code: int
    hung: bool
    out: str
    err: str
    value: Any = None

    @property
    def killed(self) -> bool:
        """Whether SIGKILL ended it before its time was up."""
        return self.code == -signal.SIGKILL and not self.hung

    @property
    def last(self) -> str:
        """The last line on stderr that is not empty."""
        return next((line for line in reversed(self.err.splitlines()) if line.strip()), "")


def start(function: Callable[..., Any], *arguments: Any, folder: Path, memory: int | None = None) -> BaseProcess:
    """Start a child that runs ``function(*arguments)``; its stdout, stderr and value go to `folder`.

    Parameters
    ----------
    memory : int, optional
        Bytes of address space that it may take beyond what it begins with.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)  # counts for the first child
    folder.mkdir(parents=True, exist_ok=True)
    child = context.Process(target=_child, args=(function, arguments, folder, memory))
    child.start()
    return child


def finish(child: BaseProcess, folder: Path, limit: float = LIMIT) -> Ended:
    """Wait for a child of `start`; it is killed where it takes longer than `limit` seconds."""
    child.join(limit)
    if hung := child.exitcode is None:
        child.kill()
        child.join()
    code = child.exitcode
    child.close()
    out, err = (_text(folder / name) for name in ("out", "err"))
    try:
        value = json.loads((folder / "value").read_bytes())
    except (OSError, ValueError):
        value = None
    return Ended(-1 if code is None else code, hung, out, err, value)


def call(function: Callable[..., Any], *arguments: Any, folder: Path, limit: float = LIMIT, memory: int | None = None) -> Ended:
    """`start` and `finish`."""
    return finish(start(function, *arguments, folder=folder, memory=memory), folder, limit)


class Worker:
    """A child that stays, for trials that take hundredths of a second; it is replaced when it crashes, hangs or gets old."""

    def __init__(self, folder: Path, *, lives: int = 200, memory: int | None = None) -> None:
        self._folder, self._lives, self._memory = folder, lives, memory
        self._child: BaseProcess | None = None
        self._ends: tuple[Connection, Connection] | None = None
        self._left = 0

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def ask(self, function: Callable[..., Any], *arguments: Any, limit: float = LIMIT) -> Ended:
        """Run ``function(*arguments)`` in the child; `Ended` says what became of the call, with code 0 where it returned."""
        if self._child is None or not self._left:
            self._start()
        assert self._child is not None
        assert self._ends is not None
        self._left -= 1
        patience = 0.5
        try:
            self._ends[0].send((function, arguments))
            if self._ends[0].poll(limit):
                code, value, trace = self._ends[0].recv()
                return Ended(code, False, "", trace, value)
        except (EOFError, OSError):
            patience = LIMIT  # it is about to end
        child, folder = self._child, self._folder
        self._child = None
        self._ends[0].close()
        return finish(child, folder, patience)

    def _start(self) -> None:
        self._stop()
        self._ends = multiprocessing.get_context("forkserver").Pipe()
        self._child = start(_serve, self._ends[1], folder=self._folder, memory=self._memory)
        self._ends[1].close()
        self._left = self._lives

    def _stop(self) -> None:
        if self._child is not None and self._ends is not None:
            self._ends[0].close()
            finish(self._child, self._folder, 5.0)
            self._child = None


def _serve(connection: Connection) -> None:
    while True:
        try:
            function, arguments = connection.recv()
        except EOFError:
            return
        try:
            connection.send((0, function(*arguments), ""))
        except BaseException:
            connection.send((1, None, traceback.format_exc()))


def run_cli(arguments: list[str]) -> None:
    """The command line's own entry point, in this process."""
    from embedstore_cli.main import main

    sys.argv = ["embedstore", *arguments]
    main()


def cli_here(arguments: list[str], folder: Path) -> tuple[int, str, str]:
    """The command line in this process, which goes on after it: its exit code, and what it wrote to stdout and stderr."""
    sys.stdout.flush()
    sys.stderr.flush()
    folder.mkdir(parents=True, exist_ok=True)
    kept, streams = [os.dup(1), os.dup(2)], (sys.stdout, sys.stderr)
    _redirect(folder)
    code = 0
    try:
        run_cli(arguments)
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    except BaseException:
        code = 1
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = streams
        for descriptor, before in zip((1, 2), kept, strict=True):
            os.dup2(before, descriptor)
            os.close(before)
        gc.collect()  # a store that nobody uses any more must not look like a reader
    return code, _text(folder / "out"), _text(folder / "err")


def traceback_in(text: str) -> str:
    """The last line of the first traceback in what a child wrote; empty where there is none."""
    _, found, rest = text.partition("Traceback (most recent call last)")
    if not found:
        return "Fatal Python error" if "Fatal Python error" in text else ""
    lines = [line for line in rest.splitlines() if line.strip()]
    where = next((line.strip() for line in reversed(lines) if line.startswith('  File "')), "")
    what = next((line for line in lines[1:] if not line.startswith(" ")), "")
    return f"{what[:300]} ({where})"


def _child(function: Callable[..., Any], arguments: tuple[Any, ...], folder: Path, memory: int | None) -> None:
    _redirect(folder)
    faulthandler.enable()
    (folder / "value").unlink(missing_ok=True)
    _bound(memory)
    value = function(*arguments)
    (folder / "value").write_text(json.dumps(value))


def _redirect(folder: Path) -> None:
    """Have stdout and stderr written to files in `folder`."""
    for name, descriptor in (("out", 1), ("err", 2)):
        file = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, descriptor)
        os.close(file)


def _bound(memory: int | None) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory is not None:
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + memory, taken + memory))


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
