"""What an encoder is, and what it is asked for.

Knows nothing of stores and pipelines: payloads in, vectors out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from embedstore._core.device_errors import device_failure
from embedstore._core.pieces import Pieces
from embedstore._core.slabs import Pin
from embedstore.encoders.names import EncoderName
from embedstore.errors import EmbedstoreError, EncoderError, EncoderOutOfMemoryError, PayloadError, UsageError, one_line
from embedstore.spec import MESSAGE, EncoderSpec

Vectors = npt.NDArray[np.float32]

LOCAL = {
    "openclip": "openclip:local-dir:FOLDER or openclip:MODEL/FILE",
    "timm": "timm:local-dir:FOLDER or timm:MODEL/FILE",
    "st": "st:./FOLDER",
}
"""How weights on this machine are named."""

RUNTIMES = ("auto", "torch", "compile", "openvino")
PRECISIONS = ("auto", "float32", "float16", "bfloat16")


@dataclass(frozen=True)
class EncoderRequest:
    """What a factory of the entry-point group ``embedstore.encoders`` is called with.

    Parameters
    ----------
    name : str
        As typed.
    argument : str
        What follows the first colon, without ``@POOLING``, ``@DIMENSIONS`` and ``+windows``.
    modality : str
    device : str
        ``"auto"`` or a torch device; several, such as ``"cuda:0,cuda:1"``, take turns.
    precision : str
        One of `PRECISIONS`: the arithmetic, not the stored dtype. Auto is float16 on CUDA where the network's vectors of its
        examples stay those of float32 (cosine of 0.9999 or more), else float32; on a CPU it is float32, or bfloat16 where the
        processor has it and OpenVINO's vectors still are those of float32.
    runtime : str
        One of `RUNTIMES`. Auto is OpenVINO on a CPU where it is installed and gives torch's vectors. Compile is torch with
        ``torch.compile``, which takes up to a minute before the first batch.
    max_pixels : int
        Larger images are failures.
    pieces : bool
        The vectors of all frames or windows are kept, beside their mean; asked for by a name that ends in ``+pieces``.
    windows : bool
        Long texts are encoded in overlapping windows whose vectors are averaged; asked for by a name that ends in
        ``+windows``.
    pooling : str, optional
        One of `embedstore.encoders.names.POOLINGS`: how token features become a vector; asked for by ``@token`` and the like.
    prompt, query_prompt : str, optional
        What is put before items and before queries instead of the model's own: the name of one of its prompts (one word), or
        a text; the empty text for none.
    recorded : EncoderSpec, optional
        The encoder as a store knows it: its prompts and its length are used again, whatever the model says today.
    force : bool
        Cut vectors of a model that does not declare that they may be.
    parts : tuple of str
        The columns that messages are made of.
    """

    name: str
    argument: str
    modality: str
    device: str = "auto"
    precision: str = "auto"
    runtime: str = "auto"
    max_pixels: int = 178_956_970
    windows: bool = False
    pieces: bool = False
    pooling: str | None = None
    prompt: str | None = None
    query_prompt: str | None = None
    recorded: EncoderSpec | None = None
    force: bool = False
    parts: tuple[str, ...] = ()

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices that `device` names.

        Raises
        ------
        UsageError
        """
        named = tuple(self.device.split(","))
        if len(named) > 1 and ("auto" in named or "" in named or len(set(named)) < len(named)):
            raise UsageError(f"--device {self.device!r} should name each device once, as in cuda:0,cuda:1.")
        return named


@dataclass(frozen=True)
class Outside:
    """How other processes do what `Encoder.prepare` does, outside of Python's lock.

    Parameters
    ----------
    factory : str
        ``"module:name"`` of a callable that makes, of `arguments`, a function from a payload's bytes to what `prepare` gives:
        an array of `shape`, or something else that JSON can say.
    arguments : callable
        Gives the keyword arguments, which JSON can say; asked for before the first payload is prepared.
    shape : tuple of int
        Of the arrays, uint8.
    kept : callable, optional
        What `prepare` would have given, of the payload (bytes, or a view of shared memory) and of what was said instead.
    pin : callable, optional
        See `embedstore._core.slabs.Pin`: makes the memory of arrays known to the device of the model.
    """

    factory: str
    arguments: Callable[[], Mapping[str, Any]]
    shape: tuple[int, ...]
    kept: Callable[[Any, Any], Any] = lambda payload, said: said
    pin: Pin | None = None


class Encoder(Protocol):
    """Turns payloads of one modality into vectors.

    An encoder of texts may also have ``cost(prepared) -> int``: texts of like cost are encoded together (default: `len`).
    One that prepares many payloads in less time than one by one may have ``prepare_batch(payloads)``: a list of what `prepare`
    gives for each, with a `PayloadError` in the place of a payload that it costs; `prepare_all` calls either. One whose
    payloads other processes can prepare has ``outside``, an `Outside`, or None where they would not be faster. One that can
    begin a batch before the last one is done may have ``start(batch)``, which begins it and returns a function that waits for
    what `encode` would return; until it has returned, nothing in the batch is to change. ``lanes`` is how many batches may
    then be under way besides the one that is begun (default: 1).

    Each of these counts only as far as no subclass overrides `prepare` or `encode` alone. What is set on an instance does not
    show which class set it: the class that sets it declares it too, as in ``outside: Outside | None = None``. One that no class
    declares counts only where `prepare`, or `encode`, is set on the instance as well; whoever replaces that replaces both.

    One that puts something else before a query than before an item has ``queries``, the encoder of queries; one that knows
    under which licence its weights are has ``license``, a string; one whose vectors may be cut has ``matryoshka``, where its
    model says so, or the empty text. One that makes several vectors of a payload has ``pieces``, a word for one of them
    such as ``"frame"``, and ``encode_pieces(batch)``, which returns what `encode` does and the `Pieces` of the batch.
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


def pieces_of(encoder: Encoder) -> str | None:
    """What the encoder makes several of, such as ``"frame"``; None where a payload has one vector."""
    return getattr(encoder, "pieces", None)


def encoded(encoder: Encoder, batch: Sequence[Any]) -> tuple[Vectors, Pieces | None]:
    """What `encoder` makes of n prepared payloads: vectors (n, dim), and their pieces where it has such."""
    if pieces_of(encoder) is None:
        return encoder.encode(batch), None
    vectors, pieces = encoder.encode_pieces(batch)  # type: ignore[attr-defined]
    return vectors, pieces


def stands_for(encoder: Encoder, faster: str, plain: str) -> bool:
    """Whether the encoder has `faster`, and nothing overrides `plain` alone.

    The classes tell which of the two was defined last. What is set on an instance does not tell which class set it, so it
    counts as its class's own.
    """
    own = getattr(encoder, "__dict__", {})
    if plain in own:
        return faster in own
    places = [vars(kind) for kind in type(encoder).__mro__]
    first, other = (next((i for i, names in enumerate(places) if name in names), len(places)) for name in (faster, plain))
    return first < len(places) and first <= other


def outside_of(encoder: Encoder) -> Outside | None:
    """How other processes prepare for the encoder, if they can and it asks for that."""
    if not stands_for(encoder, "outside", "prepare"):
        return None
    given: Outside | None = encoder.outside  # type: ignore[attr-defined]
    return given


def prepare_all(encoder: Encoder, payloads: Sequence[bytes]) -> list[Any]:
    """What `encoder` makes of each payload, or the `PayloadError` that it costs; in one go where the encoder can."""
    if stands_for(encoder, "prepare_batch", "prepare"):
        return list(encoder.prepare_batch(payloads))  # type: ignore[attr-defined]
    return [prepare_one(encoder, payload) for payload in payloads]


def prepare_one(encoder: Encoder, payload: bytes) -> Any:
    """The prepared payload, or the `PayloadError` that it costs.

    Raises
    ------
    EmbedstoreError
        It is the encoder's, and not this payload's.
    """
    try:
        return encoder.prepare(payload)
    except PayloadError as error:
        return error
    except EmbedstoreError:
        raise
    except Exception as error:  # an encoder's own, or one of a library: it costs this payload alone
        failure = device_failure(error)
        if failure is not None and not isinstance(failure, EncoderOutOfMemoryError):
            raise failure from error
        return PayloadError("decode", one_line(error))


def refuse_modality(request: EncoderRequest, known: Sequence[str]) -> None:
    """Raise `UsageError` unless the request's modality is one of `known`."""
    if request.modality not in known:
        asked = "several columns at once (--message)" if request.modality == MESSAGE else request.modality
        raise UsageError(f"Encoder {request.name!r} takes {' and '.join(known)}, not {asked}.")


def not_loadable(request: EncoderRequest, error: BaseException, absent: str = "") -> EncoderError:
    """One line about weights that could not be had, with the way out; `absent` says why no hub was asked."""
    family = EncoderName.parse(request.name).family
    if absent:
        return EncoderError(
            f"Encoder {request.name!r} is not in the hub's cache, and {absent}. Name local weights "
            f"({LOCAL.get(family, 'a path')}), "
            "fill the cache on a machine that reaches the hub (HF_HOME says where it is), or use effnet-lite0 (images) and "
            "minilm (texts)."
        )
    return EncoderError(
        f"Encoder {request.name!r} could not be loaded: {one_line(error, 200)} "
        "If no hub can be reached, name local weights or use effnet-lite0 (images) and minilm (texts)."
    )
