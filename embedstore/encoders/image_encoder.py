"""Images through a network: what the timm and open_clip encoders share."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from embedstore.encoders.base import EncoderRequest, Outside, Vectors
from embedstore.encoders.payloads.images import ImageTransform, Pixels
from embedstore.encoders.payloads.jpegs import Jpeg
from embedstore.encoders.payloads.preparation import Preparation
from embedstore.encoders.runtimes.base import Array, Model, Network, Pending
from embedstore.encoders.runtimes.choose import batch_size_of, gpu_of, on_gpu, open_model
from embedstore.encoders.runtimes.streams import page_locked
from embedstore.errors import EmbedstoreError, EncoderError, one_line
from embedstore.registry import version
from embedstore.spec import EncoderSpec

if TYPE_CHECKING:
    import torch

    from embedstore.encoders.payloads.device_jpegs import DeviceJpegs, JpegsInTurn
    from embedstore.encoders.runtimes.pytorch import TorchModel
    from embedstore.encoders.runtimes.several import SeveralModels

EXAMPLES = 8


class ImageEncoder:
    """Images through a network.

    Parameters
    ----------
    spec : EncoderSpec
    transform : ImageTransform
    load : callable
        Makes the torch model; called at most once, when first needed.
    request : EncoderRequest
    library : str
        The package that the model comes from; its version is kept as provenance.
    forward : callable, optional
        (model, images (n, 3, h, w)) → (n, dim); default: calls the model.
    """

    truncated = 0
    license: str | None = None

    def __init__(
        self,
        spec: EncoderSpec,
        transform: ImageTransform,
        load: Callable[[], torch.nn.Module],
        request: EncoderRequest,
        *,
        library: str,
        forward: Callable[[Any, torch.Tensor], torch.Tensor] = lambda model, images: model(images),
    ) -> None:
        self.spec = spec
        self.transform = transform
        self.batch_size = batch_size_of(request)
        self.lanes = len(request.devices)
        self._load = load
        self._request = request
        self._library = library
        self._forward = forward
        self._opening = threading.Lock()

    @property
    def network(self) -> Network:
        images = (-1, *self.transform.size, 4)
        return Network(self.spec.name, self.spec.fingerprint, self._module, (images,), self._examples)

    @cached_property
    def model(self) -> Model:
        return open_model(self.network, self._request)

    @cached_property
    def _on_gpu(self) -> bool:
        return on_gpu(self._request)

    @cached_property
    def _jpegs(self) -> DeviceJpegs | JpegsInTurn | None:
        """Decoding on the GPUs that run the model."""
        if not self._on_gpu:
            return None
        from embedstore.encoders.payloads.device_jpegs import open_jpegs

        try:
            model = cast("TorchModel | SeveralModels", self.model)
        except EmbedstoreError:
            raise
        except Exception as error:  # a worker asks: what it raises would be put down to its payload
            raise EncoderError(f"{self.spec.name} cannot be opened: {one_line(error, 200)}") from error
        return open_jpegs(model, self.transform, pictures(*self.transform.size), self._request.max_pixels)

    @property
    def outside(self) -> Outside | None:
        """Processes decode for a GPU, which is faster than one process; for a network on the CPU threads are as good."""
        if not self._on_gpu:
            return None
        factory, shape = f"{Preparation.__module__}:preparation", (*self.transform.size, 4)
        pin = partial(page_locked, device=gpu_of(self._request))
        return Outside(factory, lambda: self._preparing().arguments(), shape, _kept, pin)

    @cached_property
    def _preparation(self) -> Preparation:
        return Preparation(self.transform, self._request.max_pixels, () if self._jpegs is None else self._jpegs.samplings)

    def _preparing(self) -> Preparation:
        with self._opening:  # by whichever thread comes first
            return self._preparation

    def prepare(self, payload: bytes) -> Pixels | Jpeg:
        return self._preparing()(payload)

    def stacked(self, batch: Sequence[Pixels | Jpeg]) -> Array | list[Pixels] | torch.Tensor:
        """What `model` takes: (n, height, width, 4) uint8, which a GPU stacks by itself; (…, 3) there if it decodes files."""
        if self._jpegs is not None:
            return self._jpegs.stacked(batch)
        images = cast("list[Pixels]", list(batch))
        return images if self._on_gpu else np.stack(images)

    def start(self, batch: Sequence[Pixels | Jpeg]) -> Pending:
        jpegs = self._jpegs
        return self.model.start(self.stacked(batch)) if jpegs is None else jpegs.start(batch)

    def encode(self, batch: Sequence[Pixels | Jpeg]) -> Vectors:
        return self.start(batch)()

    def provenance(self) -> Mapping[str, str]:
        decoder = {} if self._jpegs is None else self._jpegs.provenance()
        versions = {name: version(name) for name in ("pillow", self._library)}
        return {**self.model.provenance(), **decoder, **versions}

    def _examples(self) -> list[tuple[Array, ...]]:
        images = np.pad(pictures(*self.transform.size), ((0, 0), (0, 0), (0, 0), (0, 1)))
        return [(images,), (images[:1],)]

    def _module(self) -> torch.nn.Module:
        from embedstore.encoders.runtimes.wrapped import Images

        return Images(self._load(), self.transform.mean, self.transform.std, self._forward)


def _kept(payload: bytes | memoryview, said: Sequence[int]) -> Jpeg:
    """A file that is left to the device, as `prepare` gives it."""
    return Jpeg(payload, *said)


def pictures(height: int, width: int) -> Array:
    """Images (n, height, width, 3) uint8 with gradients, edges and noise, always the same."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    waves = rng.uniform(-12, 12, (EXAMPLES, 3, 2))
    smooth = np.sin(waves[..., 0, None, None] * x + waves[..., 1, None, None] * y) * 100 + 128
    blocks = rng.integers(0, 2, (EXAMPLES, 3, 8, 8)).repeat(-(-height // 8), 2).repeat(-(-width // 8), 3)[..., :height, :width]
    share = np.linspace(0, 1, EXAMPLES)[:, None, None, None]
    mixed = (1 - share) * smooth + share * 200 * blocks + rng.normal(0, 12, smooth.shape)
    return np.ascontiguousarray(np.clip(mixed, 0, 255).astype(np.uint8).transpose(0, 2, 3, 1))
