"""`timm:MODEL`, `timm:MODEL/WEIGHTS`, `timm:hf-hub:ORG/NAME`, `timm:local-dir:FOLDER`: pooled image features of any timm model.

Weights come from the hub, from a local ``.safetensors`` or ``.pth`` file, or from a folder as timm saves it. ``@token``,
``@avg`` and ``@token+avg`` say how a transformer's features are pooled instead of by timm's default.
"""

from __future__ import annotations

import json
import math
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedstore._core.hub import hub
from embedstore.encoders.base import EncoderRequest, not_loadable, refuse_modality
from embedstore.encoders.cards import Card, hub_card
from embedstore.encoders.image_encoder import ImageEncoder
from embedstore.encoders.names import SCHEMES
from embedstore.encoders.payloads.images import ImageTransform
from embedstore.encoders.weights import fill, state_digest
from embedstore.errors import UsageError, one_line
from embedstore.spec import EncoderSpec

if TYPE_CHECKING:
    import torch

BOTH = "token+avg"


def timm_transform(model: torch.nn.Module) -> ImageTransform:
    """The evaluation transform that a timm model's configuration asks for."""
    from timm.data import resolve_data_config

    config: dict[str, Any] = resolve_data_config(model=model)
    height, width = config["input_size"][1:]
    resize_to = math.floor(min(height, width) / config["crop_pct"])
    squash = "squash" if resize_to == min(height, width) else "squash-crop"
    return ImageTransform(
        size=(height, width),
        resize={"squash": squash, "border": "border"}.get(config["crop_mode"], "shortest"),
        resize_to=resize_to,
        interpolation=config["interpolation"],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )


def load(request: EncoderRequest) -> ImageEncoder:
    """timm:MODEL (hub) or timm:MODEL/PATH (local weights), timm:hf-hub:ORG/NAME or local-dir:FOLDER; @token, @avg: images."""
    refuse_modality(request, ["image"])
    if not request.argument:
        raise UsageError("timm: needs a model name, such as timm:resnet50.a1_in1k.")
    model, name, license = _create(request)
    transform, weights = timm_transform(model), state_digest(model)
    if request.pooling is not None:
        _set_pooling(model, request)
    dim = int(model.num_features if not hasattr(model, "head_hidden_size") else model.head_hidden_size)  # type: ignore[arg-type]
    default = str(getattr(model, "global_pool", "default")) if isinstance(model.global_pool, str) else "default"
    spec = EncoderSpec(
        name=request.name,
        family="timm",
        model=name,
        weights=weights,
        modality="image",
        dim=2 * dim if request.pooling == BOTH else dim,
        preprocessing=transform.to_dict(),
        pooling=request.pooling or default,
    )
    forward = {"forward": _token_and_average} if request.pooling == BOTH else {}
    encoder = ImageEncoder(spec, transform, lambda: model, request, library="timm", **forward)
    encoder.license = license
    return encoder


def _set_pooling(model: Any, request: EncoderRequest) -> None:
    """Pool as asked; where the network normalises stays what its weights were trained with."""
    pooling = str(request.pooling)
    if "token" in pooling and getattr(model, "cls_token", None) is None:
        raise UsageError(f"Encoder {request.name!r}: the model has no class token. Leave out @{pooling}, or take @avg.")
    try:
        model.reset_classifier(0, "avg" if pooling == BOTH else pooling)
    except Exception as error:  # assertions of many models
        raise UsageError(
            f"Encoder {request.name!r}: the model cannot be pooled by {pooling!r} ({one_line(error, 100)})."
        ) from error


def _token_and_average(model: Any, images: torch.Tensor) -> torch.Tensor:
    """The class token's features (n, d) and the mean of the patches' side by side."""
    import torch

    features, parts = model.forward_features(images), []
    for pooling in BOTH.split("+"):
        model.global_pool = pooling
        parts.append(model.forward_head(features, pre_logits=True))
    return torch.cat(parts, dim=1)


def _create(request: EncoderRequest) -> tuple[torch.nn.Module, str, str | None]:
    """The model, its architecture, and the licence of its weights where somebody says it."""
    import timm

    scheme, _, source = request.argument.partition(":")
    if scheme in SCHEMES:
        return _from_folder_or_repository(request, scheme, source)
    name, _, weights = request.argument.partition("/")
    if not timm.is_model(name):
        close = ", ".join(get_close_matches(name, timm.list_models(), 5)) or "see timm.list_models()"
        raise UsageError(f"timm has no model {name!r}. Near: {close}.")
    if not weights:
        model = _pretrained(request, name)
        return model, name.split(".")[0], _config(model).get("license")
    model = timm.create_model(name, pretrained=False, num_classes=0)
    fill(model, Path(weights).expanduser(), f"timm model {name!r}")
    return model, name.split(".")[0], None


def _from_folder_or_repository(request: EncoderRequest, scheme: str, source: str) -> tuple[torch.nn.Module, str, str | None]:
    folder = Path(source).expanduser()
    if scheme == "local-dir" and not (folder / "config.json").is_file():
        raise UsageError(f"{folder} is not a folder of timm (timm.models.save_for_hf): it has no config.json.")
    model = _pretrained(request, f"{scheme}:{folder if scheme == 'local-dir' else source}")
    config = _config(model)
    card = Card.read(folder) if scheme == "local-dir" else hub_card(source.partition("@")[0])
    built = {k: v for k, v in getattr(model, "pretrained_model_args", {}).items() if k not in ("num_classes", "global_pool")}
    name = str(config["architecture"]) + (f" {json.dumps(built, sort_keys=True)}" if built else "")
    return model, name, card.license or config.get("license")


def _config(model: Any) -> Any:
    """What timm knows of the weights."""
    return getattr(model, "pretrained_cfg", {})


def _pretrained(request: EncoderRequest, name: str) -> torch.nn.Module:
    import timm

    with hub() as absent:
        try:
            model: torch.nn.Module = timm.create_model(name, pretrained=True, num_classes=0)
        except Exception as error:
            raise not_loadable(request, error, "" if name.startswith("local-dir:") else absent) from error
    return model
