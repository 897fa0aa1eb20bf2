"""Commands that tests run in forks of a server are what commands of their own processes are."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from threading import Thread

import forked
import pytest
from helpers import run, server, start

TELLING = "import os, sys; print(os.getcwd(), os.environ['ABOUT'], sys.argv, sys.stdin.read()); sys.stderr.write('odd\\n'); "


@pytest.mark.parametrize(("ending", "code"), [("", 0), ("sys.exit(3)", 3), ("os._exit(4)", 4), ("os.kill(os.getpid(), 9)", -9)])
def test_one_has_what_its_caller_gives_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, code: int) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ABOUT", "this")
    done = run("-c", f"{TELLING}sys.stdout.flush(); {ending}", "a b", "é", given="ü".encode(), code=code)
    assert done.stdout == f"{tmp_path} this ['-c', 'a b', 'é'] ü\n"
    assert done.stderr == "odd\n"


@pytest.mark.parametrize("ending", ["raise ValueError('no')", "sys.exit('no')"])
def test_what_it_ends_with_is_told(ending: str) -> None:
    theirs = subprocess.run([sys.executable, "-c", f"import sys; {ending}"], capture_output=True, text=True)
    ours = run("-c", f"import sys; {ending}", code=theirs.returncode)
    assert ours.stderr.splitlines()[-1] == theirs.stderr.splitlines()[-1]


def test_what_is_to_be_done_at_the_end_is_done() -> None:
    code = "import atexit, threading, time; atexit.register(print, 'at last')\n"
    code += "threading.Thread(target=lambda: (time.sleep(0.05), print('a thread'))).start()"
    assert run("-c", code).stdout == "a thread\nat last\n"


def test_none_sees_what_another_did() -> None:
    run("-c", "import embedstore, os; embedstore.search = None; os.environ['MINE'] = '1'")
    assert run("-c", "import embedstore, os; print(embedstore.search is None, 'MINE' in os.environ)").stdout == "False False\n"


def test_one_may_be_killed() -> None:
    child = start("-c", "import signal; signal.pause()")
    with pytest.raises(TimeoutError):
        child.wait(0.01)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL


def test_for_shells_signals_are_passed_on() -> None:
    code = "import signal, sys\ntry: print('ready', flush=True); signal.pause()\nexcept KeyboardInterrupt: sys.exit(7)"
    command = [sys.executable, "-ISE", forked.__file__, "ask", server(), "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as asking:
        assert asking.stdout is not None
        assert asking.stdout.readline() == "ready\n"
        asking.send_signal(signal.SIGINT)
        assert asking.wait(60) == 7


@contextmanager
def answering(folder: Path, answer: Callable[[socket.socket], object]) -> Iterator[str]:
    """The address of a server that gives one caller this `answer` and no more."""
    address = str(folder / "socket")

    def serve() -> None:
        caller, _ = listening.accept()
        with caller:
            answer(caller)
            caller.shutdown(socket.SHUT_WR)
            while caller.recv(1 << 16):
                pass

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen()
        thread = Thread(target=serve, daemon=True)
        thread.start()
        yield address
        thread.join(10)


@pytest.mark.parametrize("answer", [b"", b"\0" * 7, b"\0" * 8], ids=["nothing", "a part", "process 0"])
def test_a_command_that_no_process_runs_is_an_error(tmp_path: Path, answer: bytes) -> None:
    """Not process 0, which stands for the process group of whoever kills it."""
    with answering(tmp_path, lambda caller: caller.sendall(answer)) as address, pytest.raises(ConnectionError):
        forked.Child(address, ["info"], streams=[0, 1, 2], folder="/", environment={})


def test_a_command_of_which_nobody_says_how_it_ended_has_not_succeeded(tmp_path: Path) -> None:
    with answering(tmp_path, lambda caller: caller.sendall((12345).to_bytes(8, "big"))) as address:
        child = forked.Child(address, ["info"], streams=[0, 1, 2], folder="/", environment={})
        assert child.pid == 12345
        with pytest.raises(ConnectionError, match="before it told how it ended"):
            child.wait()


def test_a_signal_that_comes_while_the_command_starts_is_passed_on(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-ISc", "import signal; signal.pause()"]) as command:
        started = Queue[subprocess.Popen[bytes]]()

        def answer(caller: socket.socket) -> None:
            caller.recv(1)
            started.get(timeout=60).send_signal(signal.SIGTERM)
            caller.sendall(command.pid.to_bytes(8, "big"))
            caller.sendall(command.wait(60).to_bytes(8, "big", signed=True))

        with answering(tmp_path, answer) as address:
            asking = subprocess.Popen([sys.executable, "-ISE", forked.__file__, "ask", address, "info"])
            started.put(asking)
            assert asking.wait(60) == -signal.SIGTERM
        assert command.returncode == -signal.SIGTERM
