"""Small real files for tests."""

from __future__ import annotations

import atexit
import csv
import io
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from filelock import FileLock
from forked import Child
from PIL import Image

import embedstore as es
from embedstore.encoders.hash import HashEncoder
from embedstore.sources import MemorySource

TESTS = Path(__file__).parent
ROOT = TESTS.parent


@cache
def server() -> str:
    """The address of the server of `forked`, which starts with the first command and ends with this process."""
    address = Path(tempfile.mkdtemp(prefix="forked-")) / "socket"
    command = [sys.executable, str(TESTS / "forked.py"), "serve", str(address)]
    started = subprocess.Popen(command, stdin=subprocess.PIPE, cwd=TESTS)

    atexit.register(started.communicate)
    while not address.exists():
        assert started.poll() is None, "the server of commands ended"
        time.sleep(0.01)
    return str(address)


def start(*words: object, streams: Sequence[IO[bytes]] | None = None) -> Child:
    """Start the command (or ``-c CODE``) in a process of its own, with `streams` as its stdin, stdout and stderr or none."""
    with open(os.devnull, "r+b") as nothing:
        descriptors = [stream.fileno() for stream in streams or [nothing] * 3]
        return Child(server(), [str(w) for w in words], streams=descriptors, folder=os.getcwd(), environment=os.environ)


def run(*words: object, code: int | None = 0, given: bytes = b"") -> subprocess.CompletedProcess[str]:
    """Run the command (or ``-c CODE``) in a process of its own, with `given` on stdin, and check its exit code (None: any)."""
    with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        stdin.write(given)
        stdin.seek(0)
        ended = start(*words, streams=[stdin, stdout, stderr]).wait()
        out, err = (_text(file) for file in (stdout, stderr))
    assert ended == code or code is None, out + err
    return subprocess.CompletedProcess(words, ended, out, err)


def _text(file: IO[bytes]) -> str:
    """All of it, its lines ended as `subprocess` ends them."""
    file.seek(0)
    return io.TextIOWrapper(file, encoding="utf-8").read()


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that ``make(folder)`` fills once, however many workers ask for it."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / f"once-{name}"
    with FileLock(f"{folder}.lock"):
        if not (folder / "made").exists():
            shutil.rmtree(folder, ignore_errors=True)  # what a maker that failed left
            folder.mkdir()
            make(folder)
            (folder / "made").touch()
    return folder


def write_image(path: Path, seed: int = 0, size: tuple[int, int] = (32, 24)) -> Path:
    """A random JPEG or PNG."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def write_csv(path: Path, rows: list[dict[str, object]]) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


class Telling(HashEncoder):
    """Texts 'x y z…': numbers become the vector, so that labels can be learned."""

    def encode(self, batch):  # type: ignore[no-untyped-def]
        return np.array([[float(w) for w in payload.split()] for payload in batch], dtype=np.float32)


def telling_store(path: Path, n: int = 200, **columns: Any) -> es.Store:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, n)
    texts = [" ".join(f"{v:.3f}" for v in row) for row in np.eye(3)[y] + rng.normal(0, 0.4, (n, 3))]
    labels = [None if i % 50 == 9 else ["a", "b", "c"][k] for i, k in enumerate(y)]
    data = {"id": [f"i{i}" for i in range(n)], "text": texts, "label": labels, "n": list(range(n)), **columns}
    es.embed(MemorySource(data), path, text=Telling(3, "text", "telling"))
    return es.Store.open(path)


def write(path: Path, operation: str, arguments: dict[str, Any]) -> None:
    """One write to the store at `path`: ``embed`` (of numbers as texts), ``import``, ``remove``, ``index`` or ``compact``."""
    from embedstore.retrieval.compact import compact
    from embedstore.retrieval.index import index

    if operation == "embed":
        data = arguments["data"]
        es.embed(MemorySource(data), path, text=Telling(len(data["text"][0].split()), "text", "telling"))
    elif operation == "import":
        es.import_vectors(store=path, **arguments)
    elif operation == "remove":
        es.Store.open(path).remove(arguments["ids"])
    elif operation == "index":
        index(path, "text", **arguments)
    else:
        compact(path, **arguments)


def killed_write(path: Path, operation: str, arguments: dict[str, Any], at: int) -> None:
    """`write`, in a process that kills itself when the `at`-th file (from 1) would be renamed into place."""
    from embedstore._core import folders

    real, left = folders.publish, at

    def publish(folder: folders.Folder, temporary: str, name: str) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        real(folder, temporary, name)

    folders.publish = publish
    write(path, operation, arguments)


def run_killed(path: Path, operation: str, arguments: dict[str, Any], at: int) -> bool:
    """Run `killed_write` in a process of its own; whether it was killed before it ended."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["embedstore.retrieval.compact", "embedstore.ingest.embed", "faiss", "h5py", "pyarrow.parquet"]
    )
    process = context.Process(target=killed_write, args=(path, operation, arguments, at))
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0
