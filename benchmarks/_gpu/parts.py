"""P1: every part of the way from a file to a vector alone, by how many at once."""

from __future__ import annotations

from functools import partial

import numpy as np

from benchmarks._gpu.decoders import known
from benchmarks._gpu.environment import per_second
from benchmarks._gpu.rates import CORES, device_rate, forward_rate, noise, pillow_rate
from benchmarks._gpu.run import Run
from benchmarks._gpu.world import World

BATCHES = (64, 128, 256, 512)
"""In the precision that is chosen for most networks; one size in the others."""
DECODED = (64, 256)
WORKERS = (1, 4)
FILES = 1024
EACH = 0.4
"""Seconds that a rate is measured for."""


def parts(world: World, run: Run) -> None:
    _networks(world, run)
    _hosts(world, run)
    _decoders(world, run)
    _cores(world, run)


def _networks(world: World, run: Run) -> None:
    sizes = world.sizes
    seconds = min(EACH, sizes.seconds)
    for name in (sizes.base, sizes.big):
        for precision in world.precisions[:-1]:
            what = f"{name}, forward only"
            with run.attempt(what, precision):
                encoder = world.vision(name, precision=precision)
                for batch in BATCHES if precision == "float16" else (sizes.batch,):
                    rate = forward_rate(world, encoder.model, noise(encoder, batch), seconds=seconds)
                    run.report(what, f"{precision} {batch}:", rate, "/s")


def _hosts(world: World, run: Run) -> None:
    """What handing a batch over costs."""
    import torch

    encoder = world.vision(world.sizes.base)
    images = list(noise(encoder, world.sizes.batch))
    run.report("a batch on its way", "np.stack", per_second(world, lambda: np.stack(images), len(images)), "/s")
    stacked = torch.from_numpy(np.stack(images))
    if world.gpu:
        run.report("a batch on its way", "pin_memory", per_second(world, stacked.pin_memory, len(images)), "/s")
        pinned, device = stacked.pin_memory(), world.device
        rate = per_second(world, lambda: pinned.to(device, non_blocking=True), len(images))
        run.report("a batch on its way", "pinned to device", rate, "/s")


def _decoders(world: World, run: Run) -> None:
    """Decoders alone, and what embedstore makes of the device's, with resizing."""
    for pixels in (world.sizes.small, world.sizes.large):
        payloads = [sample.payload for sample in world.samples(pixels) if sample.kind in ("4:2:0", "4:4:4")]
        for name, decoder in known(world).items():
            for batch in DECODED[:1] if world.tiny else DECODED:
                given = [payloads[i % len(payloads)] for i in range(world.sizes.batch if world.tiny else batch)]
                with run.attempt(f"decoders, {pixels} px", f"{name} {batch}:"):
                    refused = sum(isinstance(found, RuntimeError) for found in decoder.decode(given))
                    rate = per_second(world, partial(decoder.decode, given), len(given), 4)
                    value, unit = ("refused", "") if refused == len(given) else (rate, "/s")
                    run.report(f"decoders, {pixels} px", f"{name} {batch}:", value, unit)
        with run.attempt(f"decoders, {pixels} px", "embedstore's"):
            ours = device_rate(world, world.vision(world.sizes.base), world.files(pixels)[:FILES][:-1])
            run.report(f"decoders, {pixels} px", "embedstore's, with resizing", ours or "not taken", "/s" if ours else "")


def _cores(world: World, run: Run) -> None:
    transform = world.vision(world.sizes.base).transform
    for pixels in (world.sizes.small, world.sizes.large):
        paths = world.files(pixels)[: FILES // (1 if pixels == world.sizes.small else 4)][:-1]
        for processes in (False, True):
            kind = "processes" if processes else "threads"
            for workers in (1,) if world.tiny else sorted({*WORKERS, CORES}):
                if workers <= CORES:
                    rate = pillow_rate(transform, paths[: 64 * workers], workers, processes=processes)
                    run.report(f"Pillow, {pixels} px", f"{workers} {kind}:", rate, "/s")
