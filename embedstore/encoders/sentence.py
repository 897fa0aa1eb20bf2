"""`st:MODEL`: any sentence-transformers model, from the hub or a local folder, in every modality that it takes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedstore.encoders.base import EncoderRequest, not_loadable, refuse_modality
from embedstore.encoders.cards import Card, matryoshka, read_config
from embedstore.encoders.media import USUAL_FRAMES, Films, Media, Messages, Sounds
from embedstore.encoders.missing_weights import none_missing
from embedstore.encoders.model_folders import folder_digest, model_folder
from embedstore.encoders.prompts import ITEMS, chosen_prompts, known_prompts
from embedstore.encoders.sentence_whole import SentenceEncoder, SentenceMedia
from embedstore.encoders.sound_encoder import Windowing
from embedstore.encoders.text_encoder import OVERLAP, TextEncoder
from embedstore.encoders.trust import no_code
from embedstore.errors import EmbedstoreError, EncoderError, UsageError
from embedstore.registry import refuse_older, require
from embedstore.spec import FILES, MESSAGE, MODALITIES, TEXT, EncoderSpec

if TYPE_CHECKING:
    import torch

_PACKED = ("bert", "roberta", "xlm-roberta")
_TASK = "feature-extraction"
LEAST = 6
"""sentence-transformers before this version runs Python files that lie in a model's folder."""
INSTEAD = "hf-audio:, clap: and vjepa2: load models that sentence-transformers does not."
SECONDS, USUAL_RATE = 10, 16_000
"""Of a window of sound, and samples of one second, where a model does not say."""
LEAST_OF_A_SECOND = 20
"""A last window that is shorter than this part of a second is left out."""
_UNUSUAL = ("do_lower_case", "processing_kwargs", "query_length", "document_length", "query_expansion")
"""Options of a transformer that sentence-transformers itself has to see to."""


def load(request: EncoderRequest) -> SentenceEncoder | TextEncoder:
    """st:ORG/NAME (hub) or st:FOLDER (local): any sentence-transformers model; texts, some also images, sounds, videos."""
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
    digest = folder_digest(folder)
    takes = [name for name in options.get("modality_config", {}) if name in MODALITIES]
    return EncoderSpec(
        name=request.name,
        family="st",
        model=str(model_type),
        weights=digest,
        modality="text",
        dim=int(dim) * len(modes),
        preprocessing=preprocessing,
        pooling="+".join(modes),
        prompt=prompt,
        query_prompt=query_prompt,
        max_length=int(max_length),
        normalized="Normalize" in kinds,
        alignment=_alignment(digest) if len(takes) > 1 else None,
    )


def _max_length(root: Path, config: Mapping[str, Any]) -> int | None:
    """What sentence-transformers 6 takes, which no longer writes it down."""
    given = [read_config(root / "tokenizer_config.json").get("model_max_length"), config.get("max_position_embeddings")]
    tokens = [int(length) for length in given if length]
    return min(tokens) if len(tokens) == 2 and min(tokens) > 0 else None


def _describe_loaded(folder: Path, request: EncoderRequest) -> SentenceEncoder:
    model = _load_model(folder, request, "cpu")
    takes = [m for m in model.modalities if m in MODALITIES]
    if request.modality != MESSAGE:
        refuse_modality(request, takes)
    media = _media(model, request)
    digest = folder_digest(folder)
    prompt, query_prompt = chosen_prompts(request, model.prompts)
    seen = request.modality == "text" or "message" in model.modalities
    task = _task(model) if request.recorded is None else request.recorded.preprocessing.get("task")
    made = {} if media is None else media.about()
    spec = EncoderSpec(
        name=request.name,
        family="st",
        model=type(model[0]).__name__,
        weights=digest,
        modality=request.modality,
        dim=int(model.get_embedding_dimension()),
        preprocessing={"processor": "model", **made} if task is None else {"processor": "model", **made, "task": task},
        pooling="model",
        prompt=prompt if seen else "",
        query_prompt=query_prompt,
        max_length=model.max_seq_length if request.modality == "text" else None,
        normalized=any(type(module).__name__ == "Normalize" for module in model),
        alignment=_alignment(digest) if len({*takes, request.modality}) > 1 else None,
    )
    if media is None:
        return SentenceEncoder(spec, model, request, task)
    return SentenceMedia(spec, model, request, task, media)


def _alignment(digest: str) -> str:
    """What the modalities of a model share."""
    return f"st:{digest.removeprefix('sha256:')[:16]}"


def _media(model: Any, request: EncoderRequest) -> Media | None:
    """What a model is given of a sound, a film or a message; None for texts and images, which it takes as they are."""
    if request.modality == "audio":
        return _sounds(model)
    if request.modality == "video":
        return _films(model)
    if request.modality == MESSAGE:
        whole = _takes_no_less(model, request)
        return Messages(request.parts, whole, _sounds(model), _films(model), request.max_pixels)
    return None


def _takes_no_less(model: Any, request: EncoderRequest) -> bool:
    """Whether the model takes messages of the request's parts only with all of them.

    Raises
    ------
    UsageError
        It takes none of these parts together.
    """
    kinds = [part if part in FILES else TEXT for part in request.parts]
    known = [kind for kind in model.modalities if isinstance(kind, str)]
    if "message" in known and all(kind in known for kind in kinds):
        form = getattr(getattr(model[0], "input_formatter", None), "message_format", "structured")
        if form == "flat" and kinds.count(TEXT) > 1:
            raise UsageError(f"Encoder {request.name!r} takes one text a message, not {kinds.count(TEXT)}.")
        return False
    if tuple(sorted(kinds)) in model.modalities:
        return True
    alone = "" if "message" in known else " alone"
    takes = [f"{kind}{alone}" for kind in known if kind in MODALITIES]
    takes += [" with ".join(kind) for kind in model.modalities if isinstance(kind, tuple)]
    wanted = " and ".join(dict.fromkeys(kinds))
    raise UsageError(f"Encoder {request.name!r} makes no vector of {wanted} together; it takes {', '.join(takes)}.")


def _sounds(model: Any) -> Sounds:
    extractor = _part(model, "feature_extractor", "sampling_rate")
    rate = int(getattr(extractor, "sampling_rate", USUAL_RATE))
    length = getattr(extractor, "nb_max_samples", None) or getattr(extractor, "n_samples", None) or SECONDS * rate
    return Sounds(Windowing(rate, int(length), rate // LEAST_OF_A_SECOND))


def _films(model: Any) -> Films:
    frames = getattr(getattr(model[0], "config", None), "frames_per_clip", None)
    return Films(int(frames or USUAL_FRAMES), always=frames is not None)


def _part(model: Any, name: str, having: str) -> Any:
    """The part of one of the model's processors that is called `name`, or a processor that is such a part; None: neither."""
    processors = [getattr(module, "processor", None) for module in model.modules()]
    parts = [getattr(processor, name, processor) for processor in processors]
    return next((part for part in parts if hasattr(part, having)), None)


def _task(model: Any) -> str | None:
    """``"document"`` where the model treats items and queries differently, by a router or by their length."""
    differs = any(type(part).__name__ == "Router" or getattr(part, "document_length", None) for part in model)
    return ITEMS[0] if differs else None


def _load_model(folder: Path, request: EncoderRequest, device: str) -> Any:
    library = require("sentence_transformers", extra="st")
    require("transformers", extra="st").utils.logging.disable_progress_bar()
    # texts and images have long been loaded without this look, and old checkpoints of theirs lack weights that are not used
    complete = nullcontext() if request.modality in ("text", "image") else none_missing(folder, INSTEAD)
    try:
        with no_code(), complete:
            return library.SentenceTransformer(str(folder), device=device, local_files_only=True, trust_remote_code=False)
    except EncoderError:
        raise
    except Exception as error:
        raise not_loadable(request, error) from error
