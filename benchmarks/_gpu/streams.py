"""C6: vectors of a batch are there when it is done, not when the one begun after it is."""

from __future__ import annotations

import time
from typing import Any

from benchmarks._gpu.rates import noise
from benchmarks._gpu.run import Run
from benchmarks._gpu.world import World

MOST = 0.75
"""Of the time of two batches, until the first one's vectors are there."""


def streams(world: World, run: Run) -> None:
    encoder = world.vision(world.sizes.big)
    pixels = noise(encoder, world.sizes.batch)
    model: Any = encoder.model
    model(pixels)
    shares = []
    for _ in range(3):
        start = time.perf_counter()
        first, second = model.start(pixels), model.start(pixels)
        begun = time.perf_counter() - start
        first()
        early = time.perf_counter() - start
        second()
        shares.append(early / (time.perf_counter() - start))
    run.report("two batches", "both begun after", 1000 * begun, " ms")
    if world.gpu:
        run.check("two batches", "first one's vectors, of the time of both", sorted(shares)[1], "≤", MOST)
    else:
        run.report("two batches", "first one's vectors, of the time of both", sorted(shares)[1])
