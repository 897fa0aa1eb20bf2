"""How many images a second does the pipeline bring to a network that costs nothing?

``python -m benchmarks.pipeline [--tiny] [--files 16384] [--side 256] [--workers 2,16]``. JPEG files of `--side` pixels are
read, hashed and embedded into a store by an encoder whose network is free, so that everything else is measured:

- Pillow: workers decode and resize, as they do for any network;
- device: workers read, hash and look at headers alone, as they do where the device decodes;

each with threads and with processes, beside a torch DataLoader of as many processes that does the same work (reads, hashes,
decodes or looks at headers) and keeps nothing. CPU seconds are those of all processes; the best of three rounds of each by
turns.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import resource
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import embedstore as es
from embedstore.encoders.base import Outside
from embedstore.encoders.image_encoder import pictures
from embedstore.encoders.payloads.images import ImageTransform
from embedstore.encoders.payloads.jpegs import ALL_SAMPLINGS, Jpeg
from embedstore.encoders.payloads.preparation import Preparation
from embedstore.sources import MemorySource
from embedstore.spec import EncoderSpec

TRANSFORM = ImageTransform((224, 224), "shortest", 224, "bicubic", (0.5,) * 3, (0.5,) * 3)
MAX_PIXELS = 1 << 27
DIM = 8
BATCH = 256


class Costless:
    """An encoder of images whose network takes no time.

    Parameters
    ----------
    jpegs : bool
        Files are left to a device, which takes no time either.
    processes : bool
    """

    batch_size = BATCH
    truncated = 0

    def __init__(self, *, jpegs: bool, processes: bool) -> None:
        self.spec = EncoderSpec("costless", "benchmark", "costless", "", "image", DIM)
        self.prepare = Preparation(TRANSFORM, MAX_PIXELS, ALL_SAMPLINGS if jpegs else ())
        factory = f"{Preparation.__module__}:preparation"
        made = Outside(factory, self.prepare.arguments, (224, 224, 4), lambda payload, said: Jpeg(payload, *said))
        self.outside = made if processes else None
        self._vectors = np.random.default_rng(0).standard_normal((BATCH, DIM)).astype(np.float32)

    def encode(self, batch: Sequence[Any]) -> Any:
        return self._vectors[: len(batch)]

    def provenance(self) -> dict[str, str]:
        return {}


def files(folder: Path, count: int, side: int) -> list[str]:
    """JPEG files, no two of them the same: 64 pictures, made different by a comment."""
    from PIL import Image

    made = []
    for seed in range(8):
        for i, pixels in enumerate(pictures(side, side)):
            image = Image.fromarray(np.roll(pixels, 17 * seed, axis=(0, 1)))
            file = io.BytesIO()
            image.save(file, "JPEG", quality=90 - i)
            made.append(file.getvalue())
    paths = []
    for i in range(count):
        whole, comment = made[i % len(made)], str(i).encode()
        path = folder / f"{i}.jpg"
        path.write_bytes(whole[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + whole[2:])
        paths.append(str(path))
    return paths


def ours(paths: list[str], workers: int, *, jpegs: bool, processes: bool) -> None:
    source = MemorySource({"id": [str(i) for i in range(len(paths))], "image": paths})
    encoder: Any = Costless(jpegs=jpegs, processes=processes)
    with tempfile.TemporaryDirectory() as folder:
        report = es.embed(source, Path(folder) / "p.store", image=encoder, workers=workers)
    assert report.spaces["image"].embedded == len(paths)


def loader(paths: list[str], workers: int, *, jpegs: bool) -> None:
    import torch

    prepare = Preparation(TRANSFORM, MAX_PIXELS, ALL_SAMPLINGS if jpegs else ())

    class Files(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return len(paths)

        def __getitem__(self, i: int) -> Any:
            payload = Path(paths[i]).read_bytes()
            digest = hashlib.blake2b(payload, digest_size=16).digest()
            found = prepare(payload)
            return digest, found if isinstance(found, Jpeg) else torch.from_numpy(np.array(found))

    def collate(items: list[Any]) -> Any:
        first = items[0][1]
        return [i[0] for i in items], [i[1] for i in items] if isinstance(first, Jpeg) else torch.stack([i[1] for i in items])

    seen = sum(len(d) for d, _ in torch.utils.data.DataLoader(Files(), BATCH, num_workers=workers, collate_fn=collate))
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # DataLoader leaves its own
    assert seen == len(paths)


def cpu_seconds() -> float:
    """Of this process and of its children that have ended."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def timed(work: Callable[[], None]) -> tuple[float, float]:
    """Seconds, and CPU seconds."""
    started, used = time.perf_counter(), cpu_seconds()
    work()
    return time.perf_counter() - started, cpu_seconds() - used


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Print the table and return images/s by "decoding, how, workers"."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--files", type=int, default=16_384)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--workers", default="2,16")
    options = parser.parse_args(arguments)
    count, rounds = (min(600, options.files), 1) if options.tiny else (options.files, 3)
    best: dict[tuple[str, str, int], tuple[float, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        paths = files(Path(folder), count, options.side)
        for _ in range(rounds):
            for decoding, jpegs in (("Pillow", False), ("device", True)):
                some = paths if jpegs else paths if options.tiny else paths[: count // 4]
                for workers in map(int, options.workers.split(",")):
                    ways: dict[str, Callable[[], None]] = {
                        name: partial(ours, some, workers, jpegs=jpegs, processes=processes)
                        for name, processes in (("threads", False), ("processes", True))
                    }
                    ways["DataLoader"] = partial(loader, some, workers, jpegs=jpegs)
                    for name, work in ways.items():
                        taken = [value / len(some) for value in timed(work)]
                        key = (decoding, name, workers)
                        best[key] = min(best.get(key, (np.inf, np.inf)), (taken[0], taken[1]))
    print(f"{count:,} files (a quarter for Pillow) of {options.side} px, {os.cpu_count()} processors\n")
    print("| decoding | how | workers | images/s | CPU ms an image |\n|---|---|---|---|---|")
    for (decoding, name, workers), (seconds, used) in best.items():
        print(f"| {decoding} | {name} | {workers} | {1 / seconds:,.0f} | {1000 * used:.3f} |")
    return {", ".join(map(str, key)): 1 / seconds for key, (seconds, _) in best.items()}


if __name__ == "__main__":
    main()
