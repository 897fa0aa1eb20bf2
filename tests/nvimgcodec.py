"""A stand-in for nvImageCodec, as much of 0.9 as embedstore calls: it decodes with Pillow, into memory of the CPU."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image as Pillow

Pixels = npt.NDArray[np.uint8]
MADE: list[Decoder] = []
"""Every decoder that was made since `install`."""


class CodeStream:
    def __init__(self, array: Pixels) -> None:
        if array.dtype != np.uint8 or array.ndim != 1:
            raise TypeError("incompatible constructor arguments")
        self.payload = array.tobytes()
        try:
            Pillow.open(io.BytesIO(self.payload))
        except OSError:
            raise RuntimeError("Failed to get image info") from None


class ColorSpec:
    SRGB = "srgb"


class DecodeParams:
    def __init__(self, *, apply_exif_orientation: bool = True, color_spec: str = "srgb") -> None:
        self.apply_exif_orientation, self.color_spec = apply_exif_orientation, color_spec


class Image:
    """(height, width, 3) uint8; like the real one, its DLPack has no `max_version`."""

    def __init__(self, pixels: Pixels) -> None:
        self._pixels = pixels

    def __dlpack__(self, stream: object = None) -> Any:
        return self._pixels.__dlpack__()

    def __dlpack_device__(self) -> Any:
        return self._pixels.__dlpack_device__()


class Decoder:
    def __init__(self, device_id: int = -1, max_num_cpu_threads: int = 0, backends: object = None, options: str = "") -> None:
        self.device_id, self.options = device_id, options
        self.streams: list[int] = []
        MADE.append(self)

    def decode(
        self, srcs: Sequence[CodeStream], *, params: DecodeParams | None = None, cuda_stream: int = 0
    ) -> list[Image | None]:
        assert params is not None
        assert (params.apply_exif_orientation, params.color_spec) == (False, ColorSpec.SRGB)
        self.streams.append(cuda_stream)
        return [self._decoded(source.payload) for source in srcs]

    def _decoded(self, payload: bytes) -> Image | None:
        try:
            image = Pillow.open(io.BytesIO(payload)).convert("RGB")
        except OSError:
            return None
        fancy = ":fancy_upsampling=1" in self.options.split()
        return Image(np.array(image) if fancy else _chroma_repeated(image))


def _chroma_repeated(image: Pillow.Image) -> Pixels:
    """What nvJPEG gives by default of 4:2:0: each chroma sample for four pixels."""
    light, *chroma = image.convert("YCbCr").split()
    half = ((image.width + 1) // 2, (image.height + 1) // 2)
    twice = (2 * half[0], 2 * half[1])
    box, near = Pillow.Resampling.BOX, Pillow.Resampling.NEAREST
    wide = [band.resize(half, box).resize(twice, near).crop((0, 0, *image.size)) for band in chroma]
    return np.array(Pillow.merge("YCbCr", (light, *wide)).convert("RGB"))


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have ``from nvidia import nvimgcodec`` find this module's classes."""
    MADE.clear()
    package, module = ModuleType("nvidia"), ModuleType("nvidia.nvimgcodec")
    package.__path__ = []
    module.__spec__ = ModuleSpec("nvidia.nvimgcodec", None)
    for thing in (CodeStream, ColorSpec, DecodeParams, Decoder, Image):
        setattr(module, thing.__name__, thing)
    module.__dict__["NVIMGCODEC_DEVICE_CPU_ONLY"] = -99999
    package.__dict__["nvimgcodec"] = module
    monkeypatch.setitem(sys.modules, "nvidia", package)
    monkeypatch.setitem(sys.modules, "nvidia.nvimgcodec", module)
