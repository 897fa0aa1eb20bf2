"""C5: `--runtime compile`: how long it takes, how many graphs it makes, and what it gains; each model in a process of its own.

``python -m benchmarks._gpu.compiling MODEL --device D [--tiny]`` prints one document about one model.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks._gpu.rates import forward_rate, noise
from benchmarks._gpu.run import Run
from benchmarks._gpu.vectors import SAME
from benchmarks._gpu.world import FULL, TINY, World
from embedstore.encoders import load_encoder
from embedstore.encoders.runtimes import pytorch
from embedstore.encoders.runtimes.base import agreement

LIMIT = 60.0
"""Seconds of a process on a machine that it has to itself."""
PATIENCE = 5
"""A tiny run may have to share one."""
MOST_GRAPHS = 2
BATCHES = (7, 1)
"""After one of the usual size: the rest of a chunk, and a query."""


def compiling(world: World, run: Run) -> None:
    limit = LIMIT * (PATIENCE if world.tiny else 1)
    names = [world.sizes.base] if world.tiny else [world.sizes.base, "effnet-lite0"]
    for name in names:
        with run.attempt(f"compiled {name}"):
            found = _apart(world, name, min(limit, run.left))
            run.report(f"compiled {name}", "ready after", found["seconds"], " s")
            run.report(f"compiled {name}", "eager", found["eager"], "/s")
            run.report(f"compiled {name}", "compiled", found["compiled"], "/s")
            run.check(f"compiled {name}", "cosine to eager", found["cosine"], "≥", SAME)
            run.check(f"compiled {name}", "graphs", float(found["graphs"]), "≤", float(MOST_GRAPHS))


def _apart(world: World, name: str, seconds: float) -> dict[str, Any]:
    """What the process about a model prints.

    Raises
    ------
    RuntimeError
        It failed, or took too long.
    """
    command = [sys.executable, "-m", __name__, name, "--device", world.device, *(["--tiny"] if world.tiny else [])]
    root = Path(__file__).parent.parent.parent
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, cwd=root)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"not ready after {seconds:.0f} s") from None
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit code {done.returncode}")
    document: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return document


def measured(world: World, name: str) -> dict[str, Any]:
    """Of a model on the device: seconds until the first batch is done, graphs, cosine and images/s."""
    import torch

    encoders: list[Any] = [_encoder(world, name, runtime) for runtime in ("torch", "compile")]
    eager, made = encoders
    batch = noise(eager, world.sizes.batch)
    start = time.perf_counter()
    made.model(batch)
    seconds = time.perf_counter() - start
    cosines = [agreement(made.model(batch[:n]), eager.model(batch[:n])) for n in (len(batch), *BATCHES)]
    stats = torch._dynamo.utils.counters["stats"]
    return {
        "seconds": seconds,
        "graphs": stats["unique_graphs"],
        "cosine": min(cosines),
        "eager": forward_rate(world, eager.model, batch),
        "compiled": forward_rate(world, made.model, batch),
    }


def _encoder(world: World, name: str, runtime: str) -> Any:
    if name == world.sizes.base:
        return world.vision(name, runtime=runtime)
    return load_encoder(name, "image", device=world.device, runtime=runtime)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--device", required=True)
    parser.add_argument("--tiny", action="store_true")
    given = parser.parse_args()
    import torch

    if given.tiny:
        torch.set_num_threads(1)
        pytorch.BACKEND = "eager"  # traced as for any backend, without a minute in a C++ compiler
    with tempfile.TemporaryDirectory(prefix="gpu-") as folder:
        world = World(given.device, TINY if given.tiny else FULL, Path(folder))
        print(json.dumps(measured(world, given.model)))


if __name__ == "__main__":
    main()
