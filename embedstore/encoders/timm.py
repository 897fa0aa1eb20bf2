"""`timm:MODEL` and `timm:MODEL/WEIGHTS`: pooled image features of any timm model.

Weights come from the hub, or from a local ``.safetensors`` or ``.pth`` file.
"""

from __future__ import annotations

import math
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedstore.encoders.base import EncoderRequest, not_loadable, refuse_modality
from embedstore.encoders.image_encoder import ImageEncoder
from embedstore.encoders.images import ImageTransform
from embedstore.encoders.runtime import load_weights, state_digest
from embedstore.errors import EncoderError, UsageError
from embedstore.spec import EncoderSpec

if TYPE_CHECKING:
    import torch


def timm_transform(model: torch.nn.Module) -> ImageTransform:
    """The evaluation transform that a timm model's configuration asks for."""
    from timm.data import resolve_data_config

    config: dict[str, Any] = resolve_data_config(model=model)
    height, width = config["input_size"][1:]
    squash = config["crop_mode"] == "squash"
    return ImageTransform(
        size=(height, width),
        resize="squash" if squash else "shortest",
        resize_to=math.floor(min(height, width) / config["crop_pct"]),
        interpolation=config["interpolation"],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )


def load(request: EncoderRequest) -> ImageEncoder:
    """timm:MODEL (hub) or timm:MODEL/PATH (local weights): images."""
    refuse_modality(request, ["image"])
    name, _, weights = request.argument.partition("/")
    if not name:
        raise UsageError("timm: needs a model name, such as timm:resnet50.a1_in1k.")
    model = _create(request, name, Path(weights) if weights else None)
    transform = timm_transform(model)
    spec = EncoderSpec(
        name=request.name,
        family="timm",
        model=name.split(".")[0],
        weights=state_digest(model),
        modality="image",
        dim=int(model.num_features if not hasattr(model, "head_hidden_size") else model.head_hidden_size),  # type: ignore[arg-type]
        preprocessing=transform.to_dict(),
        pooling=str(getattr(model, "global_pool", "default")) if isinstance(model.global_pool, str) else "default",
    )
    return ImageEncoder(spec, transform, lambda: model, request, library="timm")


def _create(request: EncoderRequest, name: str, weights: Path | None) -> torch.nn.Module:
    import timm

    if not timm.is_model(name):
        close = ", ".join(get_close_matches(name, timm.list_models(), 5)) or "see timm.list_models()"
        raise UsageError(f"timm has no model {name!r}. Near: {close}.")
    if weights is None:
        try:
            model: torch.nn.Module = timm.create_model(name, pretrained=True, num_classes=0)
        except Exception as error:
            raise not_loadable(request, error) from error
        return model
    model = timm.create_model(name, pretrained=False, num_classes=0)
    missing = model.load_state_dict(load_weights(weights), strict=False).missing_keys
    if missing:
        raise EncoderError(f"Weights {weights} do not fit timm model {name!r}: they lack {missing[0]!r}.")
    return model
