"""Kind ``kills``: a command is killed at one of its file operations, and run again."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from benchmarks._faults.aftermath import after_damage, judged, state, unexpected
from benchmarks._faults.hooks import Counter, Killer, install
from benchmarks._faults.outcomes import Trial, in_turn
from benchmarks._faults.processes import LIMIT, call, run_cli
from benchmarks._faults.world import Command, World, set_apart


class Kills:
    """Trials of one world."""

    kind = "kills"

    def __init__(self, world: World) -> None:
        self._world = world

    def trials(self, rng: random.Random) -> Iterator[Trial]:
        """Every operation of every command that writes, before and after it, and every flush torn; the commands in turn."""
        return in_turn([self._plan(command, rng) for command in self._world.commands().values()], self.trial)

    def trial(self, case: str) -> Trial:
        """One kill; `case` is the command, the operation's number and when: ``embed 12 before``."""
        word, at, when = case.split()
        world, command = self._world, self._world.commands()[word]
        folder = world.folder()
        store = command.begin(world, folder / "a.store")
        arguments = command.arguments(store)
        ended = call(_killed, folder, arguments, int(at), when, folder=folder / "killed", limit=LIMIT)
        if ended.hung or not (ended.killed or ended.code == 0):
            return Trial(self.kind, case, *unexpected(ended))
        after = call(after_damage, folder, store, arguments, command.unsure, folder=folder / "after", limit=LIMIT)
        ending, detail = judged(after, state(world, command, done=False), state(world, command))
        world.drop(folder)
        return Trial(self.kind, case, ending, detail)

    def _plan(self, command: Command, rng: random.Random) -> Iterator[str]:
        seen = operations(self._world, command)
        cases = [f"{command.name} {at} {when}" for at in range(len(seen)) for when in ("before", "after")]
        cases += [f"{command.name} {at} torn" for at, (name, _) in enumerate(seen) if name == "fsync"]
        rng.shuffle(cases)
        yield from cases


def operations(world: World, command: Command) -> list[tuple[str, str]]:
    """The file operations of a command that nothing disturbs: name and path."""
    folder = world.folder()
    store = command.begin(world, folder / "a.store")
    ended = call(_counted, folder, command.arguments(store), folder=folder / "counted", limit=LIMIT)
    world.drop(folder)
    return [(name, path) for name, path in ended.value or []]


def _killed(folder: Path, arguments: list[str], at: int, when: str) -> None:
    set_apart(folder)
    install(Killer(at, when), folder / "a.store")
    run_cli(arguments)


def _counted(folder: Path, arguments: list[str]) -> list[tuple[str, str]]:
    set_apart(folder)
    counter = Counter()
    install(counter, folder / "a.store")
    try:
        run_cli(arguments)
    except SystemExit as exit_:
        if exit_.code:
            raise
    return counter.seen
