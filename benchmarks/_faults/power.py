"""Kind ``power``: the states in which a cut of power could leave a store, each opened, verified and finished.

Two file systems are imagined. On the *strict* one (all that POSIX promises) a folder's entry exists once that folder was
flushed, and a file's bytes once the file was. On the *ordered* one entries change at once and in order, but bytes that were not
flushed are lost: the file is empty, or ends in the middle.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from benchmarks._faults.aftermath import after_damage, judged, state, unexpected
from benchmarks._faults.disk import Cut, Recorder
from benchmarks._faults.hooks import install
from benchmarks._faults.outcomes import Trial, in_turn
from benchmarks._faults.processes import LIMIT, call, run_cli
from benchmarks._faults.world import Command, World, set_apart

VARIANTS = ("strict", "empty", "torn")
"""The strict file system; the ordered one with files that are empty, and with files that end in the middle."""


class Power:
    """Trials of one world; every command is recorded once."""

    kind = "power"

    def __init__(self, world: World) -> None:
        self._world = world
        self._cuts: dict[str, tuple[Path, str, list[Cut]]] = {}

    def trials(self, rng: random.Random) -> Iterator[Trial]:
        """Cut the power before every operation of every command, in each variant; the commands in turn."""
        return in_turn([self._plan(command, rng) for command in self._world.commands().values()], self.trial)

    def _plan(self, command: Command, rng: random.Random) -> Iterator[str]:
        cuts = self._recording(command)[2]
        cases = [f"{command.name} {at} {variant}" for at in range(len(cuts)) for variant in VARIANTS]
        rng.shuffle(cases)
        yield from cases

    def trial(self, case: str) -> Trial:
        """One cut; `case` is the command, how many operations were done, and the variant: ``embed 12 strict``."""
        word, at, variant = case.split()
        world, command = self._world, self._world.commands()[word]
        recorded, root, cuts = self._recording(command)
        cut = cuts[int(at)]
        folder = world.folder()
        store = folder / "rebuilt" / "a.store"
        cut.rebuild(variant, root, recorded / "blobs", store.parent)
        arguments = command.arguments(store)
        after = call(after_damage, folder, store, arguments, command.unsure, folder=folder / "after", limit=LIMIT)
        expected = state(world, command)
        ending, detail = judged(after, expected if cut.committed else state(world, command, done=False), expected)
        world.drop(folder)
        return Trial(self.kind, case, ending, detail)

    def _recording(self, command: Command) -> tuple[Path, str, list[Cut]]:
        if command.name not in self._cuts:
            folder = self._world.folder()
            command.begin(self._world, folder / "disk" / "a.store")
            arguments = command.arguments(folder / "disk" / "a.store")
            done = call(_recorded, folder, arguments, folder=folder / "run", limit=LIMIT)
            if done.value is None:
                ending, detail = unexpected(done)
                raise RuntimeError(f"recording {command.name}: {ending}: {detail}")
            self._cuts[command.name] = folder, done.value["root"], [Cut.from_dict(cut) for cut in done.value["cuts"]]
        return self._cuts[command.name]


def _recorded(folder: Path, arguments: list[str]) -> dict[str, object]:
    """In a child: run a command, and note every state of the disk on the way."""
    set_apart(folder)
    recorder = Recorder(folder / "disk", folder / "blobs")
    install(recorder, folder / "disk")
    try:
        run_cli(arguments)
    except SystemExit as exit_:
        if exit_.code:
            raise
    recorder.note(committed=True)
    return {"root": recorder.top, "cuts": [cut.to_dict() for cut in recorder.cuts]}
