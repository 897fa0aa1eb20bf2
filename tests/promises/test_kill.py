"""Promise 2: a kill at any moment loses at most the part in progress, and the resumed result equals an uninterrupted one."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from pathlib import Path

import pytest
from forked import Child
from helpers import server, start, write_csv, write_image

import embedstore as es

KILLS = 20


def command(table: Path, store: Path) -> Child:
    return start("embed", table, "--store", store, "--image", "hash:32", "--text", "hash:16")


def contents(store: Path) -> dict[str, bytes]:
    """Every committed file, the manifest without its generation counter included."""
    manifest = es.Store.open(store).manifest
    return {ref.file: (store / ref.file).read_bytes() for ref in manifest.refs()}


@pytest.mark.slow
def test_killed_at_twenty_random_moments(tmp_path: Path) -> None:
    images = [write_image(tmp_path / "images" / f"{i}.png", seed=i) for i in range(40)]
    (tmp_path / "images" / "broken.png").symlink_to(tmp_path / "nowhere")
    rows: list[dict[str, object]] = []
    for i in range(6_000):
        image = "images/broken.png" if i % 2500 == 7 else f"images/{images[i % 40].name}"
        rows.append({"id": f"i{i}", "image": image, "text": "" if i % 97 == 0 else f"text {i % 4_500}", "n": i})
    table = write_csv(tmp_path / "t.csv", rows)

    server()  # what it imports is not to count
    started = time.monotonic()
    assert command(table, tmp_path / "whole").wait() == 0
    duration = time.monotonic() - started
    expected = contents(tmp_path / "whole")

    rng = random.Random(0)
    kills = rounds = 0
    while kills < KILLS:
        store, rounds = tmp_path / f"killed-{rounds}", rounds + 1
        while not run_or_kill(command(table, store), after=rng.uniform(0.2, 1.2) * duration if kills < KILLS else None):
            kills += 1
            if (store / "store.json").exists():
                assert es.verify(es.Store.open(store)).clean
                committed = contents(store)
                assert committed == {file: expected[file] for file in committed}
        assert contents(store) == expected
        report = es.verify(es.Store.open(store))
        assert (report.clean, report.notes) == (True, [])


def run_or_kill(child: Child, *, after: float | None) -> bool:
    """Kill a command (SIGKILL) after some seconds, or never; whether it ended by itself."""
    try:
        return child.wait(after) == 0
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)
        child.wait()
        return False
