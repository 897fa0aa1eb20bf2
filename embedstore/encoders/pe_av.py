"""`pe-av:MODEL`: Perception Encoder Audiovisual: sounds, videos and texts of one model; from the hub or a local folder.

The model has a text head for sounds, one for videos and one for both together. A query has the head of what it looks for; texts
that are embedded have the one for both, and are compared with texts alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedstore.encoders.base import EncoderRequest, refuse_modality
from embedstore.encoders.cards import Card, read_config
from embedstore.encoders.film_frames import FilmFrames
from embedstore.encoders.media import USUAL_FRAMES
from embedstore.encoders.missing_weights import none_missing
from embedstore.encoders.model_folders import folder_digest, loaded, model_folder
from embedstore.encoders.payloads.sounds import Samples
from embedstore.encoders.piecewise import PiecewiseEncoder, network
from embedstore.encoders.runtimes.base import Array
from embedstore.encoders.sound_encoder import SoundEncoder, Windowing
from embedstore.encoders.text_encoder import TextEncoder
from embedstore.errors import EncoderError
from embedstore.spec import EncoderSpec

if TYPE_CHECKING:
    import torch

SECONDS = 10
"""Of a window of sound."""
FILMS = 4
LONGEST = 512
"""Tokens of a text, where the tokenizer does not say."""
HEADS = {"audio": "text_audio_head", "video": "text_video_head"}
"""Of texts that look for something; `BOTH` of others."""
BOTH = "text_audio_video_head"


def load(request: EncoderRequest) -> PiecewiseEncoder | TextEncoder:
    """pe-av:ORG/NAME (hub) or pe-av:FOLDER: Perception Encoder; sounds, videos, texts (extras audio, video and st)."""
    refuse_modality(request, ["audio", "video", "text"])
    folder = model_folder(request, "pe-av:facebook/pe-av-base or pe-av:./my-model")
    config = read_config(folder / "config.json")
    if config.get("model_type") != "pe_audio_video":
        kind = config.get("model_type")
        raise EncoderError(f"{folder} holds a model of kind {kind!r}, not 'pe_audio_video'. Try st: or clap:.")
    encoder = _encoder(folder, config, request)
    encoder.license = Card.read(folder).license
    return encoder


def _encoder(folder: Path, config: Mapping[str, Any], request: EncoderRequest) -> PiecewiseEncoder | TextEncoder:
    if request.modality == "text":
        return _words(folder, config, request)
    return (_sounds if request.modality == "audio" else _films)(folder, config, request)


def _sounds(folder: Path, config: Mapping[str, Any], request: EncoderRequest) -> SoundEncoder:
    extractor: Any = loaded(request, "PeAudioFeatureExtractor", folder)
    rate = int(extractor.sampling_rate)
    windowing = Windowing(rate, SECONDS * rate, int(extractor.hop_length))

    def features(window: Samples) -> tuple[Array, ...]:
        found = extractor(window, sampling_rate=rate, return_tensors="np")
        return (np.asarray(found["input_values"][0], np.float32),)

    def module() -> torch.nn.Module:
        return network("PeSounds", _model(folder, request).audio_model)

    spec = _spec(folder, config, request, {**windowing.to_dict(), "hop": int(extractor.hop_length)})
    return SoundEncoder(spec, windowing, features, module, request)


def _films(folder: Path, config: Mapping[str, Any], request: EncoderRequest) -> PiecewiseEncoder:
    processor = loaded(request, "PeVideoVideoProcessor", folder)
    frames = FilmFrames(processor, int(getattr(processor, "num_frames", None) or USUAL_FRAMES), always=False)

    def module() -> torch.nn.Module:
        return network("PeFilms", _model(folder, request).video_model, *frames.normal)

    spec = _spec(folder, config, request, frames.about())
    return PiecewiseEncoder(spec, frames.prepared, frames.examples, module, request, batch_size=FILMS, late=True)


def _words(folder: Path, config: Mapping[str, Any], request: EncoderRequest) -> TextEncoder:
    if not (folder / "tokenizer.json").is_file():
        raise EncoderError(f"{folder} has no tokenizer.json, which pe-av: needs for texts.")
    wanted = request.recorded.modality if request.recorded is not None else "text"
    head = HEADS.get(wanted, BOTH)
    said = read_config(folder / "tokenizer_config.json").get("model_max_length")
    longest = min(int(said), LONGEST) if isinstance(said, int | float) and said > 0 else LONGEST

    def module(left_out: int) -> torch.nn.Module:
        model = _model(folder, request)
        owner = {HEADS["audio"]: model.audio_model, HEADS["video"]: model.video_model}.get(head, model)
        return network("PeWords", model.text_model, getattr(owner, head))

    made = {"tokenizer": "tokenizer.json", "head": head}
    return TextEncoder(_spec(folder, config, request, made, longest, own=head == BOTH), folder, module, request)


def _spec(
    folder: Path,
    config: Mapping[str, Any],
    request: EncoderRequest,
    made: Mapping[str, Any],
    longest: int | None = None,
    *,
    own: bool = False,
) -> EncoderSpec:
    digest = folder_digest(folder)
    return EncoderSpec(
        name=request.name,
        family="pe-av",
        model="pe_audio_video",
        weights=digest,
        modality=request.modality,
        dim=int(config.get("text_config", {}).get("hidden_size", 1024)),
        preprocessing=made,
        pooling="model",
        max_length=longest,
        alignment=None if own else f"pe-av:{digest.removeprefix('sha256:')[:16]}",
    )


def _model(folder: Path, request: EncoderRequest) -> Any:
    with none_missing(folder):
        return loaded(request, "PeAudioVideoModel", folder)
