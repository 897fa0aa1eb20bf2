"""What a terminal, a pipe or a closed descriptor makes of the output: it is done, or fails in one line."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from embedstore_cli import render, streams

import embedstore as es
from embedstore.sources import MemorySource

STEERING = "\x1b[31m\x1b]0;title\x07\r\x08\x7f\x9b1A\u202e\u2066"
SHOWN = r"\x1b[31m\x1b]0;title\x07\r\x08\x7f\x9b1A\u202e\u2066"


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A store whose words would turn a terminal, rich or a spreadsheet."""
    ids, labels = [f"é{STEERING}{i}" for i in range(6)], [f"[red]{STEERING}", "[/b]:heart:"] * 3
    data = {"id": ids, "text": [f"a {i}" for i in range(6)], "label": labels, f"[/x]{STEERING}": ["one\ntwo\t…"] * 6}
    path = tmp_path / "hostile"
    es.embed(MemorySource(data), path, text="hash:8")
    return path


def ascii_stdout(monkeypatch: pytest.MonkeyPatch) -> io.TextIOWrapper:
    """The ASCII stream below what `prepare` would make of it. In a test's body: pytest sets its own stdout before that."""
    below = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors=streams._ERRORS, newline="")
    monkeypatch.setattr(sys, "stdout", streams.Stream(below, sure=True))
    return below


def written(below: io.TextIOWrapper) -> str:
    below.flush()
    assert isinstance(below.buffer, io.BytesIO)
    return below.buffer.getvalue().decode("ascii")


def run(*arguments: object, redirect: str = "", **environment: str) -> subprocess.CompletedProcess[bytes]:
    """The command under bash, which alone can close a descriptor."""
    script = "from embedstore_cli.main import main; main()"
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(["bash", "-c", f'"$@" {redirect}', "-", *command], capture_output=True, env=os.environ | environment)


def test_characters_that_steer_are_shown() -> None:
    assert streams.shown(STEERING) == SHOWN
    assert streams.shown("a\nb\tc\u2028\ud800") == r"a\nb\tc\u2028\ud800"
    assert streams.shown("[red] 日本 é …") == "[red] 日本 é …"


def test_ascii_stream_gets_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    stdout = ascii_stdout(monkeypatch)
    render.print_table(["R² [/x]", STEERING], [["é…", f"[red]{STEERING}"], [None, ":heart: 日"]], numeric=["R² [/x]"])
    streams.say(f"über\n{STEERING} → [link=x]")
    text = written(stdout)
    assert "R2 [/x]" in text
    assert r"\xe9..." in text
    assert f"[red]{SHOWN}" in text
    assert r":heart: \u65e5" in text
    assert rf"\xfcber\n{SHOWN} -> [link=x]" in text
    assert "\x1b" not in text
    assert len({len(line) for line in text.splitlines()[1:4]}) == 1  # columns keep their widths


def test_json_is_ascii_where_the_stream_is(monkeypatch: pytest.MonkeyPatch) -> None:
    stdout = ascii_stdout(monkeypatch)
    document = {f"é{STEERING}": ["日…", float("nan"), "\ud800"]}
    streams.print_json(document)
    assert json.loads(written(stdout)) == {f"é{STEERING}": ["日…", None, "\ud800"]}


def test_json_escapes_what_steers(capsys: pytest.CaptureFixture[str]) -> None:
    streams.print_json({"a": f"é\x7f\x9b\u202e\u2066{STEERING}"})
    text = capsys.readouterr().out
    assert r"é\u007f\u009b\u202e\u2066" in text
    assert json.loads(text)["a"] == f"é\x7f\x9b\u202e\u2066{STEERING}"


def test_progress_on_a_terminal_shows_words_of_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        encoding = "ascii"

        def isatty(self) -> bool:
            return True

    below = Terminal()
    monkeypatch.setattr(sys, "stderr", streams.Stream(below, sure=False))
    monkeypatch.setenv("TERM", "xterm")
    with render.embedding_progress("embedding [/b]\x1b]0;x\x07é.csv"):
        pass
    with render.status("training") as say:
        say("[/]\x1b[2J")
    text = below.getvalue()
    assert r"embedding [/b]\x1b]0;x\x07\xe9.csv" in text
    assert "\x1b]0" not in text
    assert "\x1b[2J" not in text
    assert text.isascii()


def test_stderr_lets_a_bar_return_to_its_line() -> None:
    below = io.StringIO()
    stream = streams.Stream(below, sure=False)
    stream.write("\r 50%|##\x1b[31m")
    stream.write("\x1b[A")
    assert below.getvalue() == "\r 50%|##\\x1b[31m\x1b[A"


@pytest.mark.parametrize(
    "environment", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}, {"PYTHONIOENCODING": "latin-1"}]
)
def test_commands_on_streams_without_unicode(hostile: Path, environment: dict[str, str]) -> None:
    done = run("search", hostile, "--id", f"é{STEERING}0" if "LC_ALL" not in environment else "no", **environment)
    assert b"Traceback" not in done.stderr
    assert b"\x1b" not in done.stdout + done.stderr
    assert done.returncode == (2 if "LC_ALL" in environment else 0)
    done = run("search", hostile, "--text", "a 1", "--json", **environment)
    assert len(json.loads(done.stdout.decode("ascii"))["results"]) == 6
    assert run("search", "--help", **environment).stdout.decode("ascii").startswith("Usage")


@pytest.mark.parametrize("redirect", [">&-", "2>&-", "<&-", ">&- 2>&- <&-", "| head -c 1; exit ${PIPESTATUS[0]}"])
def test_commands_outlive_their_streams(hostile: Path, redirect: str) -> None:
    done = run("info", hostile, redirect=redirect)
    assert done.returncode == 0
    assert done.stderr == b""


def test_standard_input_that_is_closed(tmp_path: Path) -> None:
    done = run("embed", "-", "--store", tmp_path / "s", "--text", "hash:8", redirect="<&-")
    assert done.returncode == 1
    assert done.stderr.startswith(b"embedstore: Standard input is closed; pipe JSON lines into it")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_full_disk_below_stdout(hostile: Path) -> None:
    done = run("info", hostile, redirect="> /dev/full")
    assert done.returncode == 1
    assert done.stderr.startswith(b"embedstore: standard output: No space left on device. Make room")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_files_that_are_not_ours(hostile: Path, tmp_path: Path) -> None:
    store, out = es.Store.open(hostile), tmp_path / "p.csv"
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == 0 and folder != Path("/") and str(folder).startswith(str(tmp_path.parents[2])):
            folder.chmod(0o755)
    os.seteuid(65534)
    try:
        with pytest.raises(es.EmbedstoreError, match=r"cannot be written to: Permission denied\. Check its owner"):
            store.remove([store.items.take(store.items.rows[:1], ["id"]).column("id")[0].as_py()])
        with pytest.raises(es.EmbedstoreError, match=r"cannot be written: Permission denied\. Check its owner"):
            es.search_batch(store, "text", out)
    finally:
        os.seteuid(0)
    hostile.chmod(0)
    os.seteuid(65534)
    try:
        with pytest.raises(es.EmbedstoreError, match=r"hostile cannot be read: Permission denied\. Check its owner"):
            es.Store.open(hostile)
    finally:
        os.seteuid(0)
        hostile.chmod(0o755)


def test_a_full_disk_loses_nothing(tmp_path: Path, hostile: Path) -> None:
    """In a shell whose files may have 4 kB, as on a disk without room."""
    rows = "".join(json.dumps({"id": f"n{i}", "text": f"{i} " * 40}) + "\n" for i in range(400))
    (tmp_path / "new.jsonl").write_text(rows, encoding="utf-8")
    before = es.Store.open(hostile).generation
    script = "ulimit -f 4; trap '' XFSZ; exec \"$@\""
    main = "from embedstore_cli.main import main; main()"
    command = [sys.executable, "-c", main, "embed", tmp_path / "new.jsonl", "--store", hostile, "--text", "hash:8"]
    done = subprocess.run(["bash", "-c", script, "-", *map(str, command)], capture_output=True)
    assert done.returncode == 1, done.stderr
    assert b"File too large" in done.stderr
    assert b"Make room" in done.stderr
    assert b"Traceback" not in done.stderr
    assert es.Store.open(hostile).generation == before
    assert es.verify(es.Store.open(hostile)).clean
