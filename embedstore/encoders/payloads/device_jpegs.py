"""JPEG files decoded and resized on the device that runs the model, a batch at a time.

A GPU runs a small network faster than many cores decode for it. Its decoder is not Pillow's, so it is used for a model only
after its vectors have been shown to agree, and only for the files that `jpegs.taken` picks. Everything else, and what the
decoder refuses, goes through Pillow.
"""

from __future__ import annotations

import io
import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np

from embedstore.encoders.payloads.device_resize import can_resize, resized
from embedstore.encoders.payloads.images import ImageTransform, Pixels
from embedstore.encoders.payloads.jpeg_decoders import JpegDecoder, installed
from embedstore.encoders.payloads.jpegs import ALL_SAMPLINGS, MOST_PIXELS, Jpeg, taken
from embedstore.encoders.runtimes.base import Pending, agreement
from embedstore.encoders.runtimes.pytorch import AGREEMENT, TorchModel
from embedstore.encoders.runtimes.several import SeveralModels
from embedstore.encoders.runtimes.side_stream import SideStream
from embedstore.errors import EncoderOutOfMemoryError, one_line
from embedstore.registry import version

if TYPE_CHECKING:
    import torch

LOG = logging.getLogger(__name__)
GROUP_PIXELS = MOST_PIXELS
"""Of the files that are decoded at once, or of what they are scaled to; three bytes each on the device."""
RESIZED_PIXELS = 1 << 24
"""Of images of one size that are resized at once; twelve bytes each on the device, before and after."""
QUALITIES = (90, 75, 50, 25)
"""Of the example files: pictures of many pixels are small files at a low one."""
ON_CPU = "JPEGs are decoded on the CPU"


class DeviceJpegs:
    """Decodes and resizes on the device of `model`, as `transform` says.

    Parameters
    ----------
    decoder : JpegDecoder
    model : TorchModel
    transform : ImageTransform
    max_pixels : int
    """

    def __init__(self, decoder: JpegDecoder, model: TorchModel, transform: ImageTransform, max_pixels: int) -> None:
        self._decoder = decoder
        self._model = model
        self._runtime = model.runtime
        self._transform = transform
        self._max_pixels = max_pixels
        self._side = SideStream(model.runtime.device, "embedstore-jpegs")

    @property
    def samplings(self) -> tuple[int, ...]:
        """Those that `jpegs.taken` may take."""
        return self._decoder.samplings

    def start(self, batch: Sequence[Pixels | Jpeg]) -> Pending:
        """Begin to decode a batch and to embed it, beside what the device is doing already.

        What goes wrong is raised when the vectors are waited for. Files must not change before.
        """
        return self._side.start(lambda: self.stacked(batch), self._model.start)

    def refuse_any(self, files: Sequence[Jpeg]) -> None:
        """Raise the `RuntimeError` of the first of `files` that the decoder refuses."""
        with self._runtime.device_errors():
            for found in self._decoder.decode([file.payload for file in files]):
                if isinstance(found, RuntimeError):
                    raise found

    def stacked(self, batch: Sequence[Pixels | Jpeg]) -> torch.Tensor:
        """Pixels (n, height, width, 3) uint8 on the device, of files and of what Pillow decoded.

        Raises
        ------
        PayloadError
            A file is damaged.
        EncoderOutOfMemoryError
        """
        import torch

        with self._runtime.device_errors(), torch.inference_mode():
            out = torch.empty((len(batch), *self._transform.size, 3), dtype=torch.uint8, device=self._runtime.device)
            self._put(out, {i: given for i, given in enumerate(batch) if not isinstance(given, Jpeg)})
            for group in _groups({i: given for i, given in enumerate(batch) if isinstance(given, Jpeg)}):
                self._decode(out, group)
            return out

    def _decode(self, out: torch.Tensor, files: Mapping[int, Jpeg]) -> None:
        """Rows of `out` from files; Pillow decodes what the decoder refuses."""
        import torch

        found = dict(zip(files, self._decoder.decode([file.payload for file in files.values()]), strict=True))
        images = {i: image for i, image in found.items() if not isinstance(image, RuntimeError)}
        for rows in _of_one_size(images, files):
            pixels = resized(torch.stack([images[i] for i in rows]), self._transform)
            out[rows] = pixels.permute(0, 2, 3, 1)
        refused = {i: bytes(file.payload) for i, file in files.items() if i not in images}
        self._put(out, {i: self._transform(payload, max_pixels=self._max_pixels) for i, payload in refused.items()})

    def _put(self, out: torch.Tensor, pixels: Mapping[int, Pixels]) -> None:
        """Rows of `out` from what Pillow decoded."""
        if pixels:
            rows = list(pixels)
            out[rows] = self._runtime.tensor([pixels[i] for i in rows])[..., :3]

    def provenance(self) -> dict[str, str]:
        return {"jpeg": "nvjpeg", self._decoder.package: version(self._decoder.package)}


class JpegsInTurn:
    """Of a network on several devices: each decodes the batch that it embeds, and they take turns.

    Parameters
    ----------
    devices : sequence of DeviceJpegs
        At least one.
    """

    def __init__(self, devices: Sequence[DeviceJpegs]) -> None:
        self._devices = list(devices)
        self._turn = itertools.cycle(self._devices)

    @property
    def samplings(self) -> tuple[int, ...]:
        """Those that every device takes."""
        return min((device.samplings for device in self._devices), key=len)

    def start(self, batch: Sequence[Pixels | Jpeg]) -> Pending:
        """As `DeviceJpegs.start`; called from one thread."""
        return next(self._turn).start(batch)

    def stacked(self, batch: Sequence[Pixels | Jpeg]) -> torch.Tensor:
        return self._devices[0].stacked(batch)

    def provenance(self) -> dict[str, str]:
        return {key: value for device in self._devices for key, value in device.provenance().items()}


def _groups(files: Mapping[int, Jpeg]) -> Iterator[dict[int, Jpeg]]:
    """The files in groups of about `GROUP_PIXELS`."""
    group: dict[int, Jpeg] = {}
    area = 0
    for i, file in files.items():
        if group and area + file.area > GROUP_PIXELS:
            yield group
            group, area = {}, 0
        group[i] = file
        area += file.area
    if group:
        yield group


def _of_one_size(images: Mapping[int, torch.Tensor], files: Mapping[int, Jpeg]) -> Iterator[list[int]]:
    """Numbers of images that are resized at once: of one size, and of about `RESIZED_PIXELS`."""
    by_size: dict[tuple[int, ...], list[int]] = {}
    for i, image in images.items():
        by_size.setdefault(tuple(image.shape), []).append(i)
    for rows in by_size.values():
        step = max(1, RESIZED_PIXELS // files[rows[0]].area)
        yield from (rows[lo : lo + step] for lo in range(0, len(rows), step))


def open_jpegs(
    model: TorchModel | SeveralModels, transform: ImageTransform, examples: Pixels, max_pixels: int
) -> DeviceJpegs | JpegsInTurn | None:
    """Decoding on the device of `model`, or on each of several; None where it cannot be had, or gives other vectors.

    Parameters
    ----------
    examples : (n, height, width, 3) uint8
        Images to be saved as JPEG and embedded both ways.
    """
    if not can_resize(transform):
        LOG.info("%s: this model pads or crops images in a way that the GPU's path does not know.", ON_CPU)
        return None
    if not isinstance(model, SeveralModels):
        return _opened(model, transform, examples, max_pixels)
    found = []
    for one in model.models:
        jpegs = _opened(cast("TorchModel", one), transform, examples, max_pixels)
        if jpegs is None:
            return None
        found.append(jpegs)
    return JpegsInTurn(found)


def _opened(model: TorchModel, transform: ImageTransform, examples: Pixels, max_pixels: int) -> DeviceJpegs | None:
    refused = []
    for kind in installed():
        files = list(_files(examples, transform, kind.samplings))
        if not files:
            height, width = transform.size
            refused.append(f"{kind.package} cannot be tried (example files for images of {height} x {width} are too large)")
            continue
        try:
            decoder = kind(model.runtime.device)
            cosine = _agreement(decoder, model.in_float32(), transform, files)
        except (RuntimeError, ImportError, OSError, EncoderOutOfMemoryError) as error:
            refused.append(f"{kind.package} fails ({one_line(error)})")
            continue
        if cosine >= AGREEMENT:
            _say(refused, kind)
            return DeviceJpegs(decoder, model, transform, max_pixels)
        refused.append(f"{kind.package} gives other vectors than Pillow (cosine {cosine:.6f}, {AGREEMENT} is asked)")
    if refused:
        LOG.warning("%s, although a GPU is there: %s.", ON_CPU, "; ".join(refused))
    else:
        LOG.info("%s. On the GPU with: pip install 'embedstore[gpu]'", ON_CPU)
    return None


def _say(refused: Sequence[str], kind: type[JpegDecoder]) -> None:
    """What of the files stays with the CPU, and why."""
    if kind.samplings == ALL_SAMPLINGS:
        return
    why = "; ".join(refused) or "pip install 'nvidia-nvimgcodec-cu13[nvjpeg]' to have all on the GPU"
    level = logging.WARNING if refused else logging.INFO
    LOG.log(level, "%s unless they are 4:4:4 or grey, which %s decodes on the GPU: %s.", ON_CPU, kind.package, why)


def _agreement(decoder: JpegDecoder, model: TorchModel, transform: ImageTransform, files: Sequence[Jpeg]) -> float:
    """The least cosine between vectors of files as the decoder reads them, and of what Pillow makes of the same files.

    Raises
    ------
    RuntimeError
        The decoder refuses one of them.
    """
    jpegs = DeviceJpegs(decoder, model, transform, MOST_PIXELS)
    jpegs.refuse_any(files)
    theirs = model(np.stack([transform(bytes(file.payload), max_pixels=MOST_PIXELS) for file in files]))
    return agreement(jpegs.start(files)(), theirs)


def _files(images: Pixels, transform: ImageTransform, samplings: Sequence[int]) -> Iterator[Jpeg]:
    """JPEG files as cameras write them, larger than the images and not square, of each sampling; the last one is grey.

    Each is of the best quality with which it may be left to a device; where there is none, it is left out.
    """
    from PIL import Image

    for i, pixels in enumerate(images):
        height, width = pixels.shape[:2]
        image = Image.fromarray(pixels).resize((2 * width, height * 3 // 2), Image.Resampling.BICUBIC)
        image = image.convert("L") if i == len(images) - 1 else image
        for quality in QUALITIES:
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=quality, subsampling=samplings[-1 - i % len(samplings)])
            file = taken(buffer.getvalue(), transform, MOST_PIXELS, samplings=samplings)
            if file is not None:
                yield file
                break
