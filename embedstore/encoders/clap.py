"""`clap:MODEL`: sounds and texts of one CLAP model, comparable with one another; from the hub or a local folder.

transformers draws a random crop of a sound that is longer than ten seconds. Here sounds are cut into windows of ten seconds,
of which each is encoded as transformers encodes a sound of that length.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedstore.encoders.base import EncoderRequest, refuse_modality
from embedstore.encoders.cards import Card, read_config
from embedstore.encoders.missing_weights import none_missing
from embedstore.encoders.model_folders import folder_digest, loaded, model_folder
from embedstore.encoders.payloads.sounds import Samples
from embedstore.encoders.piecewise import network
from embedstore.encoders.runtimes.base import Array
from embedstore.encoders.sound_encoder import SoundEncoder, Windowing
from embedstore.encoders.text_encoder import TextEncoder
from embedstore.errors import EncoderError
from embedstore.spec import EncoderSpec

if TYPE_CHECKING:
    import torch

MAY_LACK = {
    "audio": ("text_model.", "text_projection.", "logit_scale", "relative_position_index"),
    "text": ("audio_model.", "audio_projection.", "logit_scale", "position_ids", "token_type_ids"),
}
"""In names of what a side is not made of, and of what is counted up, not drawn."""
LONGEST = 512
"""Tokens of a text, where the tokenizer does not say."""


def load(request: EncoderRequest) -> SoundEncoder | TextEncoder:
    """clap:ORG/NAME (hub) or clap:FOLDER (local): sounds and texts of one model (extras audio and st)."""
    refuse_modality(request, ["audio", "text"])
    folder = model_folder(request, "clap:laion/clap-htsat-unfused or clap:./my-model")
    config = read_config(folder / "config.json")
    if config.get("model_type") != "clap":
        raise EncoderError(f"{folder} holds a model of kind {config.get('model_type')!r}, not 'clap'. Try hf-audio: or st:.")
    encoder = _sounds(folder, config, request) if request.modality == "audio" else _words(folder, config, request)
    encoder.license = Card.read(folder).license
    return encoder


def _sounds(folder: Path, config: Mapping[str, Any], request: EncoderRequest) -> SoundEncoder:
    extractor: Any = loaded(request, "AutoFeatureExtractor", folder)
    windowing = Windowing(int(extractor.sampling_rate), int(extractor.nb_max_samples), 1)
    made = {**windowing.to_dict(), "padding": extractor.padding, "truncation": extractor.truncation}
    spec = _spec(folder, config, request, made, None)
    return SoundEncoder(spec, windowing, _features(extractor), lambda: _tower(folder, request, "audio"), request)


def _features(extractor: Any) -> Callable[[Samples], tuple[Array, ...]]:
    def features(window: Samples) -> tuple[Array, ...]:
        found = extractor(window, sampling_rate=extractor.sampling_rate)
        return np.asarray(found["input_features"][0], np.float32), np.asarray(found["is_longer"][0], bool)

    return features


def _words(folder: Path, config: Mapping[str, Any], request: EncoderRequest) -> TextEncoder:
    if not (folder / "tokenizer.json").is_file():
        raise EncoderError(f"{folder} has no tokenizer.json, which clap: needs for texts.")
    said = read_config(folder / "tokenizer_config.json").get("model_max_length")
    longest = min(int(said), LONGEST) if isinstance(said, int | float) and said > 0 else LONGEST
    spec = _spec(folder, config, request, {"tokenizer": "tokenizer.json"}, longest)
    return TextEncoder(spec, folder, lambda left_out: _tower(folder, request, "text"), request)


def _spec(
    folder: Path, config: Mapping[str, Any], request: EncoderRequest, made: Mapping[str, Any], longest: int | None
) -> EncoderSpec:
    digest = folder_digest(folder)
    return EncoderSpec(
        name=request.name,
        family="clap",
        model="clap",
        weights=digest,
        modality=request.modality,
        dim=int(config.get("projection_dim", 512)),
        preprocessing=made,
        pooling="model",
        max_length=longest,
        normalized=True,
        alignment=f"clap:{digest.removeprefix('sha256:')[:16]}",
    )


def _tower(folder: Path, request: EncoderRequest, side: str) -> torch.nn.Module:
    """One side of the model; the other is let go of."""
    with none_missing(folder, unused=MAY_LACK[side]):
        model: Any = loaded(request, "ClapModel", folder)
    if side == "audio":
        del model.text_model, model.text_projection
        return network("ClapSounds", model)
    del model.audio_model, model.audio_projection
    return network("ClapWords", model)
