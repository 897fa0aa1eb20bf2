"""The campaign of `benchmarks.faults` in small: a store for all files here, and trials that have to end well."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import islice

import pytest
from helpers import once

from benchmarks._faults.outcomes import Table
from benchmarks._faults.world import World
from benchmarks.faults import kind_of


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(once(tmp_path_factory, "faults", lambda folder: World(folder / "world").build()) / "world")


@pytest.fixture
def tried(world: World) -> Callable[..., Table]:
    """Try so many cases of a kind (all: None); a fault fails the test and says how to repeat it."""

    def run(kind: str, most: int | None, seed: int = 0, seconds: float = 120) -> Table:
        table = Table(seed)
        for trial in islice(kind_of(kind, world, seconds).trials(random.Random(f"{seed} {kind}")), most):
            table.add(trial)
        assert sum(counts.total() for counts in table.counts.values()) > 0
        assert not table.faults, "\n".join(map(table.repeat, table.faults))
        return table

    return run
