"""`load_encoder`: an encoder by its name, for a user or for a store that records it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from embedstore.encoders.base import Encoder, EncoderRequest, pieces_of
from embedstore.encoders.cut import shortened
from embedstore.encoders.names import ALIASES, PIECES, WINDOWS, EncoderName
from embedstore.encoders.prompts import named_prompt
from embedstore.encoders.trust import absolute_name, refuse_foreign
from embedstore.errors import UsageError
from embedstore.registry import ENCODERS
from embedstore.spec import ENCODED, MESSAGE, EncoderSpec


def load_encoder(
    name: str,
    modality: str,
    *,
    device: str = EncoderRequest.device,
    precision: str = EncoderRequest.precision,
    runtime: str = EncoderRequest.runtime,
    max_pixels: int | None = None,
    prompt: str | None = None,
    query_prompt: str | None = None,
    force: bool = False,
    recorded: EncoderSpec | None = None,
    parts: Sequence[str] = (),
) -> Encoder:
    """The encoder called `name` for `modality`.

    Parameters
    ----------
    name : str
        ``FAMILY`` or ``FAMILY:MODEL``, or one of `ALIASES`; then ``@POOLING``, ``@DIMENSIONS``, ``+windows`` and ``+pieces``
        as wanted. The encoder records a path in it as an absolute one.
    modality : str
        One of `embedstore.spec.ENCODED`.
    prompt, query_prompt, force, recorded, parts
        See `EncoderRequest`.

    Raises
    ------
    UsageError
        Nobody knows the name, or the encoder has no such modality, pooling, length or prompt.
    MissingDependencyError
        It needs an extra.
    EncoderError
        Its weights cannot be had.
    """
    if modality not in ENCODED:
        raise UsageError(f"modality must be one of {list(ENCODED)}. Got {modality!r} instead.")
    name = absolute_name(name)
    parsed = EncoderName.parse(name)
    if parsed.family not in ENCODERS:
        raise UsageError(
            f"No encoder is called {name!r}. Known: {', '.join([*ENCODERS, *ALIASES])}. 'embedstore encoders' describes them."
        )
    request = EncoderRequest(
        name,
        parsed.model,
        modality,
        device,
        precision,
        runtime,
        windows=parsed.windows,
        pieces=parsed.pieces,
        pooling=parsed.pooling,
        prompt=prompt,
        query_prompt=query_prompt,
        recorded=recorded,
        force=force,
        parts=tuple(parts) or (recorded.parts if recorded is not None and modality == MESSAGE else ()),
    )
    if max_pixels is not None:
        request = replace(request, max_pixels=max_pixels)
    encoder: Encoder = ENCODERS.get(parsed.family)(request)
    if modality == MESSAGE and encoder.spec.parts != request.parts:
        raise UsageError(f"Encoder {name!r} makes no vector of several columns: only models of sentence-transformers do (st:).")
    _refuse_ignored(request, parsed, encoder)
    return shortened(encoder, request, parsed.dim)


def reload_encoder(
    spec: EncoderSpec,
    modality: str,
    *,
    home: Path,
    allowed: Sequence[str | os.PathLike[str]] = (),
    device: str = "auto",
) -> Encoder:
    """The encoder of vectors that the store at `home` or a head of it holds, for `modality`, with the prompts that it records.

    Raises what `load_encoder` raises, and `EncoderError` where the store names a model of its own that is not `allowed`.
    """
    refuse_foreign(spec.name, home, allowed)
    return load_encoder(spec.name, modality, device=device, recorded=None if spec.declared else spec, force=True)


def _refuse_ignored(request: EncoderRequest, parsed: EncoderName, encoder: Encoder) -> None:
    """What was asked of an encoder that knows nothing of it."""
    if request.windows and "windows" not in encoder.spec.preprocessing:
        raise UsageError(f"{parsed.plain} does not take {WINDOWS}: only text models of sentence-transformers do.")
    if request.pieces and request.recorded is None and pieces_of(encoder) is None:
        raise UsageError(f"{parsed.plain} does not take {PIECES}: frames:, clap: and hf-audio: do.")
    if request.pooling and encoder.spec.pooling != request.pooling:
        raise UsageError(f"{parsed.plain} does not take @{request.pooling}: only image models of timm do.")
    spec = encoder.spec
    for asked, taken, other in (
        (request.prompt, spec.prompt, spec.query_prompt),
        (request.query_prompt, spec.query_prompt, spec.prompt),
    ):
        empty = other and named_prompt(asked or "")  # a model with prompts may have an empty one of that name
        if asked and (not hasattr(encoder, "queries") or not (taken or empty)):
            raise UsageError(
                f"{parsed.plain} takes no prompt for {request.modality}: only models of sentence-transformers do, for texts "
                "and messages. Leave --prompt and --query-prompt out."
            )
