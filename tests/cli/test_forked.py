"""Commands that tests run in forks of a server are what commands of their own processes are."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

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
