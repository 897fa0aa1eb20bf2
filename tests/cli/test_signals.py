"""SIGTERM is answered as Ctrl-C is: one line, exit code 1, what was committed is kept, and nothing is left running."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import embedstore as es
from embedstore.sources import MemorySource

LINE = "embedstore: interrupted; what was committed is kept. Run the same command to go on.\n"
READY = "ready"
ENDLESS = "(select count(*) from items a, items b, items c, items d, items e where a.n + e.n > items.n) > 3"
RUN = f"""
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it

def told(real):
    def call(*args, **kwargs):
        print({READY!r}, flush=True)
        return real(*args, **kwargs)
    return call

{{patch}}
from embedstore_cli.main import main
main()
"""
"""Runs a command that says on stdout when it is in the middle of what `patch` names."""

PATCHES = {
    "embed": "from embedstore.encoders.hash import HashEncoder\nHashEncoder.encode = told(HashEncoder.encode)",
    "search": "from embedstore.store import items\nitems.within = told(items.within)",
    "train": "import xgboost\nxgboost.train = told(xgboost.train)",
    "index": "import faiss\nfaiss.IndexHNSWSQ.add = told(faiss.IndexHNSWSQ.add)",
}


def interrupted(command: list[str], number: int, stdin: int | None = None) -> str:
    """What a command says on stderr when it gets the signal `number` in the middle of its work."""
    script = RUN.format(patch=PATCHES[command[0]])
    process = subprocess.Popen(
        [sys.executable, "-c", script, *command],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if name != "EMBEDSTORE_DEBUG"},
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == READY, process.communicate()
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 1, said
        with pytest.raises(ProcessLookupError):  # no worker outlives it
            os.killpg(process.pid, 0)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    return said


@pytest.fixture
def numbered(tmp_path: Path) -> Path:
    n = 3000
    data = {
        "id": [f"i{i}" for i in range(n)],
        "text": [f"t{i}" for i in range(n)],
        "n": list(range(n)),
        "label": ["a", "b"] * 1500,
    }
    es.embed(MemorySource(data), tmp_path / "a.store", text="hash:64")
    return tmp_path / "a.store"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_filter_ends_at_a_signal(numbered: Path, number: int) -> None:
    assert interrupted(["search", str(numbered), "--id", "i1", "--where", ENDLESS], number) == LINE


def test_training_ends_at_sigterm(numbered: Path) -> None:
    said = interrupted(["train", str(numbered), "label", "--head", "gbdt", "--no-report"], signal.SIGTERM)
    assert said.endswith(LINE), said
    assert es.Store.open(numbered).heads == []
    assert es.verify(numbered).clean


def written(pipe: int, content: bytes) -> None:
    """Write to a pipe that its reader may leave."""
    with contextlib.suppress(BrokenPipeError):
        while content:
            content = content[os.write(pipe, content) :]


def test_embedding_that_waits_for_its_input_ends_at_sigterm_and_keeps_what_was_committed(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    lines = "".join(f'{{"id": "i{i}", "text": "t{i}"}}\n' for i in range(9000))
    store = tmp_path / "a.store"
    writer = threading.Thread(target=written, args=(writing, lines.encode()))
    writer.start()  # the pipe holds less than this: somebody has to write while the command reads
    try:
        said = interrupted(["embed", "-", "--store", str(store), "--text", "hash:8"], signal.SIGTERM, reading)
    finally:
        os.close(reading)
        writer.join()
        os.close(writing)
    assert said.endswith(LINE), said
    assert not store.exists() or es.verify(store).clean  # nothing was committed: no store


@pytest.mark.slow
def test_building_an_index_ends_at_sigterm(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(60_000, 64)).astype(np.float32)
    es.import_vectors(vectors, tmp_path / "a.store", modality="text")
    said = interrupted(["index", str(tmp_path / "a.store"), "text", "--factory", "HNSW32"], signal.SIGTERM)
    assert said.endswith(LINE), said
    assert es.verify(tmp_path / "a.store").clean


def test_an_interruption_that_a_destructor_swallows_comes_again(numbered: Path) -> None:
    patch = """
import signal
class Swallowing:
    def __del__(self):
        signal.raise_signal(signal.SIGTERM)
from embedstore.retrieval import search as searching
def endless(*_, **__):
    Swallowing()
    signal.pause()
searching.Searcher.answer = endless
"""
    script = RUN.format(patch=patch)
    command = [sys.executable, "-c", script, "search", str(numbered), "--id", "i1"]
    environment = {name: value for name, value in os.environ.items() if name != "EMBEDSTORE_DEBUG"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert (done.returncode, done.stderr) == (1, LINE)
