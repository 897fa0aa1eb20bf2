"""P3: what people write today: a DataLoader of as many processes as there are cores, pinned, float16 autocast."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks._gpu.models import transform_of
from benchmarks._gpu.pipeline import FEWER, PART
from benchmarks._gpu.rates import CORES, steady
from benchmarks._gpu.run import Run
from benchmarks._gpu.world import World

PREFETCHED = 4
"""Batches of each process."""
COSTS = 10.0
"""Seconds that one of them may take."""


class Files:
    """The data set that people write: open, convert, transform."""

    def __init__(self, paths: Sequence[str], transform: Callable[[Any], Any]) -> None:
        self._paths = paths
        self._transform = transform

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, number: int) -> Any:
        from PIL import Image

        return self._transform(Image.open(self._paths[number]).convert("RGB"))


def peer(world: World, run: Run) -> None:
    sizes = world.sizes
    for name, pixels in ((sizes.base, sizes.small), (sizes.big, sizes.small), (sizes.base, sizes.large)):
        if run.left < COSTS:
            break
        paths = world.files(pixels)[:-1]  # it would stop at the one that is cut off
        paths = paths[: len(paths) // FEWER] if (name, pixels) == (sizes.big, sizes.small) else paths
        what = f"DataLoader of {CORES} processes"
        with run.attempt(what, f"{name}, {pixels} px"):
            few = paths[: len(paths) // PART]
            part, whole = dataloader_seconds(world, name, few), dataloader_seconds(world, name, paths)
            run.report(what, f"{name}, {pixels} px, end to end", len(paths) / whole, "/s")
            run.report(what, "without the start", steady((len(few), part), (len(paths), whole)), "/s")


def dataloader_seconds(world: World, name: str, paths: Sequence[str]) -> float:
    """Seconds from the start of the loader's processes to the last vector on the host."""
    import open_clip
    import torch

    model, wanted = world.drawn(name), transform_of(world.drawn(name))
    transform = open_clip.image_transform(wanted.size, is_train=False, mean=wanted.mean, std=wanted.std)
    before = signal.getsignal(signal.SIGCHLD)
    batch = max(1, min(world.sizes.batch, len(paths) // (4 * CORES)))
    loader: Any = torch.utils.data.DataLoader(
        Files(paths, transform),  # type: ignore[arg-type]
        batch_size=batch,
        num_workers=1 if world.tiny else CORES,
        pin_memory=world.gpu,
        prefetch_factor=PREFETCHED,
    )
    kind = world.device.partition(":")[0]
    found, start = [], time.perf_counter()
    with torch.inference_mode(), torch.autocast(kind, torch.float16, enabled=world.gpu):
        for images in loader:
            vectors = model.encode_image(images.to(world.device, non_blocking=True), normalize=True)
            found.append(vectors.cpu().numpy().astype(np.float16))
    seconds = time.perf_counter() - start
    signal.signal(signal.SIGCHLD, before)  # the loader leaves its own
    return seconds
