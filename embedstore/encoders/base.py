"""What an encoder is, and how one is asked for by name.

Knows nothing of stores and pipelines: payloads in, vectors out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from embedstore.errors import EncoderError, UsageError, one_line
from embedstore.registry import Registry
from embedstore.spec import MODALITIES, EncoderSpec

Vectors = npt.NDArray[np.float32]

ENCODERS = Registry("embedstore.encoders", "encoder")

ALIASES = {
    "clip": "openclip:ViT-B-32/laion2b_s34b_b79k",
    "siglip2": "openclip:ViT-B-16-SigLIP2/webli",
    "dinov2": "timm:vit_small_patch14_dinov2.lvd142m",
    "resnet50": "timm:resnet50.a1_in1k",
    "bert": "st:google-bert/bert-base-uncased",
}
"""Short names for encoders whose weights come from a hub."""


WINDOWS = "+windows"
RUNTIMES = ("auto", "torch", "compile", "openvino")


@dataclass(frozen=True)
class EncoderRequest:
    """What a factory of the entry-point group ``embedstore.encoders`` is called with.

    Parameters
    ----------
    name : str
        As typed.
    argument : str
        What follows the first colon.
    modality : str
    device : str
        ``"auto"`` or a torch device.
    precision : str
        ``"auto"``, ``"float32"`` or ``"bfloat16"``: the arithmetic, not the stored dtype. Auto is bfloat16 on CUDA; on a CPU it
        is float32, or bfloat16 where the processor has it and OpenVINO's vectors still are those of float32.
    runtime : str
        One of `RUNTIMES`. Auto is OpenVINO on a CPU where it is installed and gives torch's vectors. Compile is torch with
        ``torch.compile``, which takes up to a minute before the first batch.
    max_pixels : int
        Larger images are failures.
    windows : bool
        Long texts are encoded in overlapping windows whose vectors are averaged; asked for by a name that ends in
        ``+windows``.
    """

    name: str
    argument: str
    modality: str
    device: str = "auto"
    precision: str = "auto"
    runtime: str = "auto"
    max_pixels: int = 178_956_970
    windows: bool = False


class Encoder(Protocol):
    """Turns payloads of one modality into vectors.

    An encoder of texts may also have ``cost(prepared) -> int``: texts of like cost are encoded together (default: `len`).
    One that can begin a batch before the last one is done may have ``start(batch)``, which begins it and returns a function
    that waits for what `encode` would return.
    `prepare` is called from many threads at once, `encode` from one. Models are loaded when `encode` first needs them,
    so that `spec` stays cheap where it can.
    """

    @property
    def spec(self) -> EncoderSpec:
        """What makes these vectors; fixed for the life of the encoder."""

    @property
    def batch_size(self) -> int:
        """A good number of payloads for one `encode`; the pipeline halves it when memory runs out."""

    @property
    def truncated(self) -> int:
        """Texts cut to the maximum length so far."""

    def prepare(self, payload: bytes) -> Any:
        """Decode one payload (a file's bytes; a text in UTF-8) into what `encode` takes.

        Raises
        ------
        PayloadError
        """

    def encode(self, batch: Sequence[Any]) -> Vectors:
        """Vectors (n, dim) float32 of n prepared payloads, in order.

        Raises
        ------
        EncoderOutOfMemoryError
            A smaller batch may fit.
        """

    def provenance(self) -> Mapping[str, str]:
        """Library versions and device; for people, never compared."""


def load_encoder(
    name: str,
    modality: str,
    *,
    device: str = "auto",
    precision: str = "auto",
    runtime: str = "auto",
    max_pixels: int | None = None,
) -> Encoder:
    """The encoder called `name` for `modality`.

    Parameters
    ----------
    name : str
        ``FAMILY`` or ``FAMILY:ARGUMENT``, or one of `ALIASES`.
    modality : str
        One of `embedstore.spec.MODALITIES`.

    Raises
    ------
    UsageError
        Nobody knows the name, or the encoder has no such modality.
    MissingDependencyError
        It needs an extra.
    EncoderError
        Its weights cannot be had.
    """
    if modality not in MODALITIES:
        raise UsageError(f"modality must be one of {list(MODALITIES)}. Got {modality!r} instead.")
    plain = name.removesuffix(WINDOWS)
    family, _, argument = ALIASES.get(plain, plain).partition(":")
    if family not in ENCODERS.names():
        raise UsageError(
            f"No encoder is called {name!r}. Known: {', '.join([*ENCODERS.names(), *ALIASES])}. "
            "'embedstore encoders' describes them."
        )
    request = EncoderRequest(name, argument, modality, device, precision, runtime, windows=plain != name)
    if max_pixels is not None:
        request = replace(request, max_pixels=max_pixels)
    encoder: Encoder = ENCODERS.get(family)(request)
    if request.windows and "windows" not in encoder.spec.preprocessing:
        raise UsageError(f"{plain} does not take {WINDOWS}: only text models of sentence-transformers do.")
    return encoder


def refuse_modality(request: EncoderRequest, known: Sequence[str]) -> None:
    """Raise `UsageError` unless the request's modality is one of `known`."""
    if request.modality not in known:
        raise UsageError(f"Encoder {request.name!r} takes {' and '.join(known)}, not {request.modality}.")


def not_loadable(request: EncoderRequest, error: BaseException) -> EncoderError:
    """One line about weights that could not be had, with the way out."""
    return EncoderError(
        f"Encoder {request.name!r} could not be loaded: {one_line(error, 200)} "
        "If no hub can be reached, name local weights or use effnet-lite0 (images) and minilm (texts)."
    )


def describe(family: str) -> str:
    """One line about an encoder family: the first line of its factory's documentation."""
    return (ENCODERS.get(family).__doc__ or "").strip().split("\n")[0]
