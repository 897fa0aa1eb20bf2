"""Decoders of JPEG files on a GPU, of which the first that is installed and gives Pillow's vectors is used.

Pillow's decoder, libjpeg, interpolates between chroma samples where a file has fewer of them than pixels. nvJPEG does so on
request, which nvImageCodec makes and torchcodec does not: torchcodec is given files without such subsampling alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Union

import numpy as np

from embedstore._core.device_errors import device_failure, without_frames
from embedstore.encoders.payloads.jpegs import ALL_SAMPLINGS, UNSAMPLED
from embedstore.registry import version

if TYPE_CHECKING:
    import torch

LEAST_TORCHCODEC = (0, 17)
"""nvJPEG's hardware engine writes where it is told to without waiting for what is queued on its stream, which may still read
there. torchcodec waits first since then (meta-pytorch/torchcodec#1634)."""

Files = Sequence["bytes | memoryview"]
Decoded = Union["torch.Tensor", RuntimeError]


class JpegDecoder(Protocol):
    """Decodes on the device of torch that it was made for; used from one thread at a time.

    Parameters
    ----------
    device : torch.device
    """

    module: ClassVar[str]
    package: ClassVar[str]
    """What it is installed as; its version is kept as provenance."""
    samplings: ClassVar[tuple[int, ...]]
    """Of chroma: those of which it gives Pillow's pixels."""

    def __init__(self, device: torch.device) -> None: ...

    def decode(self, files: Files) -> list[Decoded]:
        """Pixels (3, height, width) uint8 of each file, on the current stream; an error of one that the decoder refuses.

        Raises
        ------
        RuntimeError
            The device fails, not a file: `device_failure` tells.
        """


class NvImageCodec(JpegDecoder):
    """nvJPEG through nvImageCodec, chroma interpolated; a file that fails costs itself."""

    module = "nvidia.nvimgcodec"
    package = "nvidia-nvimgcodec-cu13"
    samplings = ALL_SAMPLINGS

    def __init__(self, device: torch.device) -> None:
        import torch
        from nvidia import nvimgcodec  # type: ignore[import-not-found,import-untyped,unused-ignore]

        if device.type == "cuda":
            number = torch.cuda.current_device() if device.index is None else device.index
        else:
            number = nvimgcodec.NVIMGCODEC_DEVICE_CPU_ONLY
        self._device = device
        self._codec: Any = nvimgcodec
        self._params = nvimgcodec.DecodeParams(apply_exif_orientation=False, color_spec=nvimgcodec.ColorSpec.SRGB)
        self._decoder = nvimgcodec.Decoder(device_id=number, options=":fancy_upsampling=1")

    def decode(self, files: Files) -> list[Decoded]:
        import torch

        out: list[Decoded] = [RuntimeError("nvImageCodec has no decoder for it") for _ in files]
        opened = {i: stream for i, stream in enumerate(map(self._opened, files)) if stream is not None}
        if not opened:
            return out
        number = 0
        if self._device.type == "cuda":
            stream = torch.cuda.current_stream(self._device)
            stream.synchronize()  # the engine does not wait for it: see LEAST_TORCHCODEC
            number = stream.cuda_stream
        images = self._decoder.decode(list(opened.values()), params=self._params, cuda_stream=number)
        for i, image in zip(opened, images, strict=True):
            if image is not None:
                out[i] = torch.from_dlpack(image).permute(2, 0, 1)  # type: ignore[attr-defined]
        return out

    def _opened(self, file: bytes | memoryview) -> Any:
        """The file as nvImageCodec reads it, not copied; None if it has no header that it knows."""
        try:
            return self._codec.CodeStream(np.frombuffer(file, np.uint8))
        except RuntimeError:
            return None


class TorchCodec(JpegDecoder):
    """nvJPEG through torchcodec (on a CPU: libjpeg), for files without chroma subsampling."""

    module = "torchcodec"
    package = "torchcodec"
    samplings = UNSAMPLED

    def __init__(self, device: torch.device) -> None:
        found = re.match(r"(\d+)\.(\d+)", version(self.package))
        if found is not None and (int(found[1]), int(found[2])) < LEAST_TORCHCODEC:
            raise RuntimeError(f"{version(self.package)} may write into memory that the network reads; take 0.17 or newer")
        self._device = device

    def decode(self, files: Files) -> list[Decoded]:
        from torchcodec.decoders import decode_jpeg  # type: ignore[attr-defined,import-not-found,import-untyped,unused-ignore]

        try:
            return list(decode_jpeg([bytes(file) for file in files], mode="RGB", device=self._device))
        except RuntimeError as error:  # one refused file fails them all, and is found by halving
            if device_failure(error) is not None:
                raise
            if len(files) == 1:
                return [without_frames(error)]
        half = len(files) // 2
        return self.decode(files[:half]) + self.decode(files[half:])


DECODERS: tuple[type[JpegDecoder], ...] = (NvImageCodec, TorchCodec)
"""The best one first."""


def installed() -> list[type[JpegDecoder]]:
    """Those of `DECODERS` that can be imported here."""
    return [decoder for decoder in DECODERS if _is_there(decoder.module)]


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # not even the package that it is in
        return False
