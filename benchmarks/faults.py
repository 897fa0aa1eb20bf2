"""Can a store be hurt? Thousands of faults are done to small stores, and every one is judged from outside.

``python -m benchmarks.faults --minutes N [--only KIND] [--seed S] [--json FILE] [--tiny]``. The kinds share the minutes; each
goes through its cases in a random order that follows from the seed. ``--only KIND --case CASE`` repeats one that was printed.
Exit code 1 where an answer was wrong, a traceback was seen, a process crashed or hung, or a file outside the store was touched.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from benchmarks._faults.flips import Flips
from benchmarks._faults.hostile import Hostile
from benchmarks._faults.inputs import Inputs
from benchmarks._faults.kills import Kills
from benchmarks._faults.outcomes import Kind, Table, Trial
from benchmarks._faults.power import Power
from benchmarks._faults.races import Creators, Races
from benchmarks._faults.soak import SECONDS, Soak
from benchmarks._faults.world import World

KINDS: dict[str, Callable[[World], Kind]] = {
    "kills": Kills,
    "power": Power,
    "flips": Flips,
    "hostile": Hostile,
    "creators": Creators,
    "races": Races,
    "inputs": Inputs,
    "soak": Soak,
}
TINY = 2
"""Trials of each kind in the tiny mode."""


def kind_of(name: str, world: World, soak: float) -> Kind:
    """The kind called `name`; `soak` is how many seconds that one takes."""
    return Soak(world, soak) if name == Soak.kind else KINDS[name](world)


def campaign(kinds: list[Kind], *, seed: int, seconds: float, most: int | None = None) -> Iterator[Trial]:
    """Trials of each kind for its share of `seconds`, and no more than `most`."""
    for kind in kinds:
        ends = time.monotonic() + seconds / len(kinds)
        for trial in islice(kind.trials(random.Random(f"{seed} {kind.kind}")), most):
            yield trial
            if time.monotonic() > ends:
                break


def main(arguments: list[str] | None = None) -> Table:
    """Run the campaign, print its table and every fault, and return the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0, help="how long, all kinds together")
    parser.add_argument("--only", choices=KINDS, action="append", help="one kind; may be repeated")
    parser.add_argument("--case", help="one case of --only KIND, as it was printed")
    parser.add_argument("--seed", type=int, default=0, help="of the store and of the order of the cases")
    parser.add_argument("--most", type=int, help="no more trials of a kind than this")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long the soak is, whatever the minutes")
    parser.add_argument("--json", type=Path, help="write the table and the faults here")
    parser.add_argument("--tiny", action="store_true", help=f"{TINY} trials of each kind")
    given = parser.parse_args(arguments)
    if given.case and len(given.only or ()) != 1:
        parser.error("--case belongs to one --only KIND")
    table = Table(given.seed)
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        world = World(Path(folder), seed=given.seed).build()
        kinds = [kind_of(name, world, 5.0 if given.tiny else given.seconds) for name in given.only or KINDS]
        if given.case:
            trials = iter([kinds[0].trial(given.case)])
        else:
            most = TINY if given.tiny else given.most
            trials = campaign(kinds, seed=given.seed, seconds=60 * given.minutes, most=most)
        for trial in trials:
            table.add(trial)
            if trial.fault:
                print(table.repeat(trial), file=sys.stderr, flush=True)
    print(*table.lines(), sep="\n")
    if given.json:
        given.json.write_text(json.dumps(table.to_dict(), indent=1))
    return table


if __name__ == "__main__":
    sys.exit(1 if main().faults else 0)
