"""JPEG files decoded and resized on the device that runs the model, a batch at a time: nvJPEG, through torchcodec.

A GPU runs a small network faster than many cores decode for it. Its decoder is not Pillow's, so it is used for a model only
after its vectors have been shown to agree, and only for plain files: RGB or grey, upright, within the limit of pixels.
Everything else, and what it refuses, goes through Pillow.
"""

from __future__ import annotations

import importlib.util
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from embedstore.encoders.payloads.images import ImageTransform, Pixels, shortest, vertical_first
from embedstore.encoders.runtimes.base import agreement
from embedstore.encoders.runtimes.pytorch import AGREEMENT, TorchModel, TorchRuntime
from embedstore.errors import EncoderOutOfMemoryError, one_line

if TYPE_CHECKING:
    import torch

LOG = logging.getLogger(__name__)
GROUP_PIXELS = 1 << 26
"""Of the files that are decoded at once, or of what they are scaled to; three bytes each on the device."""
MOST_BYTES = 1 << 20
"""Of a file; hundreds wait for their batch at once."""
ORIENTATION = 0x0112


class Jpeg(NamedTuple):
    """A file that is decoded with its batch."""

    payload: bytes | memoryview
    area: int


def taken(payload: bytes, transform: ImageTransform, max_pixels: int) -> Jpeg | None:
    """`payload` to be decoded with its batch; None where Pillow has to do it."""
    from PIL import Image

    whole = payload.startswith(b"\xff\xd8\xff") and payload.endswith(b"\xff\xd9")
    if not whole or len(payload) > MOST_BYTES:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(payload), formats=["JPEG"])
        plain = image.mode in ("RGB", "L") and image.info.get("adobe_transform", 1) == 1
        named = [component[0] for component in getattr(image, "layer", ())]
        upright = image.getexif().get(ORIENTATION, 1) == 1
    except Exception:  # Pillow's readers raise many kinds; it will say what is wrong when it decodes
        return None
    across, down = shortest(image.width, image.height, transform.resize_to)
    area = max(image.width * image.height, across * down)
    fits = image.width * image.height <= max_pixels and area <= GROUP_PIXELS
    return Jpeg(payload, area) if plain and upright and fits and named != list(b"RGB") else None


class DeviceJpegs:
    """Decodes and resizes on the device of `runtime`, as `transform` says.

    Parameters
    ----------
    runtime : TorchRuntime
    transform : ImageTransform
    max_pixels : int
    """

    def __init__(self, runtime: TorchRuntime, transform: ImageTransform, max_pixels: int) -> None:
        self._runtime = runtime
        self._transform = transform
        self._max_pixels = max_pixels

    def stacked(self, batch: Sequence[Pixels | Jpeg]) -> torch.Tensor:
        """Pixels (n, height, width, 3) uint8 on the device, of files and of what Pillow decoded.

        Raises
        ------
        PayloadError
            A file is damaged.
        EncoderOutOfMemoryError
        """
        import torch

        with self._runtime.memory_errors(), torch.inference_mode():
            out = torch.empty((len(batch), *self._transform.size, 3), dtype=torch.uint8, device=self._runtime.device)
            decoded = [i for i, given in enumerate(batch) if not isinstance(given, Jpeg)]
            if decoded:
                out[decoded] = self._runtime.tensor(np.stack([np.asarray(batch[i]) for i in decoded]))[..., :3]
            for group in _groups(batch):
                for i, pixels in zip(group, self._pixels([batch[i].payload for i in group]), strict=True):  # type: ignore[union-attr]
                    out[i] = pixels
            return out

    def decoded(self, payloads: Sequence[bytes | memoryview]) -> list[torch.Tensor]:
        """(height, width, 3) uint8 of each file.

        Raises
        ------
        RuntimeError
            The decoder refuses one of them.
        """
        from torchcodec.decoders import decode_jpeg  # type: ignore[attr-defined,import-not-found,import-untyped,unused-ignore]

        return [
            self._resized(image) for image in decode_jpeg(list(map(bytes, payloads)), mode="RGB", device=self._runtime.device)
        ]

    def _pixels(self, payloads: Sequence[bytes | memoryview]) -> list[torch.Tensor]:
        """As `decoded`; Pillow's of those that the decoder refuses."""
        import torch

        try:
            return self.decoded(payloads)
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError:
            if len(payloads) > 1:
                return [pixels for payload in payloads for pixels in self._pixels([payload])]
            return [self._runtime.tensor(self._transform(bytes(payloads[0]), max_pixels=self._max_pixels)[..., :3].copy())]

    def _resized(self, image: torch.Tensor) -> torch.Tensor:
        """What `ImageTransform.pixels` does, for an image (3, h, w) uint8, in float32."""
        from torch.nn.functional import interpolate

        transform = self._transform
        height, width = transform.size
        squash = transform.resize == "squash"
        across, down = (width, height) if squash else shortest(image.shape[2], image.shape[1], transform.resize_to)
        left, top = round((across - width) / 2.0), round((down - height) / 2.0)
        columns_first = vertical_first((image.shape[2], image.shape[1]), (across, down))
        between = (down, image.shape[2]) if columns_first else (image.shape[1], across)
        for size in (between, (down, across)):  # one way, then the other, each rounded, as Pillow does
            scaled = interpolate(image[None].float(), size, mode=transform.interpolation, antialias=True)[0]
            image = scaled.clamp(0, 255).round().byte()
        return image[:, top : top + height, left : left + width].permute(1, 2, 0)


def _groups(batch: Sequence[Pixels | Jpeg]) -> Iterator[list[int]]:
    """Positions of the files, in groups of about `GROUP_PIXELS`."""
    group: list[int] = []
    area = 0
    for i, given in enumerate(batch):
        if isinstance(given, Jpeg):
            if group and area + given.area > GROUP_PIXELS:
                yield group
                group, area = [], 0
            group.append(i)
            area += given.area
    if group:
        yield group


def open_jpegs(model: TorchModel, transform: ImageTransform, examples: Pixels, max_pixels: int) -> DeviceJpegs | None:
    """Decoding on the device of `model`; None where it cannot be had, or gives other vectors.

    Parameters
    ----------
    examples : (n, height, width, 3) uint8
        Images to be saved as JPEG and embedded both ways.
    """
    import torch

    crops = transform.resize == "shortest" and transform.resize_to >= max(transform.size)
    if not (crops or transform.resize == "squash") or transform.interpolation not in ("bicubic", "bilinear"):
        return None
    if importlib.util.find_spec("torchcodec") is None:
        LOG.info("JPEGs are decoded on the CPU; on the GPU with torchcodec: pip install 'embedstore[gpu]'")
        return None
    jpegs = DeviceJpegs(model.runtime, transform, max_pixels)
    files = list(_files(examples))
    try:
        theirs = model(np.stack([transform(payload, max_pixels=max_pixels) for payload in files]))
        with model.runtime.memory_errors(), torch.inference_mode():
            pixels = torch.stack(jpegs.decoded(files))
        cosine = agreement(model(pixels), theirs)
    except (RuntimeError, ImportError, EncoderOutOfMemoryError) as error:
        LOG.info("JPEGs are decoded on the CPU: %s", one_line(error))
        return None
    if not cosine >= AGREEMENT:
        LOG.info("JPEGs are decoded on the CPU: vectors from the GPU's decoder would differ (cosine %.6f).", cosine)
        return None
    return jpegs


def _files(images: Pixels) -> Iterator[bytes]:
    """JPEG files as cameras write them, larger than the images and not square; the last one is grey."""
    from PIL import Image

    for i, pixels in enumerate(images):
        height, width = pixels.shape[:2]
        image = Image.fromarray(pixels).resize((2 * width, height * 3 // 2), Image.Resampling.BICUBIC)
        file = io.BytesIO()
        (image.convert("L") if i == len(images) - 1 else image).save(file, "JPEG", quality=90)
        yield file.getvalue()
