"""C2 and C3: do decoders on the device see what Pillow sees, and does embedstore use one only where they do?"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from functools import cache
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
from embedstore.encoders.runtimes.base import agreement
from embedstore.sources import MemorySource

if TYPE_CHECKING:
    import torch

Decode = Callable[[list[bytes]], "list[torch.Tensor | None]"]
"""Images (height, width, 3) uint8 where they were decoded; None where one was refused."""

AGREES = 0.9999
MOST_PIXELS = 1 << 28
EXACT = ("torchcodec, CPU", "nvImageCodec, chroma interpolated")
"""Decoders that have to give Pillow's vectors, whatever the subsampling."""
LEAST_TAKEN = 0.15
"""Share of the pictures whose chroma no decoder has to interpolate, and some."""


def there(module: str) -> bool:
    """Whether a module can be imported; its parents too."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def known(world: World) -> dict[str, Decode]:
    """Decoders that are installed, by name."""
    found: dict[str, Decode] = {}
    if there("torchcodec"):
        found["torchcodec, CPU"] = lambda files: torchcodec(files, "cpu")
        if world.gpu:
            found["torchcodec, device"] = lambda files: torchcodec(files, world.device)
    if world.gpu and there("nvidia.nvimgcodec"):
        found["nvImageCodec, chroma repeated"] = nvimagecodec(world.number, 0)
        found["nvImageCodec, chroma interpolated"] = nvimagecodec(world.number, 1)
    return found


def torchcodec(files: list[bytes], device: str) -> list[torch.Tensor | None]:
    from torchcodec.decoders import decode_jpeg  # type: ignore[attr-defined,import-not-found,import-untyped,unused-ignore]

    return [image.permute(1, 2, 0) for image in decode_jpeg(files, mode="RGB", device=device)]


def nvimagecodec(number: int, fancy: int) -> Decode:
    """nvImageCodec's decoder on a GPU, opened when it is first used; `fancy` is whether it interpolates chroma."""

    @cache
    def opened() -> Any:
        from nvidia import nvimgcodec  # type: ignore[import-not-found,import-untyped,unused-ignore]

        return nvimgcodec.Decoder(device_id=number, options=f":fancy_upsampling={fancy}")

    def decode(files: list[bytes]) -> list[torch.Tensor | None]:
        from torch.utils.dlpack import from_dlpack

        return [None if image is None else from_dlpack(image) for image in opened().decode(files)]

    return decode


def decoders(world: World, run: Run) -> None:
    samples = [sample for sample in world.samples(world.sizes.small) if sample.kind != "CMYK"]
    kinds: dict[str, list[Sample]] = {}
    for sample in samples:
        kinds.setdefault(sample.kind, []).append(sample)
    encoder = _probe(world)
    for name, decode in known(world).items():
        for kind, given in kinds.items():
            with run.attempt(name, kind):
                _beside_pillow(run, encoder, name, kind, decode, [sample.payload for sample in given])


def _probe(world: World) -> ImageEncoder:
    """The encoder that is most easily put off."""
    make: Any = next(iter(world.image_encoders.values()))
    encoder: ImageEncoder = make(world.device, "float32")
    return encoder


def _beside_pillow(run: Run, encoder: ImageEncoder, name: str, kind: str, decode: Decode, files: list[bytes]) -> None:
    from PIL import Image

    images = decode(files)
    expected = [decode_rgb(file, max_pixels=MOST_PIXELS) for file in files]
    pairs = [(ours.cpu().numpy(), theirs) for ours, theirs in zip(images, expected, strict=True) if ours is not None]
    if not pairs:
        run.report(name, kind, "refused")
        return
    apart = np.concatenate([np.abs(np.asarray(b, np.int16) - a).ravel() for a, b in pairs])
    levels = f"{apart.mean():.2f} levels apart, at most {apart.max()}, {(apart > 3).mean():.1%} above 3"
    ours = encoder.encode([encoder.transform.pixels(Image.fromarray(np.ascontiguousarray(a))) for a, _ in pairs])
    theirs = encoder.encode([encoder.transform.pixels(b) for _, b in pairs])
    run.report(name, kind, levels)
    if name in EXACT:
        run.check(name, f"{kind}, cosine", agreement(ours, theirs), "≥", AGREES)
    else:
        run.report(name, f"{kind}, cosine", agreement(ours, theirs))


def device_jpegs(world: World, run: Run) -> None:
    samples = world.samples(world.sizes.small)
    expected = world.gpu and len(known(world)) > 1
    devices = ("cuda", "cuda:0") if world.device == "cuda" else (world.device,)
    for name, make in world.image_encoders.items():
        for device in devices if name == world.sizes.base else devices[:1]:
            with run.attempt(f"{name} on {device}"):
                encoder: Any = make(device, "auto")
                taken, cosine = both_ways(encoder, samples)
                run.report(f"{name} on {device}", "decoder", encoder.provenance().get("jpeg", "Pillow"))
                run.check(f"{name} on {device}", "cosine to Pillow", cosine, "≥", AGREES)
                if expected:
                    run.check(f"{name} on {device}", "share taken", taken, "≥", LEAST_TAKEN)
    files = [sample.payload for sample in samples[:10]]
    files += [data.cut_off(files[0]), data.beheaded(files[4])]
    counts = damaged_among(world.vision(world.sizes.base), files, world.folder / "damaged")
    run.check("damaged files cost themselves", "failed", float(counts.failed), "=", 2.0)
    run.check("damaged files cost themselves", "embedded", float(counts.embedded), "=", float(len(files) - 2))


def both_ways(encoder: ImageEncoder, samples: Sequence[Sample]) -> tuple[float, float]:
    """Share of the files that wait to be decoded on the device, and the least cosine of all vectors to Pillow's."""
    prepared = [encoder.prepare(sample.payload) for sample in samples]
    taken = sum(not isinstance(given, np.ndarray) for given in prepared) / len(prepared)
    pixels = [encoder.transform(sample.payload, max_pixels=MOST_PIXELS) for sample in samples]
    return taken, agreement(encoder.encode(prepared), encoder.encode(pixels))


def damaged_among(encoder: ImageEncoder, files: Sequence[bytes], store: Path) -> Any:
    """Counts of a run over `files`."""
    unique = [data.unique(file, i) for i, file in enumerate(files)]
    source = MemorySource({"id": [str(i) for i in range(len(unique))], "image": unique})
    return es.embed(source, store, image=encoder).spaces["image"]
