"""Is the GPU path right, and how fast is it? One run that says so, in under seven minutes on a card.

``python -m benchmarks.gpu [--device cuda] [--seconds 420] [--out DIR] [--only NAME,...] [--tiny]``. The phases run in order of
what they are worth, each skipped where too little time is left; what one raises is a row that failed, and the next one runs.
Rows are appended to DIR/gpu.jsonl as they come; in the end there are DIR/gpu.json and a table of at most 60 lines, which is
kept as DIR/gpu.md. Exit code 1 where a threshold was missed. ``--tiny --device cpu`` runs everything in seconds, with small
networks.

Pictures and texts are generated and weights are drawn from a fixed seed, so that nothing is downloaded.
"""

from __future__ import annotations

import argparse
import gc
import logging
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks._gpu.compiling import compiling
from benchmarks._gpu.decoders import decoders, device_jpegs
from benchmarks._gpu.environment import environment
from benchmarks._gpu.heads import heads
from benchmarks._gpu.memory import memory
from benchmarks._gpu.parts import parts
from benchmarks._gpu.peer import peer
from benchmarks._gpu.pipeline import pipeline
from benchmarks._gpu.run import Run
from benchmarks._gpu.search import search
from benchmarks._gpu.streams import streams
from benchmarks._gpu.texts import texts
from benchmarks._gpu.vectors import vectors
from benchmarks._gpu.world import FULL, TINY, World

SECONDS = 420.0
MEMORY = Path("/dev/shm")
BYTES = 6 << 30
"""That a run needs there."""


class Phase(NamedTuple):
    """A part of the run: its name, the seconds that it takes on a card, and what it does."""

    name: str
    seconds: float
    work: Callable[[World, Run], None]


PHASES = (
    Phase("E", 8, environment),
    Phase("C1", 40, vectors),
    Phase("C2", 10, decoders),
    Phase("C3", 15, device_jpegs),
    Phase("C4", 20, memory),
    Phase("C6", 5, streams),
    Phase("P2", 100, pipeline),
    Phase("P1", 45, parts),
    Phase("S1", 30, search),
    Phase("H1", 35, heads),
    Phase("P3", 25, peer),
    Phase("P4", 20, texts),
    Phase("C5", 60, compiling),
)
"""In order of what they are worth."""


def temporary() -> tempfile.TemporaryDirectory[str]:
    """A folder in memory where there is room for one."""
    room = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= BYTES
    return tempfile.TemporaryDirectory(prefix="gpu-", dir=MEMORY if room else None, ignore_cleanup_errors=True)


def forget() -> None:
    """Memory of the device that a phase left behind."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def one_thread(wanted: bool) -> Iterator[None]:
    """Torch on one core if `wanted`: networks this small gain nothing from more, and wait for one another."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1 if wanted else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def without_warnings() -> Iterator[None]:
    """open_clip warns of weights that are drawn."""
    log = logging.getLogger()
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def main(arguments: list[str] | None = None) -> Run:
    """Run the phases, print the table, and return what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long, all phases together")
    parser.add_argument("--out", type=Path, default=Path("gpu-results"), help="a folder for rows and document")
    parser.add_argument("--only", help=f"some phases, such as E,C1: {', '.join(phase.name for phase in PHASES)}")
    parser.add_argument("--tiny", action="store_true", help="small networks and little data")
    given = parser.parse_args(arguments)
    wanted = given.only.split(",") if given.only else [phase.name for phase in PHASES]
    if unknown := set(wanted) - {phase.name for phase in PHASES}:
        parser.error(f"--only: no phase is called {', '.join(sorted(unknown))}")
    run = Run(given.out, given.seconds, overtime=10 if given.tiny else 2)
    with temporary() as folder, one_thread(given.tiny), without_warnings():
        world = World(given.device, TINY if given.tiny else FULL, Path(folder))
        try:
            for phase in PHASES:
                if phase.name in wanted:
                    run.phase(phase.name, phase.seconds, partial(phase.work, world, run))
                    forget()
        except KeyboardInterrupt:
            print("Interrupted.", file=sys.stderr)
    run.close()
    print("", *run.lines(), sep="\n")
    return run


if __name__ == "__main__":
    sys.exit(1 if main().failed else 0)
