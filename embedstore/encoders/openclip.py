"""`openclip:MODEL/PRETRAINED`: image and text towers of one model, comparable with one another.

PRETRAINED is a tag of open_clip (its weights come from the hub) or a local file. `openclip:hf-hub:ORG/NAME` and
`openclip:local-dir:FOLDER` are models that bring their configuration.
"""

from __future__ import annotations

import copy
import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedstore._core.hub import hub
from embedstore.encoders.base import EncoderRequest, Vectors, not_loadable, prepare_one, refuse_modality
from embedstore.encoders.cards import Card, hub_card
from embedstore.encoders.image_encoder import ImageEncoder
from embedstore.encoders.names import SCHEMES
from embedstore.encoders.payloads.images import ImageTransform
from embedstore.encoders.payloads.texts import EXAMPLE_TEXTS, decode_text, decode_texts
from embedstore.encoders.runtimes.base import Array, Model, Network, Pending
from embedstore.encoders.runtimes.choose import batch_size_of, open_model
from embedstore.encoders.trust import no_code
from embedstore.encoders.weights import fill, state_digest
from embedstore.errors import EncoderError, PayloadError, UsageError
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
    tokenizer: str
    license: str | None


class ClipTextEncoder:
    """The text tower; longer texts are cut at its context length and counted."""

    def __init__(self, clip: ClipModel, request: EncoderRequest) -> None:
        self.spec = _spec(clip, request, {"tokenizer": clip.tokenizer}, clip.context_length)
        self.license = clip.license
        self.batch_size = batch_size_of(request)
        self.lanes = len(request.devices)
        self.truncated = 0
        self._clip = clip
        self._request = request
        self._tokenizing = threading.Lock()

    @property
    def network(self) -> Network:
        shape = (-1, self._clip.context_length)
        return Network(self.spec.name, self.spec.fingerprint, self._module, (shape,), self._examples)

    @cached_property
    def model(self) -> Model:
        return open_model(self.network, self._request)

    def prepare(self, payload: bytes) -> Array:
        return self._counted(decode_text(payload))

    def prepare_batch(self, payloads: Sequence[bytes]) -> list[Array | PayloadError]:
        texts, errors = decode_texts(payloads)
        try:
            tokens = self.tokens(list(texts.values()))
        except Exception:  # tokenizers raise many kinds; one by one it says which text it is
            return [prepare_one(self, payload) for payload in payloads]
        prepared = {i: self._counted(texts[i], row) for i, row in zip(texts, tokens, strict=True)}
        return [prepared[i] if i in prepared else errors[i] for i in range(len(payloads))]

    def tokens(self, texts: Sequence[str]) -> Array:
        """Token ids (n, context length) int64, padded with zeros."""
        with self._tokenizing:  # those of Hugging Face refuse a second thread
            return np.asarray(self._clip.tokenize(list(texts)).numpy(), np.int64)

    def _counted(self, text: str, tokens: Array | None = None) -> Array:
        """Token ids (context length,) int64 of `text`, which counts as truncated if it has more."""
        if tokens is None:
            tokens = self.tokens([text])[0]
        if tokens[-1] != 0:  # no padding left: cut, or exactly as long
            with self._tokenizing:
                length = _token_count(self._clip.tokenize, text)
                self.truncated += length > self._clip.context_length
        return tokens

    def start(self, batch: Sequence[Array]) -> Pending:
        return self.model.start(np.stack(batch))

    def encode(self, batch: Sequence[Array]) -> Vectors:
        return self.start(batch)()

    def provenance(self) -> Mapping[str, str]:
        return {**self.model.provenance(), "open_clip_torch": version("open_clip_torch")}

    def _examples(self) -> list[tuple[Array, ...]]:
        return [(self.tokens(texts),) for texts in (EXAMPLE_TEXTS, EXAMPLE_TEXTS[2:3])]

    def _module(self) -> torch.nn.Module:
        from embedstore.encoders.runtimes.wrapped import ClipTexts

        return ClipTexts(_tower(self._clip.model, visual=False))


def _tower(model: Any, *, visual: bool) -> Any:
    """`model` with the modules of one tower alone: the other is not to be placed on a GPU, nor converted, with it."""
    tower = copy.copy(model)
    tower._modules = {name: part for name, part in model._modules.items() if (name == "visual") == visual}
    return tower


def _token_count(tokenizer: Any, text: str) -> int:
    """Tokens of the whole text, its marks included, by open_clip's own tokenizer or a Hugging Face one."""
    if hasattr(tokenizer, "encode"):
        return len(tokenizer.encode(text)) + 2
    clean = getattr(tokenizer, "clean_fn", str)
    return len(tokenizer.tokenizer(clean(text))["input_ids"])


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
    """openclip:MODEL/TAG (hub) or /PATH (local weights), openclip:hf-hub:ORG/NAME, openclip:local-dir:FOLDER: images, texts."""
    refuse_modality(request, ["image", "text"])
    clip = _load_clip(request.argument, request.name)
    if request.modality == "text":
        return ClipTextEncoder(clip, request)
    encoder = ImageEncoder(
        _spec(clip, request, clip.transform.to_dict(), None),
        clip.transform,
        lambda: _tower(clip.model, visual=True),
        request,
        library="open_clip_torch",
        forward=lambda model, images: model.encode_image(images, normalize=True),
    )
    encoder.license = clip.license
    return encoder


@lru_cache(maxsize=2)
def _load_clip(argument: str, typed: str) -> ClipModel:
    scheme, _, source = argument.partition(":")
    if scheme in SCHEMES:
        return _from_folder_or_repository(scheme, source, typed)
    name, _, pretrained = argument.partition("/")
    if not name or not pretrained:
        raise UsageError(
            f"Encoder {typed!r} needs a model and its weights: openclip:MODEL/PRETRAINED, such as "
            "openclip:ViT-B-32/laion2b_s34b_b79k, openclip:ViT-B-32/./weights.safetensors, openclip:hf-hub:ORG/NAME or "
            "openclip:local-dir:FOLDER."
        )
    return _by_name(name, pretrained, typed)


def _by_name(name: str, pretrained: str, typed: str) -> ClipModel:
    import open_clip

    if name not in open_clip.list_models():
        close = ", ".join(get_close_matches(name, open_clip.list_models(), 5)) or "see open_clip.list_models()"
        raise UsageError(f"open_clip has no model {name!r}. Near: {close}.")
    path, card = Path(pretrained).expanduser(), Card()
    if path.is_file():
        with no_code():
            model = open_clip.create_model(name, load_weights=False)
        fill(model, path, repr(name))
    elif pretrained not in open_clip.list_pretrained_tags_by_model(name):
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "none"
        raise UsageError(f"{pretrained!r} is neither a local file nor pretrained weights of {name}. Tags: {tags}.")
    else:
        tag = open_clip.get_pretrained_cfg(name, pretrained)
        name, quick = _activation(name, tag)
        model = _created(typed, name, pretrained=pretrained, force_quick_gelu=quick)
        name += "-quickgelu" if quick else ""
        card = hub_card(str(tag.get("hf_hub") or "").strip("/")) if tag.get("hf_hub") else card
    config = open_clip.get_model_config(name) or open_clip.get_model_config(name.removesuffix("-quickgelu"))
    return _clip_model(model, name, config, _tokenizer(typed, name.removesuffix("-quickgelu")), "open_clip", card.license)


def _activation(name: str, tag: Mapping[str, Any]) -> tuple[str, bool]:
    """The architecture with the activation that the weights were trained with, and whether it has to be forced on it.

    OpenAI's weights and some others have QuickGELU, which the plain names leave out: open_clip only warns.
    """
    import open_clip

    if not tag.get("quick_gelu") or open_clip.get_model_config(name).get("quick_gelu"):
        return name, False
    better = f"{name}-quickgelu"
    return (better, False) if better in open_clip.list_models() else (name, True)


def _from_folder_or_repository(scheme: str, source: str, typed: str) -> ClipModel:
    """A model that open_clip does not know by name; it is known by its configuration, so that its folder may move."""
    import open_clip

    folder = Path(source).expanduser()
    if scheme == "local-dir" and not (folder / "open_clip_config.json").is_file():
        raise UsageError(f"{folder} is not a folder of open_clip (push_to_hf_hub): it has no open_clip_config.json.")
    name = f"{scheme}:{folder if scheme == 'local-dir' else source}"
    model, tokenizer = _created(typed, name), _tokenizer(typed, name)
    with hub():
        config = open_clip.get_model_config(name)
    known = next((known for known in open_clip.list_models() if open_clip.get_model_config(known) == config), None)
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:12]
    card = Card.read(folder) if scheme == "local-dir" else hub_card(source)
    return _clip_model(model, known or f"config-{digest}", config, tokenizer, _tokenizer_name(tokenizer), card.license)


def _tokenizer_name(tokenizer: Any) -> str:
    """open_clip's own, or the digest of what a Hugging Face tokenizer does."""
    inner = getattr(tokenizer, "tokenizer", None)
    if inner is None:
        return "open_clip"
    backend = getattr(inner, "backend_tokenizer", None)
    said = backend.to_str() if backend is not None else f"{type(inner).__name__} {inner.vocab_size}"
    return f"open_clip:{hashlib.sha256(said.encode()).hexdigest()[:16]}"


def _created(typed: str, name: str, **options: Any) -> Any:
    import open_clip

    with hub() as absent, no_code():
        try:
            return open_clip.create_model(name, require_pretrained=True, weights_only=True, **options)
        except Exception as error:
            raise _not_loadable(typed, name, error, absent) from error


def _tokenizer(typed: str, name: str) -> Any:
    import open_clip

    with hub() as absent, no_code():
        try:
            return open_clip.get_tokenizer(name)
        except Exception as error:
            raise _not_loadable(typed, name, error, absent) from error


def _not_loadable(typed: str, name: str, error: Exception, absent: str) -> EncoderError:
    return not_loadable(EncoderRequest(typed, "", "image"), error, "" if name.startswith("local-dir:") else absent)


def _clip_model(
    model: Any, name: str, config: Mapping[str, Any], tokenizer: Any, tokenizer_name: str, license: str | None
) -> ClipModel:
    import open_clip

    return ClipModel(
        model=model,
        name=name,
        digest=state_digest(model),
        tokenize=tokenizer,
        tokenizer=tokenizer_name,
        context_length=int(getattr(tokenizer, "context_length", 77) or 77),
        dim=int(config["embed_dim"]),
        transform=_transform(open_clip.get_model_preprocess_cfg(model)),
        license=license,
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
