"""Kinds ``creators`` and ``races``: processes that meet in one store, slowed down at random at every file operation.

Two that make the same store at once; and readers beside every command that commits once: an answer is right where it is that of
the store before the command or after it.
"""

from __future__ import annotations

import random
import traceback
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from benchmarks._faults.aftermath import unexpected
from benchmarks._faults.answers import READING
from benchmarks._faults.flips import plain
from benchmarks._faults.hooks import Delayer, install
from benchmarks._faults.outcomes import Ending, Trial, in_turn, worst
from benchmarks._faults.processes import LIMIT, call, finish, run_cli, start, traceback_in
from benchmarks._faults.state import state_of
from benchmarks._faults.world import World, name, set_apart

CREATIONS, MEETINGS = 200, 50
LONGEST = 0.02
"""Seconds of one delay at most."""
MAKERS = ("embed", "import", "open")
BESIDE = ("train", "index", "compact", "remove", "dedup", "align")
ASKED = ("search --id", "search --recall 1", "search --where", "predict label", "predict trees", "info")


class Creators:
    """Two that make the same store at once."""

    kind = "creators"

    def __init__(self, world: World) -> None:
        self._world = world

    def trials(self, rng: random.Random) -> Iterator[Trial]:
        """`CREATIONS` pairs, every two of `MAKERS` in turn."""
        pairs = [(a, b) for a in MAKERS for b in MAKERS]
        for a, b in islice(cycle(pairs), CREATIONS):
            yield self.trial(f"{a} {b} {rng.randrange(1 << 30)}")

    def trial(self, case: str) -> Trial:
        """One pair; `case` is both makers and the seed of their delays: ``embed import 17``."""
        *makers, seed = case.split()
        folder = self._world.folder()
        ending, detail = self._created(folder, makers, int(seed))
        self._world.drop(folder)
        return Trial(self.kind, case, ending, detail)

    def _created(self, folder: Path, makers: list[str], seed: int) -> tuple[Ending, str]:
        """Two processes make the store at once: at least one does its work, the other too or it is told."""
        store = folder / "a.store"
        table = self._makers(store)
        children = [
            start(_delayed, folder, table[maker][0], seed + i, folder=folder / f"maker-{i}") for i, maker in enumerate(makers)
        ]
        ended = [finish(child, folder / f"maker-{i}", LIMIT) for i, child in enumerate(children)]
        for one in ended:
            if one.hung or one.code not in (0, 1, 2) or traceback_in(one.err) or (one.code and "embedstore: " not in one.err):
                return unexpected(one)
        if all(one.code for one in ended):
            return Ending.WRONG, f"nobody won: {ended[0].last} / {ended[1].last}"
        wanted = {i for one, maker in zip(ended, makers, strict=True) if not one.code for i in table[maker][1]}
        after = call(_created_state, folder, store, folder=folder / "after", limit=LIMIT)
        if after.value is None:
            return unexpected(after)
        if after.value["problems"]:
            return Ending.WRONG, f"verify: {after.value['problems'][0]}"
        if set(after.value["items"]) != wanted:
            return Ending.WRONG, f"{len(after.value['items'])} items instead of {len(wanted)}; codes {[o.code for o in ended]}"
        return Ending.HELD, ""

    def _makers(self, store: Path) -> dict[str, tuple[list[str], list[str]]]:
        """What makes a store, and the ids it brings."""
        root, few = self._world.root, range(self._world.items)
        given = ["--space", "given", "--modality", "text", "--metadata", root / "given.parquet", "--add-items"]
        table: dict[str, tuple[list[Any], list[str]]] = {
            "embed": (["embed", root / "old.csv", "--store", store, "--text", "hash:16"], [name(i) for i in few]),
            "import": (["import", root / "given.npy", store, *given], [name(i) for i in few]),
            "open": (["open", store], []),
        }
        return {word: ([str(a) for a in arguments], ids) for word, (arguments, ids) in table.items()}


class Races:
    """Readers beside a writer."""

    kind = "races"

    def __init__(self, world: World) -> None:
        self._world = world
        self._right: dict[str, dict[str, Any]] = {}

    def trials(self, rng: random.Random) -> Iterator[Trial]:
        """`MEETINGS` of readers with every command of `BESIDE`, in turn."""
        return in_turn([[f"{word} {rng.randrange(1 << 30)}" for _ in range(MEETINGS)] for word in BESIDE], self.trial)

    def trial(self, case: str) -> Trial:
        """One race; `case` is the command and the seed of its delays: ``train 17``."""
        word, seed = case.split()
        folder = self._world.folder()
        ending, detail = self._beside(folder, word, int(seed))
        self._world.drop(folder)
        return Trial(self.kind, case, ending, detail)

    def _beside(self, folder: Path, word: str, seed: int) -> tuple[Ending, str]:
        """A command at work, and a reader that asks until it is done."""
        store = self._world.copy(folder / "a.store")
        right = [self._answers(""), self._answers(word)]
        reader = start(_reading, folder, store, folder=folder / "reader")
        writer = start(_delayed, folder, self._world.commands()[word].arguments(store), seed, folder=folder / "writer")
        wrote = finish(writer, folder / "writer", LIMIT)
        (folder / "done").touch()
        read = finish(reader, folder / "reader", LIMIT)
        if wrote.code or wrote.hung or read.value is None:
            return unexpected(wrote if wrote.code or wrote.hung else read)
        found = [(Ending.HELD, "")]
        for question, answer, trace in read.value:
            if trace:
                found.append((Ending.TRACEBACK if "Traceback" in trace else Ending.WRONG, f"{question}: {trace[-300:]}"))
            elif answer not in [answers[question] for answers in right]:
                found.append((Ending.WRONG, f"{question}: neither the answer before {word} nor the one after it"))
        return worst(found)

    def _answers(self, word: str) -> dict[str, Any]:
        """What is answered before any command, or after `word`; found once."""
        if word not in self._right:
            folder = self._world.folder()
            store = self._world.copy(folder / "a.store")
            if word and (ended := self._world.cli(*self._world.commands()[word].arguments(store), folder=folder)).code:
                raise RuntimeError(f"{word} fails on the undamaged store: {ended.err[-1000:]}")
            (folder / "done").touch()
            ended = call(_reading, folder, store, folder=folder / "reader", limit=LIMIT)
            self._right[word] = {question: answer for question, answer, _ in ended.value}
            self._world.drop(folder)
        return self._right[word]


def _delayed(folder: Path, arguments: list[str], seed: int) -> None:
    """In a child: a command that waits now and then."""
    set_apart(folder)
    install(Delayer(seed, LONGEST), folder)
    if arguments[0] == "open":
        import embedstore as es

        es.Store.open(arguments[1], create=True)
    else:
        run_cli(arguments)


def _reading(folder: Path, store: Path) -> list[tuple[str, Any, str]]:
    """In a child: ask in turn until ``done`` is there, and once more; every different answer, or what went wrong."""
    from embedstore.errors import EmbedstoreError

    set_apart(folder)
    seen: dict[str, tuple[str, Any, str]] = {}
    last = False
    while not last:
        last = (folder / "done").exists()
        for question in ASKED:
            try:
                found: tuple[str, Any, str] = (question, plain(READING[question](store, folder)), "")
            except EmbedstoreError as error:
                found = (question, None, str(error))
            except Exception:
                found = (question, None, traceback.format_exc())
            seen.setdefault(repr(found), found)
    return list(seen.values())


def _created_state(folder: Path, store: Path) -> dict[str, Any]:
    import embedstore as es

    set_apart(folder)
    return {"problems": es.verify(store).problems, "items": list(state_of(store)["items"])}
