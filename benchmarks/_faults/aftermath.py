"""What a cut of power or a kill left: is all there, does `verify` call it clean, and does the same command finish?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks._faults.outcomes import Ending
from benchmarks._faults.processes import LIMIT, Ended, call, run_cli, traceback_in
from benchmarks._faults.state import NOTHING, State, between, same, state_of
from benchmarks._faults.world import Command, World, set_apart


def judged(after: Ended, before: State, expected: State) -> tuple[Ending, str]:
    """What `after_damage` found, judged: a command was on its way from `before` to `expected`."""
    if after.code or after.hung or after.value is None:
        return unexpected(after)
    found = after.value
    if found["problems"]:
        return Ending.WRONG, f"before the second run, verify: {found['problems'][0]}"
    if lost := between(before, found["then"], expected):
        return Ending.WRONG, f"before the second run: {lost}"
    if found["code"]:
        return Ending.WRONG, f"the second run ended with {found['code']}: {after.last}"
    if found["problems again"]:
        return Ending.WRONG, f"after the second run, verify: {found['problems again'][0]}"
    if difference := same(expected, found["now"]):
        return Ending.WRONG, f"after the second run: {difference}"
    return Ending.HELD, ""


def after_damage(folder: Path, store: Path, arguments: list[str], unsure: bool) -> dict[str, Any]:
    """In a child: what the store holds and `verify` says, the same command again, and both once more.

    With `unsure`, there need not be a store that can be read before the command is run again.
    """
    import embedstore as es

    set_apart(folder)
    found: dict[str, Any] = {"problems": [], "then": NOTHING, "code": 0}
    try:
        found |= {"problems": es.verify(store).problems, "then": state_of(store)}
    except es.EmbedstoreError:
        if not unsure:
            raise
    if unsure:
        found["problems"] = []
    try:
        run_cli(arguments)
    except SystemExit as exit_:
        found["code"] = exit_.code
    return found | {"problems again": es.verify(store).problems, "now": state_of(store)}


def state(world: World, command: Command, *, done: bool = True) -> State:
    """What the store holds after `command` was run without a fault, or before it; found once."""
    if command.unsure and not done:
        return NOTHING
    word = command.name if done else ""
    if word not in world.states:
        folder = world.folder()
        store = command.begin(world, folder / "a.store") if done else world.copy(folder / "a.store")
        if done and (ended := world.cli(*command.arguments(store), folder=folder, limit=LIMIT)).code:
            raise RuntimeError(f"embedstore {word} fails on the undamaged store: {ended.err[-1000:]}")
        ended = call(_state, folder, store, folder=folder / "state", limit=LIMIT)
        if ended.value is None:
            raise RuntimeError(f"the state after {word!r} cannot be read: {ended.err[-1000:]}")
        world.states[word] = ended.value
        world.drop(folder)
    return world.states[word]


def _state(folder: Path, store: Path) -> State:
    set_apart(folder)
    return state_of(store)


def unexpected(ended: Ended) -> tuple[Ending, str]:
    """How a child ended that should have done its work."""
    if ended.hung:
        return Ending.HANG, ended.last
    if ended.code < 0:
        return Ending.SIGNAL, f"signal {-ended.code}: {ended.last}"
    if trace := traceback_in(ended.err):
        return Ending.TRACEBACK, trace
    return Ending.WRONG, f"ended with {ended.code}: {ended.last}"
