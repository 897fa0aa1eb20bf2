"""The store that faults are done to, the files it is made from, and the commands that write to it.

Small, made once a run and copied for every trial; everything in it follows from a seed. It has two embedded spaces and an
imported one, items without payload, failures, replaced and removed items, an approximate index, and a linear head, one of
trees and an alignment.
"""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks._faults.processes import LIMIT, Ended, call, run_cli

ITEMS, MORE, DIM = 160, 300, 16
CLASSES = ("axe", "bee", "cog")
FACTORY = "HNSW8,Flat"
ROTTEN = "spaces/text/part-000000.h5"
BUILD_LIMIT = 300.0
PRECIOUS = {"letter.txt": "dear reader", "deep/numbers.bin": "\0\1\2", "deep/part-000000.h5": "not yours"}


@dataclass(frozen=True)
class Command:
    """One command that writes.

    Parameters
    ----------
    name : str
    arguments : callable
        Of the store's path: what is typed after ``embedstore``.
    fresh : bool
        It makes a store where there is none.
    damaged : bool
        It begins with a vector part that has a rotten byte.
    """

    name: str
    arguments: Callable[[Path], list[str]]
    fresh: bool = False
    damaged: bool = False

    @property
    def unsure(self) -> bool:
        """Whether there need not be a store that can be read before the command is done."""
        return self.fresh or self.damaged

    def begin(self, world: World, path: Path) -> Path:
        """What is at `path` before the command: a copy of the store, or nothing."""
        if self.fresh:
            path.parent.mkdir(parents=True, exist_ok=True)
            return path
        world.copy(path)
        if self.damaged:
            with open(path / ROTTEN, "r+b") as file:
                file.seek((path / ROTTEN).stat().st_size // 2)
                file.write(b"rotten")
        return path


class World:
    """A folder with the sources, the finished store and every trial's copies.

    Parameters
    ----------
    root : Path
    items, more : int
        What the store holds, and what `embed` and `import` add to it.
    seed : int
    """

    def __init__(self, root: Path, *, seed: int = 0, items: int = ITEMS, more: int = MORE) -> None:
        self.root, self.seed, self.items, self.more = root, seed, items, more
        self.base = root / "base.store"
        self.states: dict[str, dict[str, Any]] = {}
        self._made = 0

    def build(self) -> World:
        """Write the sources and make the store.

        Raises
        ------
        RuntimeError
            A command fails on the undamaged store.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        write_sources(self.root, self.items, self.more, self.seed)
        for arguments in self._building():
            ended = self.cli(*arguments, limit=BUILD_LIMIT)
            if ended.code:
                raise RuntimeError(f"embedstore {' '.join(map(str, arguments))} ended with {ended.code}: {ended.err[-2000:]}")
        return self

    def _building(self) -> list[list[object]]:
        s, r = self.base, self.root
        spaces = ["--text", "hash:16", "--image", "hash:8"]
        train = ["--no-report", "--seeds", "1"]
        return [
            ["embed", r / "old.csv", "--store", s, *spaces],
            ["embed", r / "table.csv", "--store", s, *spaces],
            ["import", r / "given.npy", s, "--space", "given", "--modality", "text", "--metadata", r / "given.parquet"],
            ["remove", s, *(name(i) for i in range(5, self.items, 40))],
            ["index", s, "given", "--factory", FACTORY],
            ["train", s, "label", "--inputs", "given", "--name", "label", *train],
            ["train", s, "label", "--inputs", "given,text", "--name", "trees", "--head", "gbdt", *train],
            ["align", s, "--from", "text", "--to", "given"],
        ]

    def commands(self) -> dict[str, Command]:
        """Every command that writes to a store, by name."""
        r = self.root
        given = ["--space", "given", "--modality", "text", "--metadata", r / "more.parquet", "--add-items"]
        removed = [name(i) for i in range(3, self.items, 20)]
        table: dict[str, Callable[[Path], list[object]]] = {
            "embed": lambda s: ["embed", r / "more.csv", "--store", s, "--text", "hash:16", "--image", "hash:8"],
            "import": lambda s: ["import", r / "more.npy", s, *given],
            "remove": lambda s: ["remove", s, *removed],
            "compact": lambda s: ["compact", s],
            "index": lambda s: ["index", s, "given", "--factory", FACTORY],
            "train": lambda s: ["train", s, "price", "--inputs", "given", "--name", "label", "--replace", "--no-report"],
            "align": lambda s: ["align", s, "--from", "image", "--to", "given"],
            "dedup": lambda s: ["dedup", s, "--space", "text", "--exact", "--remove"],
        }
        if has_command("repair"):
            table["repair"] = lambda s: ["repair", s, r / "table.csv"]
        table["create"] = table["embed"]
        return {w: Command(w, _texts(arguments), w == "create", w == "repair") for w, arguments in table.items()}

    def folder(self) -> Path:
        """A new folder for a trial, with a `precious` one in it that nothing may touch."""
        self._made += 1
        path = self.root / f"trial-{os.getpid()}-{self._made}"
        for file, text in PRECIOUS.items():
            (path / "precious" / file).parent.mkdir(parents=True, exist_ok=True)
            (path / "precious" / file).write_text(text)
        return path

    def drop(self, folder: Path) -> None:
        """Delete the folder of a trial."""
        shutil.rmtree(folder, ignore_errors=True)

    def copy(self, to: Path) -> Path:
        """A hard copy of the store at `to`, with the times of its files."""
        return Path(shutil.copytree(self.base, to, symlinks=True))

    def cli(self, *arguments: object, limit: float = LIMIT, folder: Path | None = None) -> Ended:
        """Run ``embedstore ARGUMENTS`` in a child that remembers nothing of other trials."""
        folder = folder or self.root / "building"
        return call(run_alone, folder, [str(a) for a in arguments], folder=folder / "run", limit=limit)


def run_alone(folder: Path, arguments: list[str]) -> None:
    """The command line in this process; what it remembers, it remembers in `folder`; no hub is asked."""
    set_apart(folder)
    run_cli(arguments)


def set_apart(folder: Path) -> None:
    """Have this process remember what it checked in `folder`, and reach no model hub.

    Of other trials it knows nothing; of the store that all begin with, that FAISS and XGBoost can load its files.
    """
    os.environ.update({"XDG_CACHE_HOME": str(folder / "cache"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"})
    notes = "cache/embedstore/loadable"
    known = folder.parent / "building" / notes
    if known.is_dir() and not (folder / notes).exists():
        shutil.copytree(known, folder / notes, dirs_exist_ok=True)


def has_command(word: str) -> bool:
    """Whether the command line knows `word`."""
    import typer
    from embedstore_cli.main import app

    return word in typer.main.get_command(app).commands  # type: ignore[attr-defined]


def name(i: int) -> str:
    return f"item-{i:04d}"


def label_of(i: int) -> str:
    return CLASSES[i * 7 % len(CLASSES)]


def vector_of(i: int, version: int = 0, seed: int = 0) -> npt.NDArray[np.float32]:
    """The imported vector of item `i` (DIM,), near the centre of its label; another one for each version."""
    centre = np.random.default_rng([seed, CLASSES.index(label_of(i))]).standard_normal(DIM)
    noise = np.random.default_rng([seed, 99, i, version]).standard_normal(DIM)
    return (centre + 0.7 * noise).astype(np.float16).astype(np.float32)


def write_sources(root: Path, items: int, more: int, seed: int) -> None:
    """Tables, files and arrays: ``old.csv`` is `table.csv` before some of its texts changed, ``more.*`` go beyond it."""
    (root / "files").mkdir(exist_ok=True)
    for i in range(items + more):
        if i % 25 != 11:  # the others fail to be read
            (root / "files" / f"{i}.bin").write_bytes(f"file {i % 97} of {seed}".encode())
    _write_table(root / "old.csv", items, version=0, changed=range(0, items, 30))
    _write_table(root / "table.csv", items, version=1, changed=range(0, items, 30))
    _write_table(root / "more.csv", items + more, version=2, changed=range(0, items, 10))
    _write_vectors(root, "given", range(0, items), version=0, changed=range(0), seed=seed)
    _write_vectors(root, "more", range(0, items + more // 10), version=1, changed=range(0, items, 15), seed=seed)


def _write_table(path: Path, items: int, *, version: int, changed: range) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text", "image", "label", "price", "note"])
        for i in range(items):
            words = f"text {i % 150}" + (f" version {version}" if i in changed else "")
            text = "" if i % 20 == 9 else words
            writer.writerow([name(i), text, f"files/{i}.bin", label_of(i), f"{i * 1.25:.2f}", f"note {i}"])


def _write_vectors(root: Path, stem: str, which: range, *, version: int, changed: range, seed: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    vectors = np.stack([vector_of(i, version if i in changed else 0, seed) for i in which])
    np.save(root / f"{stem}.npy", vectors)
    pq.write_table(pa.table({"id": [name(i) for i in which]}), root / f"{stem}.parquet")


def _texts(arguments: Callable[[Path], list[Any]]) -> Callable[[Path], list[str]]:
    return lambda store: [str(argument) for argument in arguments(store)]
