"""`st:MODEL`: any sentence-transformers model, from the hub or a local folder; texts, and images where it takes them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedstore._files import sha256_file
from embedstore.encoders.base import EncoderRequest, Vectors, not_loadable, refuse_modality
from embedstore.encoders.images import decode_rgb
from embedstore.encoders.network import batch_size_of
from embedstore.encoders.text_encoder import OVERLAP, TextEncoder
from embedstore.encoders.texts import decode_text
from embedstore.errors import EncoderError, UsageError
from embedstore.registry import require
from embedstore.spec import EncoderSpec

if TYPE_CHECKING:
    import torch

_DIGESTED = (".json", ".safetensors", ".bin", ".txt", ".model")
_PACKED = ("bert", "roberta", "xlm-roberta")
_SKIPPED = ("onnx", "openvino", ".git", ".cache")


class SentenceEncoder:
    """A sentence-transformers model of any kind on one modality, prepared and run by its library.

    Parameters
    ----------
    spec : EncoderSpec
    model
        The loaded `SentenceTransformer`.
    request : EncoderRequest
    """

    def __init__(self, spec: EncoderSpec, model: Any, request: EncoderRequest) -> None:
        self.spec = spec
        self.batch_size = batch_size_of(request)
        self.truncated = 0
        self._model = model
        self._request = request

    @cached_property
    def runtime(self) -> Any:
        from embedstore.encoders.runtime import TorchRuntime

        return TorchRuntime(self._request.device, self._request.precision)

    @cached_property
    def model(self) -> Any:
        return self._model.to(self.runtime.device)

    def prepare(self, payload: bytes) -> Any:
        if self.spec.modality == "image":
            return decode_rgb(payload, max_pixels=self._request.max_pixels)
        return decode_text(payload)

    def encode(self, batch: Sequence[Any]) -> Vectors:
        features = self.model.preprocess(list(batch), prompt=self.spec.prompt or None)
        features = {k: v.to(self.runtime.device) if hasattr(v, "to") else v for k, v in features.items()}
        if self.spec.modality == "text" and self.spec.max_length:
            lengths = features["attention_mask"].sum(1).cpu().numpy()
            self._count_truncated([batch[i] for i in np.flatnonzero(lengths >= self.spec.max_length).tolist()])
        vectors: Vectors = self.runtime.run(lambda: self.model(features)["sentence_embedding"])
        return vectors

    def _count_truncated(self, texts: list[str]) -> None:
        if texts:
            tokens = self.model.tokenizer(texts, truncation=False, verbose=False)["input_ids"]
            self.truncated += sum(len(ids) > (self.spec.max_length or 0) for ids in tokens)

    def provenance(self) -> Mapping[str, str]:
        library = require("sentence_transformers", extra="st")
        return {**self.runtime.provenance(), "sentence_transformers": library.__version__}


def load(request: EncoderRequest) -> SentenceEncoder | TextEncoder:
    """st:ORG/NAME (hub) or st:FOLDER (local): any sentence-transformers model; texts, some also images."""
    if not request.argument:
        raise UsageError("st: needs a model, such as st:sentence-transformers/all-MiniLM-L6-v2 or st:./my-model.")
    folder = Path(request.argument).expanduser()
    if not folder.is_dir():
        if request.argument.startswith((".", "/", "~")):
            raise UsageError(f"{folder} is not a folder with a sentence-transformers model.")
        folder = _download(request)
    return from_folder(folder, request)


def from_folder(folder: Path, request: EncoderRequest) -> SentenceEncoder | TextEncoder:
    """The model in `folder`; described from its files without loading it where they say enough.

    Raises
    ------
    EncoderError
        The folder holds no sentence-transformers or transformers model.
    """
    if not (folder / "config.json").is_file() and not (folder / "modules.json").is_file():
        raise EncoderError(f"{folder} has neither modules.json nor config.json: not a sentence-transformers model.")
    described = _describe(folder, request)
    if described is None or request.modality != "text":
        if request.windows:
            raise UsageError(f"{request.name}: windows need a text model that is a plain transformer with a tokenizer.json.")
        return _describe_loaded(folder, request)
    refuse_modality(request, ["text"])

    def module() -> torch.nn.Module:
        from embedstore.encoders.modules import SentenceTexts

        return SentenceTexts(_load_model(folder, request, "cpu"))

    return TextEncoder(described, _transformer(folder), module, request, _packed(described, _transformer(folder)))


def _packed(spec: EncoderSpec, transformer: Path) -> Callable[[torch.nn.Module], torch.nn.Module] | None:
    """How the module of texts becomes one of packed rows, where the architecture is one that can."""
    if spec.model not in _PACKED or spec.pooling not in ("mean_tokens", "cls_token", "mean", "cls"):
        return None
    position = 0 if spec.model == "bert" else int(_json(transformer / "config.json").get("pad_token_id", 1)) + 1
    first = spec.pooling.startswith("cls")

    def packed(plain: Any) -> torch.nn.Module:
        from embedstore.encoders.modules import PackedTexts

        return PackedTexts(plain, position, first=first)

    return packed


def _transformer(folder: Path) -> Path:
    """Where the transformer of the model in `folder` has its files."""
    modules = _json(folder / "modules.json")
    return folder / modules[0]["path"] if isinstance(modules, list) and modules else folder


def _describe(folder: Path, request: EncoderRequest) -> EncoderSpec | None:
    """The spec of a plain transformer + pooling (+ normalisation) text model, from its files."""
    modules = _json(folder / "modules.json")
    kinds = [str(m["type"]).rsplit(".", 1)[-1] for m in modules] if isinstance(modules, list) else []
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        return None
    root = _transformer(folder)
    pooling = _json(folder / modules[1]["path"] / "config.json")
    dim = pooling.get("word_embedding_dimension") or pooling.get("embedding_dimension")
    options = _json(root / "sentence_bert_config.json")
    config = _json(root / "config.json")
    max_length = options.get("max_seq_length") or _max_length(root, config)
    model_type = config.get("model_type")
    prompts = _json(folder / "config_sentence_transformers.json").get("prompts")
    if not (dim and max_length and model_type) or any((prompts or {}).values()):
        return None
    if options.get("do_lower_case") or options.get("processing_kwargs"):
        return None
    if not (root / "tokenizer.json").is_file():
        return None
    modes = [key.removeprefix("pooling_mode_") for key, on in pooling.items() if on is True and "pooling_mode" in key]
    preprocessing: dict[str, Any] = {"tokenizer": "model"}
    if request.windows:
        preprocessing["windows"] = {"overlap": int(max_length) // OVERLAP, "pooled": "mean"}
    return EncoderSpec(
        name=request.name,
        family="st",
        model=str(model_type),
        weights=folder_digest(folder),
        modality="text",
        dim=int(dim),
        preprocessing=preprocessing,
        pooling="+".join(modes) or str(pooling.get("pooling_mode", "model")),
        max_length=int(max_length),
        normalized="Normalize" in kinds,
    )


def _max_length(root: Path, config: Mapping[str, Any]) -> int | None:
    """What sentence-transformers 6 takes, which no longer writes it down."""
    given = [_json(root / "tokenizer_config.json").get("model_max_length"), config.get("max_position_embeddings")]
    tokens = [int(length) for length in given if length]
    return min(tokens) if len(tokens) == 2 and min(tokens) > 0 else None


def _describe_loaded(folder: Path, request: EncoderRequest) -> SentenceEncoder:
    model = _load_model(folder, request, "cpu")
    refuse_modality(request, [m for m in model.modalities if isinstance(m, str) and m in ("text", "image")])
    digest = folder_digest(folder)
    several = len([m for m in model.modalities if m in ("text", "image")]) > 1
    spec = EncoderSpec(
        name=request.name,
        family="st",
        model=type(model[0]).__name__,
        weights=digest,
        modality=request.modality,
        dim=int(model.get_embedding_dimension()),
        preprocessing={"processor": "model"},
        pooling="model",
        max_length=model.max_seq_length if request.modality == "text" else None,
        normalized=any(type(module).__name__ == "Normalize" for module in model),
        alignment=f"st:{digest.removeprefix('sha256:')[:16]}" if several else None,
    )
    return SentenceEncoder(spec, model, request)


def folder_digest(folder: Path) -> str:
    """``"sha256:…"`` over the names and bytes of a model folder's configuration, tokenizer and weights."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.is_file() and path.suffix in _DIGESTED and not any(part in _SKIPPED for part in relative.parts):
            digest.update(f"{relative.as_posix()}|{sha256_file(path)}|".encode())
    return f"sha256:{digest.hexdigest()}"


def _load_model(folder: Path, request: EncoderRequest, device: str) -> Any:
    library = require("sentence_transformers", extra="st")
    require("transformers", extra="st").utils.logging.disable_progress_bar()
    try:
        return library.SentenceTransformer(str(folder), device=device, local_files_only=True)
    except Exception as error:
        raise not_loadable(request, error) from error


def _download(request: EncoderRequest) -> Path:
    hub = require("huggingface_hub", extra="st")
    try:
        return Path(hub.snapshot_download(request.argument, ignore_patterns=["onnx/*", "openvino/*", "*.h5", "*.ot"]))
    except Exception as error:
        raise not_loadable(request, error) from error


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
