"""Kind ``flips``: one byte of one file of the store is another one, and what reads it is asked before `verify` is."""

from __future__ import annotations

import json
import os
import random
import shutil
import traceback
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

from benchmarks._faults.answers import READING, WRITING, Question
from benchmarks._faults.outcomes import Ending, Trial, worst
from benchmarks._faults.processes import LIMIT, Worker, traceback_in
from benchmarks._faults.world import World, set_apart

OTHERS = 2000
"""Random bytes over every file that is no JSON."""
DERIVED = ("embeddings.h5", "report.html", ".lock")
"""Endings of files that no answer comes from."""
READERS = {
    "store.json": ("search --id", "info"),
    "space.json": ("search --text", "search --vector"),
    "index.json": ("search --id", "search --vector"),
    "label/head.json": ("predict label",),
    "trees/head.json": ("predict trees",),
    "aligned/head.json": ("search aligned",),
}
"""Which questions read a JSON: every one of its bytes is flipped, and only each `ALL`-th is put to all the others as well."""
ALL = 16

Found = list[tuple[Ending, str]]


class Flips:
    """Trials of one world."""

    kind = "flips"

    def __init__(self, world: World) -> None:
        self._world = world
        self._right: dict[str, Any] = {}

    def trials(self, rng: random.Random) -> Iterator[Trial]:
        """Every byte of every JSON, and `OTHERS` random bytes of all other files, in turn."""
        files = sorted(p for p in self._world.base.rglob("*") if p.is_file() and p.stat().st_size)
        documents = [self._case(p, at, rng) for p in files if p.suffix == ".json" for at in range(p.stat().st_size)]
        rest = [p for p in files if p.suffix != ".json"]
        others = [self._case(p, rng.randrange(p.stat().st_size), rng) for p in rest for _ in range(OTHERS // len(rest) + 1)]
        rng.shuffle(documents)
        rng.shuffle(others)
        with Worker(self._world.root / f"worker-{os.getpid()}") as worker:
            for pair in zip_longest(documents, others):
                yield from (self._trial(case, worker) for case in pair if case is not None)

    def trial(self, case: str) -> Trial:
        """One flip; `case` is the file, the offset and what its byte is XORed with: ``store.json 1200 4``."""
        with Worker(self._world.root / f"worker-{os.getpid()}") as worker:
            return self._trial(case, worker)

    def _trial(self, case: str, worker: Worker) -> Trial:
        if not self._right:
            ended = worker.ask(_answers, self._world.root, self._world.base, limit=LIMIT)
            if ended.value is None:
                raise RuntimeError(f"the undamaged store does not answer: {ended.err[-2000:]}")
            self._right.update(ended.value)
        ended = worker.ask(flipped, self._world.root, self._world.base, case, self._right, limit=LIMIT)
        if ended.hung:
            return Trial(self.kind, case, Ending.HANG, f"more than {LIMIT:.0f} s")
        if ended.value is None:
            trace = traceback_in(ended.err)
            return Trial(self.kind, case, Ending.SIGNAL if ended.code < 0 else Ending.TRACEBACK, f"{ended.code}: {trace}")
        return Trial(self.kind, case, Ending(ended.value[0]), ended.value[1])

    def _case(self, path: Path, at: int, rng: random.Random) -> str:
        changed = 1 << rng.randrange(8) if at % 2 else rng.randrange(1, 256)
        return f"{path.relative_to(self._world.base)} {at} {changed}"


def flipped(root: Path, base: Path, case: str, right: dict[str, Any]) -> tuple[str, str]:
    """In the worker: flip a byte in a copy, ask everything, then `verify`; how it ended, and what was seen."""
    import embedstore as es
    from embedstore.errors import EmbedstoreError

    file, at, changed = case.rsplit(" ", 2)
    store = _copy(root, base)
    path = store / file
    everything = path.suffix != ".json" or int(at) % ALL == 0
    reading = {name: READING[name] for name in (READING if everything else readers_of(file))}
    if int(at) % 4 == 0:  # what this machine read before is remembered to be good
        _answers_of(store, root, {"search --id": READING["search --id"]})
    before = path.read_bytes()
    path.write_bytes(before[: int(at)] + bytes([before[int(at)] ^ int(changed)]) + before[int(at) + 1 :])
    found = [_judged(name, question, store, root, right[name], path.name) for name, question in reading.items()]
    try:
        problems = es.verify(store).problems
    except EmbedstoreError as error:
        problems = [str(error)]
    except Exception:
        found.append((Ending.TRACEBACK, f"verify: {_last()}"))
        problems = [""]
    if problems:
        found.append((Ending.DETECTED, problems[0]))
    elif not harmless_by_nature(path, before):
        found.append((Ending.WRONG, "verify calls the store clean"))
    if everything:
        found += [_judged(name, question, store, root, right[name], path.name) for name, question in WRITING.items()]
    shutil.rmtree(store)
    return worst(found)


def readers_of(file: str) -> tuple[str, ...]:
    """The questions that read the JSON `file`."""
    return next(names for ending, names in READERS.items() if file.endswith(ending))


def harmless_by_nature(path: Path, before: bytes) -> bool:
    """Whether the changed file means what it meant: nothing is read from it, or its JSON is the same document."""
    if path.name.endswith(DERIVED):
        return True
    try:
        return path.suffix == ".json" and json.loads(path.read_bytes()) == json.loads(before)
    except ValueError:
        return False


def _judged(name: str, question: Question, store: Path, root: Path, right: Any, damaged: str) -> tuple[Ending, str]:
    from embedstore.errors import EmbedstoreError

    try:
        answer = plain(question(store, root))
    except EmbedstoreError as error:
        if "\n" in str(error):
            return Ending.WRONG, f"{name}: an error of several lines: {error}"
        if damaged not in str(error):
            return Ending.WRONG, f"{name}: the error does not name the file: {error}"
        return Ending.DETECTED, f"{name}: {error}"
    except Exception:
        return Ending.TRACEBACK, f"{name}: {_last()}"
    if answer != right:
        return Ending.WRONG, f"{name}: {str(answer)[:150]} instead of {str(right)[:150]}"
    return Ending.HARMLESS, ""


def _answers(root: Path, base: Path) -> dict[str, Any]:
    store = _copy(root, base)
    answers = _answers_of(store, root, READING | WRITING)
    shutil.rmtree(store)
    return answers


def _answers_of(store: Path, root: Path, questions: dict[str, Question]) -> dict[str, Any]:
    return {name: plain(question(store, root)) for name, question in questions.items()}


def _copy(root: Path, base: Path) -> Path:
    """A copy of the store, always at the same place, so that answers which name it are the same."""
    folder = root / f"flips-{os.getpid()}"
    set_apart(folder)
    shutil.rmtree(folder / "a.store", ignore_errors=True)
    return Path(shutil.copytree(base, folder / "a.store"))


def plain(value: Any) -> Any:
    """What JSON makes of an answer, so that those of two processes can be compared."""
    return json.loads(json.dumps(value, default=str))


def _last() -> str:
    return traceback_in(traceback.format_exc())
