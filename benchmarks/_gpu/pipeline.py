"""P2: from files to a committed store, beside the network alone and decoding alone, with what the device was busy for."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import embedstore as es
from benchmarks._gpu import models
from benchmarks._gpu.busy import Forwards, Looks
from benchmarks._gpu.rates import CORES, device_rate, forward_rate, noise, pillow_rate, steady
from benchmarks._gpu.run import Run
from benchmarks._gpu.world import World, pillow_only
from embedstore.encoders.image_encoder import ImageEncoder
from embedstore.sources import MemorySource

PART = 4
"""A run over one file in so many comes before that over all: the difference has no start in it."""
AIM = 0.9
"""Of what the network alone and decoding alone allow."""
LEAST = {"ViT-B-32": 7_000.0, "ViT-L-14": 1_000.0}
"""Images/s from small files, at best; eight A100s gave clip-retrieval 7,000."""
WORKERS = (4, 8, 16, 32)
FEWER = 4
"""The large model gets one in so many of the small files."""
PILLOW, DEVICE = "Pillow", "device"
DECODED = 8192
"""Files, at most, for what decoding alone is measured on."""
COSTS = 12.0
"""Seconds that one combination may take."""


@dataclass(frozen=True)
class Rates:
    """Images/s: from files to a store once it runs, of the network alone and of decoding alone."""

    whole: float
    forward: float
    decode: float

    @property
    def share(self) -> float:
        """Of what either part allows."""
        return self.whole / min(self.forward, self.decode)


def pipeline(world: World, run: Run) -> None:
    sizes = world.sizes
    forward = {name: _forward(world, run, name) for name in (sizes.base, sizes.big)}
    found: dict[tuple[str, int], list[Rates]] = {}
    for name in (sizes.base, sizes.big):
        for pixels in (sizes.small, sizes.large):
            for decoder in (PILLOW, DEVICE):
                if run.left < COSTS:
                    run.skip(f"{name}, {pixels} px, {decoder}", "too little time is left")
                    continue
                with run.attempt(f"{name}, {pixels} px, {decoder}"):
                    rates = _combination(world, run, name, pixels, decoder, forward[name])
                    if rates is not None:
                        found.setdefault((name, pixels), []).append(rates)
    for (name, pixels), several in found.items():
        _aims(world, run, name, pixels, max(several, key=lambda rates: rates.whole))
    _without_network(world, run)
    _workers(world, run)


def _aims(world: World, run: Run, name: str, pixels: int, best: Rates) -> None:
    """What the better of two decoders should reach, on the cards that the aims are for."""
    what, case = "the better decoder", f"{name}, {pixels} px, of the slower part alone"
    if not world.aimed_at:
        run.report(what, case, best.share)
        return
    run.check(what, case, best.share, "≥", AIM)
    if pixels == world.sizes.small:
        run.check(what, f"{name}, {pixels} px", best.whole, "≥", LEAST.get(name, 0.0), "/s")


def _forward(world: World, run: Run, name: str) -> float:
    encoder = world.vision(name)
    rate = forward_rate(world, encoder.model, noise(encoder, encoder.batch_size if world.gpu else world.sizes.batch))
    run.report("forward only", f"{name}:", rate, "/s")
    return rate


def _combination(world: World, run: Run, name: str, pixels: int, decoder: str, forward: float) -> Rates | None:
    """Rates of a model on files of a size, decoded one way; None where the device decodes none."""
    what, paths = f"{name}, {pixels} px, {decoder}", _paths(world, name, pixels)
    forwards = Forwards(world.device)
    with pillow_only() if decoder == PILLOW else nullcontext():
        encoder = world.vision(name, wrap=forwards.wrap)
        decode = _decoding(world, encoder, paths, decoder)
        if decode is None:
            run.skip(what, "the device decodes less than half of the files")
            return None
        part = end_to_end(world, encoder, paths[-(len(paths) // PART) :], forwards)
        whole = end_to_end(world, encoder, paths, forwards)
    rates = Rates(steady((part.files, part.seconds), (whole.files, whole.seconds)), forward, decode)
    run.report(what, "end to end", whole.rate, "/s")
    run.report(what, "without the start", rates.whole, "/s")
    run.report(what, "decoding alone", decode, "/s")
    run.report(what, "of the slower part alone", rates.share)
    run.report(what, "device busy", 100 * whole.busy, " %")
    for case, value in whole.looks.items():
        run.report(what, case, value, " %")
    run.report(what, "bound by", whole.bound_by)
    run.check(what, "failed", float(whole.failed), "=", 1.0)
    return rates


def _paths(world: World, name: str, pixels: int) -> list[str]:
    """Files for a model; the last of all, which is cut off, among them."""
    paths = world.files(pixels)
    few = name == world.sizes.big and pixels == world.sizes.small
    return paths[-(len(paths) // FEWER) :] if few else paths


def _decoding(world: World, encoder: ImageEncoder, paths: Sequence[str], decoder: str) -> float | None:
    if decoder == PILLOW:
        some = paths[: min(len(paths) - 1, DECODED)]
        return pillow_rate(encoder.transform, some, CORES, processes=True)
    return device_rate(world, encoder, paths[: min(len(paths) - 1, DECODED // 4)])


@dataclass(frozen=True)
class Whole:
    """One run of `es.embed`: its seconds, the share of them that the device spent in forwards, and what was seen beside it."""

    files: int
    seconds: float
    busy: float
    looks: dict[str, float]
    bound_by: str
    failed: int

    @property
    def rate(self) -> float:
        """Images/s, as a user sees it."""
        return self.files / self.seconds


def end_to_end(world: World, encoder: Any, paths: Sequence[str], forwards: Forwards, workers: int | None = None) -> Whole:
    """Embed files into a new store; the encoder is ready before the clock starts."""
    store = world.folder / "end-to-end"
    with open(paths[0], "rb") as file:
        encoder.encode([encoder.prepare(file.read())])
    forwards.clear()
    source = MemorySource({"id": [str(i) for i in range(len(paths))], "image": list(paths)})
    try:
        with Looks(gpu=world.gpu) as looks:
            report = es.embed(source, store, image=encoder, workers=workers)
    finally:
        shutil.rmtree(store, ignore_errors=True)
    busy = forwards.seconds / report.seconds
    return Whole(len(paths), report.seconds, busy, looks.means, report.bound_by, report.spaces["image"].failed)


def _without_network(world: World, run: Run) -> None:
    """What reading, decoding, comparing and writing allow together."""
    transform = models.transform_of(world.drawn(world.sizes.base))
    for decoder in (PILLOW, DEVICE):
        what = f"a network that costs nothing, {world.sizes.small} px"
        with run.attempt(what), pillow_only() if decoder == PILLOW else nullcontext():
            encoder = models.costless(transform, device=world.device)
            whole = end_to_end(world, encoder, world.files(world.sizes.small), Forwards(world.device))
            run.report(what, f"{decoder}:", whole.rate, "/s")
            run.report(what, "bound by", whole.bound_by)


def _workers(world: World, run: Run) -> None:
    sizes = world.sizes
    paths = world.files(sizes.small)[-(sizes.small_files // FEWER) :]
    for workers in WORKERS[:1] if world.tiny else WORKERS:
        if run.left < COSTS / 2:
            break
        with pillow_only():
            encoder = world.vision(sizes.base)
            whole = end_to_end(world, encoder, paths, Forwards(world.device), workers)
        run.report(f"{sizes.base}, {sizes.small} px, {PILLOW}, workers", f"{workers}:", whole.rate, "/s")
