"""`naflex:MODEL`: SigLIP 2 with images in their own aspect ratio, and its texts; from the hub or a local folder.

An image is resized to as many patches as the model takes, not to a square. Texts all have one length, padding included, as in
training.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedstore.encoders.base import EncoderRequest, refuse_modality
from embedstore.encoders.cards import Card, read_config
from embedstore.encoders.missing_weights import none_missing
from embedstore.encoders.model_folders import folder_digest, loaded, model_folder
from embedstore.encoders.payloads.images import decode_rgb
from embedstore.encoders.piecewise import PiecewiseEncoder, Prepared, lone, network
from embedstore.encoders.runtimes.base import Array
from embedstore.encoders.text_encoder import TextEncoder
from embedstore.errors import EncoderError
from embedstore.registry import require
from embedstore.spec import EncoderSpec

if TYPE_CHECKING:
    import torch

IMAGES = 32
"""A good number for one `encode`."""


def load(request: EncoderRequest) -> PiecewiseEncoder | TextEncoder:
    """naflex:ORG/NAME (hub) or naflex:FOLDER: SigLIP 2 of any aspect ratio, images and texts (extra st)."""
    refuse_modality(request, ["image", "text"])
    folder = model_folder(request, "naflex:google/siglip2-base-patch16-naflex or naflex:./my-model")
    config = read_config(folder / "config.json")
    if config.get("model_type") != "siglip2":
        kind = config.get("model_type")
        raise EncoderError(f"{folder} holds a model of kind {kind!r}, not 'siglip2' (naflex). Try openclip: or st:.")
    encoder = _images(folder, request) if request.modality == "image" else _words(folder, request)
    encoder.license = Card.read(folder).license
    return encoder


def _images(folder: Path, request: EncoderRequest) -> PiecewiseEncoder:
    image = require("PIL.Image")
    processor: Any = loaded(request, "Siglip2ImageProcessor", folder)
    given = {name: getattr(processor, name) for name in ("max_num_patches", "patch_size", "image_mean", "image_std")}
    made = {**given, "resample": int(processor.resample), "decoding": "rgb"}

    def features(picture: Any) -> tuple[Array, ...]:
        found = processor(images=[picture], return_tensors="np")
        return tuple(found[name][0] for name in ("pixel_values", "pixel_attention_mask", "spatial_shapes"))

    def prepared(payload: bytes) -> Prepared:
        return lone(*features(decode_rgb(payload, max_pixels=request.max_pixels)))

    def examples() -> list[tuple[Array, ...]]:
        grey = np.arange(3 * 240 * 320, dtype=np.uint32).reshape(240, 320, 3).astype(np.uint8)
        return [features(image.fromarray(pixels)) for pixels in (grey, grey[:, :60])]

    spec = _spec(folder, request, made, None)
    return PiecewiseEncoder(spec, prepared, examples, lambda: _tower(folder, request), request, batch_size=IMAGES)


def _words(folder: Path, request: EncoderRequest) -> TextEncoder:
    tokenizer: Any = loaded(request, "AutoTokenizer", folder)  # its class makes texts lower case, which tokenizer.json may not
    length, padding = _length(folder), int(tokenizer.pad_token_id)
    left = tokenizer.padding_side == "left"
    spec = _spec(folder, request, {"tokenizer": type(tokenizer).__name__, "padding": f"{tokenizer.padding_side}, all"}, length)

    def module(left_out: int) -> torch.nn.Module:
        return _tower(folder, request, length, padding, left)

    return TextEncoder(spec, folder, module, request, tokenizer=lambda: tokenizer.backend_tokenizer)


def _length(folder: Path) -> int:
    """Tokens of a text."""
    return int(read_config(folder / "config.json").get("text_config", {}).get("max_position_embeddings", 64))


def _spec(folder: Path, request: EncoderRequest, made: Mapping[str, Any], longest: int | None) -> EncoderSpec:
    digest, config = folder_digest(folder), read_config(folder / "config.json")
    sides = {"image": "vision_config", "text": "text_config"}
    side = config.get(sides[request.modality], {})
    return EncoderSpec(
        name=request.name,
        family="naflex",
        model="siglip2",
        weights=digest,
        modality=request.modality,
        dim=int(side.get("projection_size") or side.get("hidden_size", 768)),
        preprocessing=made,
        pooling="model",
        max_length=longest,
        alignment=f"naflex:{digest.removeprefix('sha256:')[:16]}",
    )


def _tower(folder: Path, request: EncoderRequest, *words: int) -> torch.nn.Module:
    """One side of the model; the other is let go of. `words` are length, padding and side of it, of texts."""
    with none_missing(folder):
        model: Any = loaded(request, "Siglip2Model", folder)
    if words:
        del model.vision_model
        return network("NaflexWords", model, *words)
    del model.text_model
    return network("NaflexImages", model)
