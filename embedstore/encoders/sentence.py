"""`st:MODEL`: any sentence-transformers model, from the hub or a local folder; texts, and images where it takes them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedstore.encoders.base import EncoderRequest, Vectors, not_loadable, refuse_modality
from embedstore.encoders.cards import Card, matryoshka, read_config
from embedstore.encoders.image_encoder import pictures
from embedstore.encoders.model_folders import folder_digest, model_folder
from embedstore.encoders.payloads.images import decode_rgb
from embedstore.encoders.payloads.texts import EXAMPLE_TEXTS, decode_text
from embedstore.encoders.prompts import ITEMS, QUERIES, chosen_prompts, known_prompts
from embedstore.encoders.runtimes.choose import batch_size_of
from embedstore.encoders.runtimes.precision import Arithmetic, Chosen
from embedstore.encoders.runtimes.pytorch import TorchRuntime
from embedstore.encoders.text_encoder import OVERLAP, TextEncoder
from embedstore.encoders.trust import no_code
from embedstore.errors import EmbedstoreError, EncoderError, UsageError
from embedstore.registry import refuse_older, require
from embedstore.spec import EncoderSpec

if TYPE_CHECKING:
    import torch

_PACKED = ("bert", "roberta", "xlm-roberta")
_TASK = "feature-extraction"
LEAST = 6
"""sentence-transformers before this version runs Python files that lie in a model's folder."""
_UNUSUAL = ("do_lower_case", "processing_kwargs", "query_length", "document_length", "query_expansion")
"""Options of a transformer that sentence-transformers itself has to see to."""


class SentenceEncoder:
    """A sentence-transformers model of any kind on one modality, prepared and run by its library.

    Parameters
    ----------
    spec : EncoderSpec
    model
        The loaded `SentenceTransformer`.
    request : EncoderRequest
    task : str, optional
        ``"document"`` or ``"query"``, of models that treat the two differently.
    """

    license: str | None = None
    matryoshka: tuple[int, ...] | None = None
    keeps: int | None = None

    def __init__(self, spec: EncoderSpec, model: Any, request: EncoderRequest, task: str | None = None) -> None:
        self.spec = spec
        self.batch_size = batch_size_of(request)
        self.truncated = 0
        self._model = model
        self._request = request
        self._task = {} if task is None else {"task": task}

    @cached_property
    def queries(self) -> SentenceEncoder:
        """The encoder of queries: this one, unless the model has a prompt or a part of its own for them."""
        if self.spec.query_prompt == self.spec.prompt and not self._task:
            return self
        task = QUERIES if self._task else None
        return SentenceEncoder(replace(self.spec, prompt=self.spec.query_prompt), self._model, self._request, task)

    @cached_property
    def runtime(self) -> TorchRuntime:
        return TorchRuntime(self._request.devices[0], self._request.precision)

    @cached_property
    def _chosen(self) -> Chosen:
        """What it computes in; weights stay as they are, for what the library makes of payloads is float32 in parts."""

        def vectors(arithmetic: Arithmetic) -> list[Vectors]:
            return [self._vectors(self._features(batch), arithmetic) for batch in self._examples()]

        return self.runtime.chosen(self.spec.name, self.spec.fingerprint, vectors, converts=False)

    def _examples(self) -> list[list[Any]]:
        if self.spec.modality == "text":
            return [list(EXAMPLE_TEXTS), list(EXAMPLE_TEXTS[2:3])]
        from PIL import Image

        images = [Image.fromarray(pixels) for pixels in pictures(224, 224)]
        return [images, images[:1]]

    @cached_property
    def model(self) -> Any:
        with self.runtime.device_errors():
            return self._model.to(self.runtime.device)

    def prepare(self, payload: bytes) -> Any:
        if self.spec.modality == "image":
            return decode_rgb(payload, max_pixels=self._request.max_pixels)
        return decode_text(payload)

    def encode(self, batch: Sequence[Any]) -> Vectors:
        features = self._features(batch)
        if self.spec.modality == "text" and self.spec.max_length:
            lengths = features["attention_mask"].sum(1).cpu().numpy()
            self._count_truncated([batch[i] for i in np.flatnonzero(lengths >= self.spec.max_length).tolist()])
        return self._vectors(features, self._chosen.arithmetic)

    def _features(self, batch: Sequence[Any]) -> Mapping[str, Any]:
        features: Mapping[str, Any] = self.model.preprocess(list(batch), prompt=self.spec.prompt or None, **self._task)
        return features

    def _vectors(self, features: Mapping[str, Any], arithmetic: Arithmetic) -> Vectors:
        def forward() -> torch.Tensor:
            placed = {k: v.to(self.runtime.device) if hasattr(v, "to") else v for k, v in features.items()}
            found: torch.Tensor = self.model(placed, **self._task)["sentence_embedding"]
            return found

        return self.runtime.run(forward, arithmetic)

    def _count_truncated(self, texts: list[str]) -> None:
        if texts:
            whole = [self.spec.prompt + text for text in texts]
            tokens = self.model.tokenizer(whole, truncation=False, verbose=False)["input_ids"]
            self.truncated += sum(len(ids) > (self.spec.max_length or 0) for ids in tokens)

    def provenance(self) -> Mapping[str, str]:
        library = require("sentence_transformers", extra="st")
        return {**self.runtime.provenance(self._chosen), "sentence_transformers": library.__version__}


def load(request: EncoderRequest) -> SentenceEncoder | TextEncoder:
    """st:ORG/NAME (hub) or st:FOLDER (local): any sentence-transformers model; texts, some also images."""
    refuse_older("sentence-transformers", LEAST, extra="st")
    names = "st:sentence-transformers/all-MiniLM-L6-v2 or st:./my-model"
    return from_folder(model_folder(request, names, needs=()), request)


def from_folder(folder: Path, request: EncoderRequest) -> SentenceEncoder | TextEncoder:
    """The model in `folder`; described from its files without loading it where they say enough.

    Raises
    ------
    EncoderError
        The folder holds no sentence-transformers or transformers model.
    """
    refuse_older("sentence-transformers", LEAST, extra="st")
    if not (folder / "config.json").is_file() and not (folder / "modules.json").is_file():
        raise EncoderError(f"{folder} has neither modules.json nor config.json: not a sentence-transformers model.")
    try:
        encoder = _plain(folder, request) or _describe_loaded(folder, request)
        own = folder / "config_sentence_transformers.json"
        encoder.license = Card.read(folder).license
        encoder.matryoshka = matryoshka(folder, own, folder / "config.json", _transformer(folder) / "config.json")
        encoder.keeps = read_config(own).get("truncate_dim")
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, EmbedstoreError):
            raise
        raise EncoderError(f"{folder}: its JSON files are not those of a sentence-transformers model ({error!r}).") from error
    return encoder


def _plain(folder: Path, request: EncoderRequest) -> TextEncoder | None:
    """A plain transformer with a tokenizer, if that is what the model is."""
    seen_whole = request.recorded is not None and "processor" in request.recorded.preprocessing
    described = None if seen_whole or request.modality != "text" else _describe(folder, request)
    if described is None:
        if request.windows:
            raise UsageError(f"{request.name}: windows need a text model that is a plain transformer with a tokenizer.json.")
        return None
    transformer = _transformer(folder)

    def module(left_out: int) -> torch.nn.Module:
        from embedstore.encoders.runtimes.wrapped import SentenceTexts

        return SentenceTexts(_load_model(folder, request, "cpu"), left_out)

    pooled = _pooling(folder).get("include_prompt", True)
    return TextEncoder(described, transformer, module, request, _packed(described, transformer), pooled_prompt=pooled)


def _packed(spec: EncoderSpec, transformer: Path) -> Callable[[torch.nn.Module], torch.nn.Module] | None:
    """How the module of texts becomes one of packed rows, where the architecture is one that can."""
    if spec.model not in _PACKED or spec.pooling not in ("mean_tokens", "cls_token", "mean", "cls"):
        return None
    position = 0 if spec.model == "bert" else int(read_config(transformer / "config.json").get("pad_token_id", 1)) + 1
    first = spec.pooling.startswith("cls")

    def packed(plain: Any) -> torch.nn.Module:
        from embedstore.encoders.runtimes.wrapped import PackedTexts

        return PackedTexts(plain, position, first=first)

    return packed


def _transformer(folder: Path) -> Path:
    """Where the transformer of the model in `folder` has its files."""
    modules = read_config(folder / "modules.json")
    return _inside(folder, modules[0]["path"]) if isinstance(modules, list) and modules else folder


def _pooling(folder: Path) -> Any:
    """The configuration of the pooling of a plain transformer."""
    return read_config(_inside(folder, read_config(folder / "modules.json")[1]["path"]) / "config.json")


def _inside(folder: Path, path: str) -> Path:
    """The module at `path` in a model's folder."""
    if os.path.isabs(path) or os.path.normpath(path).split(os.sep)[0] == os.pardir:
        raise EncoderError(f"{folder / 'modules.json'} names {path!r}, which is not inside the model's folder.")
    return folder / path


def _describe(folder: Path, request: EncoderRequest) -> EncoderSpec | None:
    """The spec of a plain transformer + pooling (+ normalisation) text model, from its files."""
    modules = read_config(folder / "modules.json")
    kinds = [str(m["type"]).rsplit(".", 1)[-1] for m in modules] if isinstance(modules, list) else []
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        return None
    root = _transformer(folder)
    pooling = _pooling(folder)
    dim = pooling.get("word_embedding_dimension") or pooling.get("embedding_dimension")
    options = read_config(root / "sentence_bert_config.json")
    config = read_config(root / "config.json")
    max_length = options.get("max_seq_length") or _max_length(root, config)
    model_type = config.get("model_type")
    prompt, query_prompt = chosen_prompts(request, known_prompts(read_config(folder / "config_sentence_transformers.json")))
    if not (dim and max_length and model_type) or any(options.get(key) for key in _UNUSUAL):
        return None
    if "message" in options.get("modality_config", {}) or options.get("transformer_task", _TASK) != _TASK:
        return None
    if not (root / "tokenizer.json").is_file():
        return None
    named = pooling.get("pooling_mode", "model")
    modes = [key.removeprefix("pooling_mode_") for key, on in pooling.items() if on is True and "pooling_mode" in key]
    modes = modes or ([named] if isinstance(named, str) else list(named))
    preprocessing: dict[str, Any] = {"tokenizer": "model"}
    if request.windows:
        preprocessing["windows"] = {"overlap": int(max_length) // OVERLAP, "pooled": "mean"}
    return EncoderSpec(
        name=request.name,
        family="st",
        model=str(model_type),
        weights=folder_digest(folder),
        modality="text",
        dim=int(dim) * len(modes),
        preprocessing=preprocessing,
        pooling="+".join(modes),
        prompt=prompt,
        query_prompt=query_prompt,
        max_length=int(max_length),
        normalized="Normalize" in kinds,
    )


def _max_length(root: Path, config: Mapping[str, Any]) -> int | None:
    """What sentence-transformers 6 takes, which no longer writes it down."""
    given = [read_config(root / "tokenizer_config.json").get("model_max_length"), config.get("max_position_embeddings")]
    tokens = [int(length) for length in given if length]
    return min(tokens) if len(tokens) == 2 and min(tokens) > 0 else None


def _describe_loaded(folder: Path, request: EncoderRequest) -> SentenceEncoder:
    model = _load_model(folder, request, "cpu")
    refuse_modality(request, [m for m in model.modalities if isinstance(m, str) and m in ("text", "image")])
    digest = folder_digest(folder)
    several = len([m for m in model.modalities if m in ("text", "image")]) > 1
    prompt, query_prompt = chosen_prompts(request, model.prompts)
    seen = request.modality == "text" or "message" in model.modalities
    task = _task(model) if request.recorded is None else request.recorded.preprocessing.get("task")
    spec = EncoderSpec(
        name=request.name,
        family="st",
        model=type(model[0]).__name__,
        weights=digest,
        modality=request.modality,
        dim=int(model.get_embedding_dimension()),
        preprocessing={"processor": "model"} if task is None else {"processor": "model", "task": task},
        pooling="model",
        prompt=prompt if seen else "",
        query_prompt=query_prompt,
        max_length=model.max_seq_length if request.modality == "text" else None,
        normalized=any(type(module).__name__ == "Normalize" for module in model),
        alignment=f"st:{digest.removeprefix('sha256:')[:16]}" if several else None,
    )
    return SentenceEncoder(spec, model, request, task)


def _task(model: Any) -> str | None:
    """``"document"`` where the model treats items and queries differently, by a router or by their length."""
    differs = any(type(part).__name__ == "Router" or getattr(part, "document_length", None) for part in model)
    return ITEMS[0] if differs else None


def _load_model(folder: Path, request: EncoderRequest, device: str) -> Any:
    library = require("sentence_transformers", extra="st")
    require("transformers", extra="st").utils.logging.disable_progress_bar()
    try:
        with no_code():
            return library.SentenceTransformer(str(folder), device=device, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise not_loadable(request, error) from error
