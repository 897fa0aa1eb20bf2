"""C4: a batch that does not fit costs time and nothing else, and a device that died ends the run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import embedstore as es
from benchmarks._gpu.models import Forward
from benchmarks._gpu.run import Run
from benchmarks._gpu.vectors import SAME
from benchmarks._gpu.world import World, pillow_only
from embedstore.encoders.image_encoder import ImageEncoder
from embedstore.encoders.runtimes.base import agreement
from embedstore.errors import EncoderError, EncoderOutOfMemoryError
from embedstore.sources import MemorySource

ROOM = 1 << 30
"""Bytes that a batch may take beside the weights, until a test is over."""
ALIVE = 450.0
"""MiB that may be alive when a smaller batch begins: its own pixels, and no activations of the one that failed."""
ITEMS = 512
FITS = 5
"""Items that fit where a batch is too small to fill a device."""
LEAST_SHARE = 0.5
DEAD = "CUDA error: an illegal memory access was encountered"


@dataclass
class Calls:
    """Forwards: the items of each, what of the device's memory was taken when it began, and whether it ended.

    Parameters
    ----------
    fits : int, optional
        Raise as if memory had run out where there are more items.
    dies : int, optional
        Raise as if the device had died from this call on.
    """

    fits: int | None = None
    dies: int | None = None
    sizes: list[int] = field(default_factory=list)
    alive: list[float] = field(default_factory=list)
    ended: list[bool] = field(default_factory=list)

    def wrap(self, forward: Forward) -> Forward:
        import torch

        def watched(tower: Any, images: torch.Tensor) -> torch.Tensor:
            self.sizes.append(len(images))
            self.alive.append(torch.cuda.memory_allocated(images.device) / 2**20 if images.is_cuda else 0.0)
            self.ended.append(False)
            if self.dies is not None and len(self.sizes) >= self.dies:
                raise RuntimeError(DEAD)
            if self.fits is not None and len(images) > self.fits:
                raise torch.cuda.OutOfMemoryError("as if")
            output = forward(tower, images)
            self.ended[-1] = True
            return output

        return watched

    def clear(self) -> None:
        for column in (self.sizes, self.alive, self.ended):
            column.clear()


@contextmanager
def little_memory(world: World) -> Iterator[None]:
    """`ROOM` beside what is taken already."""
    import torch

    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(world.device).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved(world.device) + ROOM) / total, world.number)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, world.number)


def memory(world: World, run: Run) -> None:
    with pillow_only():  # decoding on the device would take of its memory too
        _too_much(world, run)
        run.check("a device that died", "ends the run", ends(world, world.files(world.sizes.small)), "=", True)


def _too_much(world: World, run: Run) -> None:
    sizes = world.sizes
    real = world.gpu and not world.tiny
    calls = Calls(fits=None if real else FITS)
    encoder = world.vision(sizes.big, wrap=calls.wrap)
    paths = world.files(sizes.small)[:-1][:ITEMS]  # the last one is cut off
    pixels = [encoder.transform(sample.payload, max_pixels=1 << 28) for sample in world.samples(sizes.small)][:4]
    encoder.encode(pixels)
    before = calls.alive[-1]
    encoder.batch_size = sizes.batch
    with little_memory(world) if real else nullcontext():
        fits = largest(encoder, pixels, sizes.batch)
        calls.clear()
        report = es.embed(_source(paths), world.folder / "little", image=encoder)
        run.check("a batch that does not fit", "items embedded", float(report.spaces["image"].embedded), "=", float(len(paths)))
    done = [size for size, ended in zip(calls.sizes, calls.ended, strict=True) if ended]
    run.report("a batch that does not fit", "tried", float(max(calls.sizes)))
    run.report("a batch that does not fit", "fits", float(fits))
    run.check("a batch that does not fit", "final size ÷ what fits", max(done) / fits, "≥", LEAST_SHARE)
    retries = [alive for alive, ended in zip(calls.alive[1:], calls.ended, strict=False) if not ended]
    run.check("a batch that does not fit", "alive at a retry", max(retries, default=0.0) - before, "≤", ALIVE, " MiB")
    with run.attempt("a batch that does not fit", "vectors"):
        calls.fits = None
        run.check("a batch that does not fit", "cosine to vectors with room", _as_with_room(world, encoder, paths), "≥", SAME)


def _source(paths: Sequence[str]) -> MemorySource:
    return MemorySource({"id": [str(i) for i in range(len(paths))], "image": list(paths)})


def largest(encoder: ImageEncoder, pixels: Sequence[Any], most: int) -> int:
    """The largest batch that fits, to a few items."""
    low, high = 1, most + 1
    while high - low > max(1, low // 16):
        size = (low + high) // 2
        try:
            encoder.encode([pixels[i % len(pixels)] for i in range(size)])
            low = size
        except EncoderOutOfMemoryError:
            high = size
    return low


def _as_with_room(world: World, encoder: ImageEncoder, paths: Sequence[str]) -> float:
    """Least cosine of what the run stored to vectors that are computed with all memory."""
    stored = es.Store.open(world.folder / "little").view(inputs=["image"]).inputs["image"]
    expected = []
    for lo in range(0, len(paths), encoder.batch_size):
        prepared = [encoder.prepare(open(path, "rb").read()) for path in paths[lo : lo + encoder.batch_size]]  # noqa: SIM115
        expected.append(encoder.encode(prepared))
    return agreement(stored, np.concatenate(expected))


def ends(world: World, paths: Sequence[str]) -> bool:
    """Whether a device that dies in the middle of a run ends it, instead of failing item after item."""
    calls = Calls()
    encoder = world.vision(world.sizes.base, wrap=calls.wrap)
    encoder.batch_size = 4
    encoder.encode([encoder.transform(world.samples(world.sizes.small)[0].payload, max_pixels=1 << 28)])
    calls.dies = len(calls.sizes) + 2
    try:
        es.embed(_source(paths), world.folder / "dead", image=encoder)
    except EncoderError:
        return True
    return False
