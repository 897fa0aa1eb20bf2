"""Kind ``soak``: readers and a server beside a writer that adds, removes, compacts and indexes, every answer checked.

Vectors follow from ids, so that a score can be recomputed; the writer keeps a journal of which ids came and went with which
generation, so that a reader knows what the generation it opened must and must not hold.
"""

from __future__ import annotations

import json
import os
import random
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks._faults.outcomes import Ending, Trial
from benchmarks._faults.processes import finish, start, traceback_in
from benchmarks._faults.world import DIM, World, name, set_apart, vector_of

READERS = 4
SECONDS = 120.0
BATCH, GONE = 40, 25
SAME = 2e-3
"""How far a score may be off: vectors are stored as float16."""
SERVED = 200
"""Answers of a server from one generation before it opens the next."""


class Soak:
    """Trials of one world; every answer counts as one."""

    kind = "soak"

    def __init__(self, world: World, seconds: float = SECONDS) -> None:
        self._world, self._seconds = world, seconds

    def trials(self, rng: random.Random) -> Iterator[Trial]:
        """One long run."""
        yield from self.run(f"{self._seconds:g} {rng.randrange(1 << 30)}")

    def trial(self, case: str) -> Trial:
        """A run again: its first fault, or that there was none. Processes meet differently every time."""
        found = list(self.run(case))
        return next((trial for trial in found if trial.fault), found[0])

    def run(self, case: str) -> Iterator[Trial]:
        """`case` is how many seconds, and the seed."""
        seconds, seed = case.split()
        folder = self._world.folder()
        until = time.time() + float(seconds)
        words = ["writer", "server", *(f"reader-{i}" for i in range(READERS))]
        roles = [_write, _serve, *[_read] * READERS]
        children = [
            start(role, folder, until, int(seed) + i, folder=folder / word)
            for i, (word, role) in enumerate(zip(words, roles, strict=True))
        ]
        for word, child in zip(words, children, strict=True):
            ended = finish(child, folder / word, max(0.0, until - time.time()) + 60)
            if ended.value is None:
                ending = Ending.HANG if ended.hung else Ending.SIGNAL if ended.code < 0 else Ending.TRACEBACK
                yield Trial(self.kind, case, ending, f"{word}: {traceback_in(ended.err) or ended.last}")
                continue
            yield from (Trial(self.kind, case, Ending.HELD) for _ in range(ended.value["held"]))
            yield from (Trial(self.kind, case, Ending(e), f"{word}: {detail}") for e, detail in ended.value["faults"])
        self._world.drop(folder)


@dataclass
class Journal:
    """What the writer says: ids with the generation that brought them, and the one that they went with."""

    came: dict[int, int] = field(default_factory=dict)
    went: dict[int, float] = field(default_factory=dict)
    """Infinity while it is not known which generation it is."""

    @classmethod
    def read(cls, folder: Path) -> Journal:
        journal = cls()
        path = folder / "journal"
        for line in path.read_text().splitlines() if path.exists() else ():
            entry = json.loads(line)
            if entry["what"] == "came":
                journal.came.update(dict.fromkeys(entry["ids"], entry["generation"]))
            else:
                journal.went.update(dict.fromkeys(entry["ids"], entry["generation"] or float("inf")))
        return journal

    @staticmethod
    def write(folder: Path, what: str, ids: list[int], generation: int | None) -> None:
        line = json.dumps({"what": what, "ids": ids, "generation": generation}) + "\n"
        file = os.open(folder / "journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, line.encode())
        os.close(file)

    def surely_in(self, generation: int) -> list[int]:
        """Ids that this generation must hold."""
        return [
            i
            for i, came in self.came.items()
            if came <= generation and (i not in self.went or generation < self.went[i] < float("inf"))
        ]

    def surely_not_in(self, generation: int) -> set[int]:
        """Ids that it must not hold."""
        return {i for i, went in self.went.items() if went <= generation}


def _vectors(ids: list[int]) -> npt.NDArray[np.float32]:
    return np.stack([vector_of(i) for i in ids]) if ids else np.zeros((0, DIM), np.float32)


def _cosines(query: npt.NDArray[np.float32], ids: list[int]) -> npt.NDArray[np.float32]:
    vectors = _vectors(ids)
    return np.asarray(vectors @ query / (np.linalg.norm(vectors, axis=1) * np.linalg.norm(query)))


def _write(folder: Path, until: float, seed: int) -> dict[str, Any]:
    """The writer: batches of new items by import and embed, removals, compactions and indexes."""
    import embedstore as es

    set_apart(folder / "writer")
    rng, store, made, alive, done = random.Random(seed), folder / "a.store", 0, list[int](), 0
    while time.time() < until:
        step = rng.choice(("import", "import", "embed", "remove", "remove", "compact", "index"))
        if step in ("import", "embed") or len(alive) < 2 * BATCH:
            ids = list(range(made, made + BATCH))
            made += BATCH
            names = [name(i) for i in ids]
            if step == "embed":  # items first, their vectors in the other space after
                es.embed(_texts(folder, names), store, text="hash:16")
            es.import_vectors(_vectors(ids), store, space="given", modality="text", ids=names, add_items=True)
            Journal.write(folder, "came", ids, es.Store.open(store).generation)
            alive += ids
        elif step == "remove":
            ids = rng.sample(alive, GONE)
            Journal.write(folder, "went", ids, None)
            generation = es.Store.open(store).remove([name(i) for i in ids]).generation
            Journal.write(folder, "went", ids, generation)
            alive = [i for i in alive if i not in set(ids)]
        elif step == "compact":
            es.compact(store)
        else:
            es.index(store, "given", factory="HNSW8,Flat")
        done += 1
    problems = es.verify(store).problems
    held = sorted(es.Store.open(store).items.take(es.Store.open(store).items.rows, ["id"]).column("id").to_pylist())
    faults = [[Ending.WRONG, f"verify: {problem}"] for problem in problems]
    if held != sorted(name(i) for i in alive):
        faults.append([Ending.WRONG, f"{len(held)} items at the end instead of {len(alive)}"])
    return {"held": done, "faults": faults}


def _texts(folder: Path, names: list[str]) -> Path:
    path = folder / "texts.csv"
    path.write_text("\n".join(["id,text", *(f"{i},text of {i}" for i in names)]) + "\n")
    return path


def _read(folder: Path, until: float, seed: int) -> dict[str, Any]:
    """A reader: opens the store for every answer."""
    import embedstore as es

    def ask(rng: random.Random) -> tuple[int, Any]:
        opened = es.Store.open(folder / "a.store")
        return opened.generation, lambda **query: es.search(opened, **query)

    return _checked(folder, until, seed, ask, answers=1)


def _serve(folder: Path, until: float, seed: int) -> dict[str, Any]:
    """A server: keeps a `Searcher` for many answers, whatever is done to the store meanwhile."""
    import embedstore as es

    def ask(rng: random.Random) -> tuple[int, Any]:
        opened = es.Store.open(folder / "a.store")
        return opened.generation, es.Searcher(opened).search

    return _checked(folder, until, seed, ask, answers=SERVED)


def _checked(folder: Path, until: float, seed: int, opening: Any, *, answers: int) -> dict[str, Any]:
    set_apart(folder / f"cache-{seed}")
    rng = random.Random(seed)
    held, faults = 0, list[list[str]]()
    while not Journal.read(folder).came and time.time() < until:
        time.sleep(0.05)
    while time.time() < until:
        try:
            generation, search = opening(rng)
            for _ in range(answers):
                if wrong := _answer(folder, generation, search, rng):
                    faults.append([Ending.WRONG, f"generation {generation}: {wrong}"])
                else:
                    held += 1
        except Exception as error:
            shown = traceback_in(traceback.format_exc())
            faults.append([Ending.WRONG if "EmbedstoreError" in repr(type(error).__mro__) else Ending.TRACEBACK, shown])
        if len(faults) > 20:
            break
    return {"held": held, "faults": faults}


def _answer(folder: Path, generation: int, search: Any, rng: random.Random) -> str:
    """Ask once; what is wrong with the answer."""
    before = Journal.read(folder).surely_in(generation)
    if not before:
        return ""
    asked = rng.choice(before)
    exact = rng.random() < 0.5
    query = vector_of(asked)
    result = search(vector=query, space="given", k=5, recall=1 if exact else None)
    hits = [int(hit.id.removeprefix("item-")) for hit in result.results]
    scores = np.array([hit.score for hit in result.results])
    journal = Journal.read(folder)
    if gone := journal.surely_not_in(generation) & set(hits):
        return f"{name(min(gone))} was removed with generation {journal.went[min(gone)]}"
    if len(set(hits)) < len(hits):
        return f"an item twice: {hits}"
    if (off := np.abs(scores - _cosines(query, hits)).max(initial=0)) > SAME:
        return f"a score is off by {off:.4f}"
    must = journal.surely_in(generation)
    if exact or result.index.get("exact"):
        best = np.sort(_cosines(query, must))[::-1][:5]
        if len(hits) < len(best) or (best - scores[: len(best)]).max(initial=0) > SAME:
            return f"exact search for {name(asked)} missed an item that scores {best.round(3)}: {scores.round(3)}"
    return ""
