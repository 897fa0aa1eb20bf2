"""`openclip:MODEL/PRETRAINED`: image and text towers of one model, comparable with one another.

PRETRAINED is a tag of open_clip (its weights come from the hub) or a local file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedstore.encoders.base import EncoderRequest, Vectors, not_loadable, refuse_modality
from embedstore.encoders.image_encoder import ImageEncoder
from embedstore.encoders.images import ImageTransform
from embedstore.encoders.network import Array, Model, Network, Pending, batch_size_of, open_model
from embedstore.encoders.runtime import load_weights, state_digest
from embedstore.encoders.texts import EXAMPLE_TEXTS, decode_text
from embedstore.errors import EncoderError, UsageError
from embedstore.registry import version
from embedstore.spec import EncoderSpec

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class ClipModel:
    """Both towers, loaded once for both modalities."""

    model: Any
    name: str
    digest: str
    tokenize: Callable[[Sequence[str]], torch.Tensor]
    context_length: int
    dim: int
    transform: ImageTransform


class ClipTextEncoder:
    """The text tower; longer texts are cut at its context length and counted."""

    def __init__(self, clip: ClipModel, request: EncoderRequest) -> None:
        self.spec = _spec(clip, request, {"tokenizer": "open_clip"}, clip.context_length)
        self.batch_size = batch_size_of(request)
        self.truncated = 0
        self._clip = clip
        self._request = request

    @property
    def network(self) -> Network:
        shape = (-1, self._clip.context_length)
        return Network(self.spec.name, self.spec.fingerprint, self._module, (shape,), self._examples)

    @cached_property
    def model(self) -> Model:
        return open_model(self.network, self._request)

    def prepare(self, payload: bytes) -> str:
        return decode_text(payload)

    def tokens(self, batch: Sequence[str]) -> Array:
        """What `model` takes: (n, context length) int64."""
        return np.asarray(self._clip.tokenize(list(batch)).numpy(), np.int64)

    def start(self, batch: Sequence[str]) -> Pending:
        tokens = self.tokens(batch)
        begun = self.model.start(tokens)

        def wait() -> Vectors:
            vectors = begun()
            full = np.flatnonzero(tokens[:, -1] != 0).tolist()  # no padding left: cut, or exactly as long
            self.truncated += sum(_token_count(self._clip.tokenize, batch[i]) > self._clip.context_length for i in full)
            return vectors

        return wait

    def encode(self, batch: Sequence[str]) -> Vectors:
        return self.start(batch)()

    def provenance(self) -> Mapping[str, str]:
        return {**self.model.provenance(), "open_clip_torch": version("open_clip_torch")}

    def _examples(self) -> list[tuple[Array, ...]]:
        return [(self.tokens(texts),) for texts in (EXAMPLE_TEXTS, EXAMPLE_TEXTS[2:3])]

    def _module(self) -> torch.nn.Module:
        from embedstore.encoders.modules import ClipTexts

        return ClipTexts(self._clip.model)


def _token_count(tokenizer: Any, text: str) -> int:
    """Tokens of the whole text, its marks included, by open_clip's own tokenizer or a Hugging Face one."""
    if hasattr(tokenizer, "encode"):
        return len(tokenizer.encode(text)) + 2
    return len(tokenizer.tokenizer(text)["input_ids"])


def _spec(clip: ClipModel, request: EncoderRequest, preprocessing: Mapping[str, Any], max_length: int | None) -> EncoderSpec:
    return EncoderSpec(
        name=request.name,
        family="openclip",
        model=clip.name,
        weights=clip.digest,
        modality=request.modality,
        dim=clip.dim,
        preprocessing=preprocessing,
        pooling="model",
        max_length=max_length,
        normalized=True,
        alignment=f"openclip:{clip.name}:{clip.digest.removeprefix('sha256:')[:16]}",
    )


def load(request: EncoderRequest) -> ImageEncoder | ClipTextEncoder:
    """openclip:MODEL/TAG (hub) or openclip:MODEL/PATH (local weights): images and texts, comparable."""
    refuse_modality(request, ["image", "text"])
    name, _, pretrained = request.argument.partition("/")
    if not name or not pretrained:
        raise UsageError(
            f"Encoder {request.name!r} needs a model and its weights: openclip:MODEL/PRETRAINED, such as "
            "openclip:ViT-B-32/laion2b_s34b_b79k or openclip:ViT-B-32/./weights.safetensors."
        )
    clip = _load_clip(name, pretrained, request.name)
    if request.modality == "text":
        return ClipTextEncoder(clip, request)
    return ImageEncoder(
        _spec(clip, request, clip.transform.to_dict(), None),
        clip.transform,
        lambda: clip.model,
        request,
        library="open_clip_torch",
        forward=lambda model, images: model.encode_image(images, normalize=True),
    )


@lru_cache(maxsize=2)
def _load_clip(name: str, pretrained: str, typed: str) -> ClipModel:
    import open_clip

    if name not in open_clip.list_models():
        close = ", ".join(get_close_matches(name, open_clip.list_models(), 5)) or "see open_clip.list_models()"
        raise UsageError(f"open_clip has no model {name!r}. Near: {close}.")
    path = Path(pretrained).expanduser()
    if path.is_file():
        model = open_clip.create_model(name, load_weights=False)
        problems = model.load_state_dict(load_weights(path), strict=False)
        if problems.missing_keys:
            raise EncoderError(f"Weights {path} do not fit {name!r}: they lack {problems.missing_keys[0]!r}.")
    elif pretrained not in open_clip.list_pretrained_tags_by_model(name):
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "none"
        raise UsageError(f"{pretrained!r} is neither a local file nor pretrained weights of {name}. Tags: {tags}.")
    else:
        try:
            model = open_clip.create_model(name, pretrained=pretrained, require_pretrained=True)
        except Exception as error:
            raise not_loadable(EncoderRequest(typed, "", "image"), error) from error
    tokenizer = open_clip.get_tokenizer(name)
    return ClipModel(
        model=model,
        name=name,
        digest=state_digest(model),
        tokenize=tokenizer,
        context_length=int(getattr(tokenizer, "context_length", 77) or 77),
        dim=int(open_clip.get_model_config(name)["embed_dim"]),
        transform=_transform(open_clip.get_model_preprocess_cfg(model)),
    )


def _transform(config: Mapping[str, Any]) -> ImageTransform:
    size = config["size"]
    height, width = (size, size) if isinstance(size, int) else size
    return ImageTransform(
        size=(height, width),
        resize=config.get("resize_mode", "shortest"),
        resize_to=min(height, width),
        interpolation=config.get("interpolation", "bicubic"),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        fill=config.get("fill_color", 0),
    )
