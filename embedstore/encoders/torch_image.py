"""Images through a torch model: what the timm and open_clip encoders share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from embedstore.encoders.base import EncoderRequest, Vectors
from embedstore.encoders.images import ImageTransform, Pixels
from embedstore.encoders.runtime import TorchRuntime, runtime_of
from embedstore.registry import require
from embedstore.spec import EncoderSpec

if TYPE_CHECKING:
    import torch

Forward = Callable[[Any, "torch.Tensor"], "torch.Tensor"]


class TorchImageEncoder:
    """Images through a torch model.

    Parameters
    ----------
    spec : EncoderSpec
    transform : ImageTransform
    load : callable
        Makes the model; called once, when first needed.
    request : EncoderRequest
    library : str
        The module that the model comes from; its version is kept as provenance.
    forward : callable, optional
        (model, images (n, 3, h, w)) → (n, dim); default: calls the model.
    """

    truncated = 0

    def __init__(
        self,
        spec: EncoderSpec,
        transform: ImageTransform,
        load: Callable[[], torch.nn.Module],
        request: EncoderRequest,
        *,
        library: str,
        forward: Forward = lambda model, images: model(images),
    ) -> None:
        self.spec = spec
        self.transform = transform
        self._load = load
        self._request = request
        self._library = library
        self._forward = forward

    @cached_property
    def runtime(self) -> TorchRuntime:
        return runtime_of(self._request)

    @cached_property
    def model(self) -> torch.nn.Module:
        return self.runtime.place(self._load())

    @property
    def batch_size(self) -> int:
        return self.runtime.batch_size

    def prepare(self, payload: bytes) -> Pixels:
        return self.transform(payload, max_pixels=self._request.max_pixels)

    def tensor(self, batch: Sequence[Pixels]) -> torch.Tensor:
        """What `model` takes: (n, 3, h, w) float32 on the device."""
        return self.runtime.pixels(list(batch), self.transform.mean, self.transform.std)

    def encode(self, batch: Sequence[Pixels]) -> Vectors:
        return self.runtime.run(lambda: self._forward(self.model, self.tensor(batch)))

    def provenance(self) -> Mapping[str, str]:
        return {**self.runtime.provenance(), self._library: str(require(self._library).__version__)}
