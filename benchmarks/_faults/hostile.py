"""Kind ``hostile``: stores that somebody made to do harm, met by every command."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

from benchmarks._faults import crafted, strange
from benchmarks._faults.outcomes import Ending, Trial, in_turn, worst
from benchmarks._faults.processes import LIMIT, Ended, Worker, call, cli_here, traceback_in
from benchmarks._faults.world import World, name, run_alone, set_apart

MEMORY = 4 << 30
"""Address space that a command may take beyond what its process begins with: threads reserve much that they never use."""
SOME = 4
"""Commands that meet a store that differs in one value or some bytes; all meet the others."""

ALONE = 0.1
"""Share of the stores that every command meets in a process of its own."""


class Hostile:
    """Trials of one world."""

    kind = "hostile"

    def __init__(self, world: World) -> None:
        self._world = world

    def trials(self, rng: random.Random) -> Iterator[Trial]:
        """Values of every document, mutations of every file, crafted ones, and links and pipes everywhere, in turn."""
        base = self._world.base
        with self._worker() as worker:
            plans = [*crafted.cases(base, rng), strange.cases(base, rng)]
            yield from in_turn(plans, lambda case: self._trial(case, worker))

    def trial(self, case: str) -> Trial:
        """One store, the commands one after the other on it."""
        with self._worker() as worker:
            return self._trial(case, worker)

    def _worker(self) -> Worker:
        return Worker(self._world.root / f"worker-{os.getpid()}", lives=100, memory=MEMORY)

    def _trial(self, case: str, worker: Worker) -> Trial:
        """The commands one after the other, most times all in one process: at its exit nothing new is seen often."""
        folder = self._world.folder()
        store, precious = self._world.copy(folder / "a.store"), folder / "precious"
        if not case.startswith("strange"):
            crafted.craft(case, store, precious)
        elif not strange.estrange(case, store, precious):
            return Trial(self.kind, case, Ending.HARMLESS, "not on this machine")
        before = strange.picture(precious)
        commands = self._commands(store)
        words = list(commands)
        chance = random.Random(case)
        alone = chance.random() < ALONE
        if case.startswith(("value", "mutated")):
            words = sorted(chance.sample(words, SOME), key=words.index)
        found = []
        for word in words:
            if alone:
                ended = call(run_alone, folder, commands[word], folder=folder / word, limit=LIMIT, memory=MEMORY)
            else:
                ended = told(worker.ask(command_here, folder, commands[word], folder / word, limit=LIMIT))
            if ended.hung:  # on a busy machine a library alone may take as long to be imported
                ended = call(run_alone, folder, commands[word], folder=folder / word, limit=3 * LIMIT, memory=MEMORY)
            found.append(judged(word, ended))
            if found[-1][0] == Ending.HELD and word == crafted.REFUSED.get(case.removeprefix("crafted ")):
                found.append((Ending.WRONG, f"{word}: followed the store out of it"))
            if (now := strange.picture(precious)) != before:
                changed = sorted(k for k in now.keys() | before.keys() if now.get(k) != before.get(k))
                found.append((Ending.TOUCHED, f"{word}: {', '.join(Path(k).name for k in changed[:4])}"))
                before = now
        self._world.drop(folder)
        return Trial(self.kind, case, *worst(found))

    def _commands(self, store: Path) -> dict[str, list[str]]:
        s, r = str(store), self._world.root
        table: dict[str, list[object]] = {
            "info": ["info", s, "--failures"],
            "search": ["search", s, "--id", name(17), "--space", "given"],
            "words": ["search", s, "--text", "text 5", "--space", "text"],
            "predict": ["predict", s, "label"],
            "trees": ["predict", s, "trees", "--json"],
            "evaluate": ["evaluate", s, "label"],
            "verify": ["verify", s],
            "train": ["train", s, "label", "--inputs", "given", "--replace", "--no-report"],
            "embed": ["embed", r / "table.csv", "--store", s, "--text", "hash:16", "--image", "hash:8"],
            "remove": ["remove", s, name(42)],
            "compact": ["compact", s, "--force"],
            "index": ["index", s, "given", "--factory", "HNSW8,Flat"],
        }
        return {word: [str(argument) for argument in arguments] for word, arguments in table.items()}


def command_here(folder: Path, arguments: list[str], output: Path) -> tuple[int, str, str]:
    """In the worker: one command. What was tried for one trial is remembered for all: trees and graphs are slow to try."""
    set_apart(folder.parent)
    return cli_here(arguments, output)


def told(ended: Ended) -> Ended:
    """What the command was to the worker, as if it had been the process."""
    return ended if ended.value is None else Ended(ended.value[0], False, *ended.value[1:])


def judged(word: str, ended: Ended) -> tuple[Ending, str]:
    """A command that met a hostile store: done, or refused in one line."""
    if ended.hung:
        return Ending.HANG, f"{word}: more than {LIMIT:.0f} s"
    if ended.code < 0:
        return Ending.SIGNAL, f"{word}: signal {-ended.code}: {ended.last[:200]}"
    if trace := traceback_in(ended.err + ended.out):
        return Ending.TRACEBACK, f"{word}: {trace}"
    if ended.code == 0:
        return Ending.HELD, ""
    if ended.code not in (1, 2):
        return Ending.WRONG, f"{word}: exit code {ended.code}: {ended.last}"
    told = [line for line in ended.err.splitlines() if line.strip()]
    if word != "verify" and not (told and told[-1].startswith(("embedstore: ", "  "))):
        return Ending.WRONG, f"{word}: exit code {ended.code} without one line of error: {ended.last!r}"
    return Ending.DETECTED, ""
