"""Beside busy processes, how many times as long do `align` and `train` take, and how much processor time do they burn?

``python -m benchmarks.busy [--tiny] [STORE] [--target label] [--head auto] [--rounds 3]``. The store has spaces ``image`` and
``text``; what is learned is kept in a copy of it. Each command runs quiet, on one thread, and beside two processes that only
count, by turns; the least time of each is printed, and its ratio to the quiet one. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.heads import tiny_store

ONE = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


@contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes that never rest."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def timed(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Seconds by the clock, and of processors."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    run = [sys.executable, "-m", "embedstore_cli.main", *command]
    subprocess.run(run, env={**os.environ, **environment}, check=True, capture_output=True)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(arguments: list[str] | None = None) -> dict[str, dict[str, tuple[float, float]]]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", nargs="?", type=Path)
    parser.add_argument("--target", default="label")
    parser.add_argument("--head", default="auto")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args(arguments)
    rounds, head, found = (1, "ridge", {}) if options.tiny else (options.rounds, options.head, {})
    with tempfile.TemporaryDirectory() as folder:
        if options.tiny:
            store = tiny_store(Path(folder)).path
        else:
            store = Path(shutil.copytree(options.store, Path(folder) / "copy.store"))
        commands = {
            "align": ["align", str(store), "--from", "text", "--to", "image", "--json"],
            f"train --head {head}": ["train", str(store), options.target, "--head", head, "--replace", "--no-report", "--json"],
        }
        for name, command in commands.items():
            times: dict[str, list[tuple[float, float]]] = {"quiet": [], "one thread": [], "beside two": []}
            for _ in range(rounds):
                times["quiet"].append(timed(command, {}))
                times["one thread"].append(timed(command, ONE))
                with busy(2):
                    times["beside two"].append(timed(command, {}))
            found[name] = {how: min(runs) for how, runs in times.items()}
    print("\n| | quiet, s (processor s) | one thread | beside two | ÷ quiet |\n|---|---|---|---|---|")
    for name, row in found.items():
        cells = " | ".join(f"{wall:.1f} ({processor:.1f})" for wall, processor in row.values())
        print(f"| {name} | {cells} | {row['beside two'][0] / row['quiet'][0]:.2f} |")
    return found


if __name__ == "__main__":
    main()
