"""`LibraryModel`: what encoders share whose model sentence-transformers prepares for and runs."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from embedstore.encoders.base import EncoderRequest
from embedstore.encoders.payloads.images import decode_rgb
from embedstore.encoders.payloads.texts import decode_text
from embedstore.encoders.runtimes.choose import batch_size_of
from embedstore.encoders.runtimes.pytorch import TorchRuntime
from embedstore.spec import EncoderSpec


class LibraryModel:
    """A loaded model, put on its device when it is first needed; images and texts are decoded for it.

    Parameters
    ----------
    spec : EncoderSpec
    model
        A torch module.
    request : EncoderRequest
    """

    license: str | None = None

    def __init__(self, spec: EncoderSpec, model: Any, request: EncoderRequest) -> None:
        self.spec = spec
        self.batch_size = batch_size_of(request)
        self.truncated = 0
        self._model = model
        self._request = request

    @cached_property
    def runtime(self) -> TorchRuntime:
        return TorchRuntime(self._request.devices[0], self._request.precision)

    @cached_property
    def model(self) -> Any:
        with self.runtime.device_errors():
            return self._model.to(self.runtime.device)

    def prepare(self, payload: bytes) -> Any:
        if self.spec.modality == "image":
            return decode_rgb(payload, max_pixels=self._request.max_pixels)
        return decode_text(payload)
