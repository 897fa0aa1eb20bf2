"""C2 and C3: do decoders on the device see what Pillow sees, and does embedstore use one only where they do?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import embedstore as es
from benchmarks._gpu import data
from benchmarks._gpu.data import Sample
from benchmarks._gpu.run import Run
from benchmarks._gpu.world import World
from embedstore.encoders.image_encoder import ImageEncoder
from embedstore.encoders.payloads.images import decode_rgb
from embedstore.encoders.payloads.jpeg_decoders import JpegDecoder, installed
from embedstore.encoders.payloads.jpegs import taken
from embedstore.encoders.runtimes.base import agreement
from embedstore.sources import MemorySource

if TYPE_CHECKING:
    import torch

AGREES = 0.9999
MOST_PIXELS = 1 << 28
LEAST_TAKEN, LEAST_UNSAMPLED = 0.9, 0.15
"""Shares of the pictures that the device decodes: with nvImageCodec all but a few, else those with all their chroma."""


def known(world: World) -> dict[str, JpegDecoder]:
    """Decoders that are installed, for the device, by the package that brings them."""
    import torch

    return {decoder.package: decoder(torch.device(world.device)) for decoder in installed()}


def decoders(world: World, run: Run) -> None:
    samples = [sample for sample in world.samples(world.sizes.small) if sample.kind != "CMYK"]
    kinds: dict[str, list[Sample]] = {}
    for sample in samples:
        kinds.setdefault(sample.kind, []).append(sample)
    encoder = _probe(world)
    for name, decoder in known(world).items():
        for kind, given in kinds.items():
            with run.attempt(name, kind):
                _beside_pillow(run, encoder, name, kind, decoder, [sample.payload for sample in given])


def _probe(world: World) -> ImageEncoder:
    """The encoder that is most easily put off."""
    make: Any = next(iter(world.image_encoders.values()))
    encoder: ImageEncoder = make(world.device, "float32")
    return encoder


def _beside_pillow(run: Run, encoder: ImageEncoder, name: str, kind: str, decoder: JpegDecoder, files: list[bytes]) -> None:
    """Of files of one kind: how far pixels are apart, and vectors, which have to agree where embedstore uses the decoder."""
    from PIL import Image

    expected = [decode_rgb(file, max_pixels=MOST_PIXELS) for file in files]
    pairs = [
        (_pixels(ours), b)
        for ours, b in zip(decoder.decode(files), expected, strict=True)
        if not isinstance(ours, RuntimeError)
    ]
    if not pairs:
        run.report(name, kind, "refused")
        return
    apart = np.concatenate([np.abs(np.asarray(b, np.int16) - a).ravel() for a, b in pairs])
    levels = f"{apart.mean():.2f} levels apart, at most {apart.max()}, {(apart > 3).mean():.1%} above 3"
    ours = encoder.encode([encoder.transform.pixels(Image.fromarray(a)) for a, _ in pairs])
    theirs = encoder.encode([encoder.transform.pixels(b) for _, b in pairs])
    run.report(name, kind, levels)
    if taken(files[0], encoder.transform, MOST_PIXELS, samplings=decoder.samplings):
        run.check(name, f"{kind}, cosine", agreement(ours, theirs), "≥", AGREES)
    else:
        run.report(name, f"{kind}, cosine", agreement(ours, theirs))


def _pixels(image: torch.Tensor) -> np.ndarray[Any, Any]:
    """(height, width, 3) on the host."""
    return np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy())


def device_jpegs(world: World, run: Run) -> None:
    samples = world.samples(world.sizes.small)
    packages = [decoder.package for decoder in installed()] if world.gpu else []
    least = LEAST_TAKEN if any("nvimgcodec" in package for package in packages) else LEAST_UNSAMPLED
    devices = ("cuda", "cuda:0") if world.device == "cuda" else (world.device,)
    for name, make in world.image_encoders.items():
        for device in devices if name == world.sizes.base else devices[:1]:
            with run.attempt(f"{name} on {device}"):
                encoder: Any = make(device, "auto")
                share, cosine = both_ways(encoder, samples)
                run.report(f"{name} on {device}", "decoder", encoder.provenance().get("jpeg", "Pillow"))
                run.check(f"{name} on {device}", "cosine to Pillow", cosine, "≥", AGREES)
                if packages:
                    run.check(f"{name} on {device}", "share of the files", share, "≥", least)
    files = [sample.payload for sample in samples[:10]]
    files += [data.cut_off(files[0]), data.beheaded(files[4])]
    counts = damaged_among(world.vision(world.sizes.base), files, world.folder / "damaged")
    run.check("damaged files cost themselves", "failed", float(counts.failed), "=", 2.0)
    run.check("damaged files cost themselves", "embedded", float(counts.embedded), "=", float(len(files) - 2))


def both_ways(encoder: ImageEncoder, samples: Sequence[Sample]) -> tuple[float, float]:
    """Share of the files that wait to be decoded on the device, and the least cosine of all vectors to Pillow's."""
    prepared = [encoder.prepare(sample.payload) for sample in samples]
    share = sum(not isinstance(given, np.ndarray) for given in prepared) / len(prepared)
    pixels = [encoder.transform(sample.payload, max_pixels=MOST_PIXELS) for sample in samples]
    return share, agreement(encoder.encode(prepared), encoder.encode(pixels))


def damaged_among(encoder: ImageEncoder, files: Sequence[bytes], store: Path) -> Any:
    """Counts of a run over `files`."""
    unique = [data.unique(file, i) for i, file in enumerate(files)]
    source = MemorySource({"id": [str(i) for i in range(len(unique))], "image": unique})
    return es.embed(source, store, image=encoder).spaces["image"]
