"""How fast one part alone is: the network, and decoding on cores or on the device."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._gpu.world import World, on_device
from embedstore.encoders.image_encoder import ImageEncoder
from embedstore.encoders.payloads.images import ImageTransform

MOST_PIXELS = 1 << 28
GROUP = 16
"""Files that a worker is given at a time."""
READY = 0.3
"""Seconds in which a process has started."""
CORES = len(os.sched_getaffinity(0))


def forward_rate(world: World, model: Any, *inputs: np.ndarray[Any, Any], seconds: float | None = None) -> float:
    """Items/s of `model` on inputs that are on the device, each batch begun before the last one is waited for."""
    there = [on_device(array, world.device) for array in inputs]
    model(*there)
    seconds = world.sizes.seconds if seconds is None else seconds
    start, done = time.perf_counter(), 0
    before = model.start(*there)
    while time.perf_counter() - start < seconds:
        after = model.start(*there)
        before()
        before, done = after, done + len(inputs[0])
    before()
    return (done + len(inputs[0])) / (time.perf_counter() - start)


def steady(part: tuple[int, float], whole: tuple[int, float]) -> float:
    """Items/s without what the start costs: of (items, seconds) of two runs, what the larger one has more.

    Of the larger one alone where it took no longer, as it may where both are over at once.
    """
    (few, short), (many, long) = part, whole
    return (many - few) / (long - short) if long > short else many / long


def noise(encoder: ImageEncoder, batch: int) -> np.ndarray[Any, Any]:
    """Pixels (batch, height, width, 4) uint8."""
    return np.random.default_rng(0).integers(0, 256, (batch, *encoder.transform.size, 4), dtype=np.uint8)


def pillow_rate(transform: ImageTransform, paths: Sequence[str], workers: int, *, processes: bool) -> float:
    """Files/s of reading, decoding and resizing in threads or processes that are there already."""
    groups = [list(paths[lo : lo + GROUP]) for lo in range(0, len(paths), GROUP)]
    work = partial(_prepared, transform)
    with _pool(workers, processes=processes) as pool:
        list(pool.map(time.sleep, [READY] * workers))  # each takes one
        list(pool.map(work, [groups[0][:1]] * workers))
        start = time.perf_counter()
        done = sum(pool.map(work, groups))
        return done / (time.perf_counter() - start)


def _pool(workers: int, *, processes: bool) -> Executor:
    if not processes:
        return ThreadPoolExecutor(workers)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "PIL.Image", "pyarrow"])
    return ProcessPoolExecutor(workers, mp_context=context)


def _prepared(transform: ImageTransform, paths: Sequence[str]) -> int:
    for path in paths:
        transform(Path(path).read_bytes(), max_pixels=MOST_PIXELS)
    return len(paths)


def device_rate(world: World, encoder: ImageEncoder, paths: Sequence[str]) -> float | None:
    """Files/s of decoding and resizing as `encoder` does it on the device; None where it leaves most of them to Pillow."""
    prepared = [encoder.prepare(Path(path).read_bytes()) for path in paths]
    if 2 * sum(isinstance(given, np.ndarray) for given in prepared) > len(prepared):
        return None
    size = encoder.batch_size
    encoder.stacked(prepared[:size])
    world.wait()
    start = time.perf_counter()
    for lo in range(0, len(prepared), size):
        encoder.stacked(prepared[lo : lo + size])
    world.wait()
    return len(prepared) / (time.perf_counter() - start)
