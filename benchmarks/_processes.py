"""Whole tools side by side, each in a process of its own, without what their start costs."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

EMBEDSTORE = "from embedstore_cli.main import main; main()"  # for `python -c`

Command = Callable[[str, Path], list[str]]
"""Of the name of a dataset and where to write: a command with its arguments."""


def seconds_of(command: list[str], folder: Path) -> float:
    """Wall seconds of a process in `folder` that must succeed."""
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return time.perf_counter() - start


def rates(tools: Mapping[str, Command], sizes: Mapping[str, int], root: Path, rounds: int, warm: bool) -> dict[str, float]:
    """Items a second of each tool: what the larger of two datasets has more, through the seconds that it takes longer.

    The median of `rounds`, in which the tools alternate; with `warm`, one round before them does not count.
    """
    few, many = sorted(sizes, key=lambda name: sizes[name])
    found: dict[str, list[float]] = {tool: [] for tool in tools}
    for number in range(rounds + warm):
        for tool, command in tools.items():
            walls = {name: seconds_of(command(name, root / f"{tool}-{name}-{number}"), root) for name in (few, many)}
            found[tool].append((sizes[many] - sizes[few]) / (walls[many] - walls[few]))
            print(f"{tool}: " + ", ".join(f"{walls[name]:.1f} s for {sizes[name]}" for name in walls), flush=True)
    return {tool: statistics.median(several[-rounds:]) for tool, several in found.items()}


def table(what: str, found: Mapping[str, float], rounds: int) -> None:
    print(f"\n| {what} | items/s (median of {rounds}) |\n|---|---|")
    for tool, rate in found.items():
        print(f"| {tool} | {rate:.1f} |")
