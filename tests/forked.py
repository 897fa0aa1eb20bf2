"""The command `embedstore` without the seconds that importing takes: a server imports once, and forks for every command.

Each command is a process of its own, with the caller's folder, environment, arguments and streams; it ends as the real one
does, and may be killed. Nothing is forked from the process of a test. What a fresh interpreter does of itself (what it imports,
its encodings, closed descriptors) is not tried here.

``python forked.py serve SOCKET`` is the server; when its stdin ends, it does too, and takes the socket's folder with it.
``python forked.py ask SOCKET WORDS…`` is the command for shells. A command is the words after ``embedstore``, or ``-c CODE`` as
of ``python -c``.
"""

from __future__ import annotations

import array
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NoReturn

IMPORTED = (
    *("embedstore_cli.main", "numpy", "pyarrow.parquet", "pyarrow.dataset", "duckdb", "h5py", "safetensors.numpy", "faiss"),
    *("scipy.optimize", "scipy.sparse.csgraph", "sklearn.model_selection", "xgboost", "torch", "pandas", "matplotlib.figure"),
)
"""What is slow to import, and starts nothing that a fork would lack."""


PASSED_ON = (signal.SIGTERM, signal.SIGINT)


class Child:
    """A command that the server at `address` runs: `pid`, then `wait` for its exit code.

    Raises
    ------
    ConnectionError
        The server ended, or what it had run the command did, before it said which process that is.
    """

    def __init__(
        self, address: str, words: Sequence[str], *, streams: Sequence[int], folder: str, environment: Mapping[str, str]
    ) -> None:
        self._server = socket.socket(socket.AF_UNIX)
        self._server.connect(address)
        parts = [folder, str(len(environment)), *(f"{k}={v}" for k, v in environment.items()), *words]
        text = os.fsencode("\0".join(parts))
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", streams))]
        self._server.sendmsg([len(text).to_bytes(8, "big")], rights)
        self._server.sendall(text)
        self.pid = self._told("which process runs it")
        if self.pid <= 0:  # to kill it would kill the caller's process group
            raise ConnectionError(f"The server of commands told of a process {self.pid}.")

    def wait(self, seconds: float | None = None) -> int:
        """The exit code, or the negative number of the signal that ended it.

        Raises
        ------
        TimeoutError
            It has not ended after so many `seconds`.
        ConnectionError
            Nobody is left to say how it ended.
        """
        self._server.settimeout(seconds)
        code = self._told("how it ended")
        self._server.close()
        return code

    def _told(self, what: str) -> int:
        """A number, which comes in one piece; a connection that has ended is none, for that would be a 0."""
        answer = self._server.recv(8)
        if len(answer) != 8:
            self._server.close()
            raise ConnectionError(f"The server of commands ended a command's connection before it told {what}.")
        return int.from_bytes(answer, "big", signed=True)


def ask(address: str, words: Sequence[str]) -> NoReturn:
    """Be the command: pass signals on to it, and end as it does."""
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)  # one that comes while the command starts is passed on too
    child = Child(address, words, streams=[0, 1, 2], folder=os.getcwd(), environment=os.environ)

    def pass_on(number: int, _: object) -> None:
        with suppress(ProcessLookupError):  # it has just ended
            os.kill(child.pid, number)

    for number in PASSED_ON:
        signal.signal(number, pass_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
    code = child.wait()
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def serve(address: str) -> None:
    """Import, and fork for every command until stdin ends."""
    import gc
    import select
    from importlib import import_module

    for name in IMPORTED:
        import_module(name)
    embedstore = import_module("embedstore")
    for name in embedstore.__all__:
        getattr(embedstore, name)
    gc.collect()
    gc.freeze()  # pages that nobody writes to are shared
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the processes that wait for commands
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address + ".new")
        listening.listen(64)
        os.rename(address + ".new", address)
        while listening in select.select([listening, 0], [], [])[0]:
            caller, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                _attend(caller)
            caller.close()
    os.unlink(address)
    os.rmdir(os.path.dirname(address))


def _attend(caller: socket.socket) -> NoReturn:
    """In a fork of the server: have another one run what `caller` asks for, and tell how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    head, rights, _, _ = caller.recvmsg(8, socket.CMSG_SPACE(3 * 4), socket.MSG_WAITALL)
    streams = array.array("i", rights[0][2])
    length = int.from_bytes(head, "big")
    folder, count, *rest = os.fsdecode(caller.recv(length, socket.MSG_WAITALL)).split("\0")
    pid = os.fork()
    if pid == 0:
        caller.close()
        _become(streams, folder, rest[: int(count)], rest[int(count) :])
    for stream in (0, 1, 2, *streams):
        os.close(stream)
    caller.sendall(pid.to_bytes(8, "big"))
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    caller.sendall(code.to_bytes(8, "big", signed=True))
    os._exit(0)


def _become(streams: Sequence[int], folder: str, environment: Sequence[str], words: Sequence[str]) -> NoReturn:
    """Be a process as `caller` would have started it, and end."""
    import atexit
    import threading
    import traceback

    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variable.split("=", 1) for variable in environment)
    sys.stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115 (as long as the process)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.path[:1] = ["", *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    code: object = 0
    try:
        _execute(words)
    except SystemExit as exit_:
        code = exit_.code
        if not isinstance(code, int | None):
            sys.stderr.write(f"{code}\n")
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def _execute(words: Sequence[str]) -> None:
    if words[:1] == ["-c"]:
        sys.argv = ["-c", *words[2:]]
        exec(compile(words[1], "<string>", "exec"), {"__name__": "__main__"})
        return
    from embedstore_cli.main import main

    sys.argv = ["embedstore", *words]
    main()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        ask(sys.argv[2], sys.argv[3:])
