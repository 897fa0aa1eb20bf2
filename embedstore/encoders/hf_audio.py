"""`hf-audio:MODEL`: encoders of sounds that transformers loads, from the hub or a local folder.

wav2vec 2.0, HuBERT, WavLM and their kin take samples; their vector is the mean of all frames. Of Whisper it is the mean of the
encoder's frames that are not padding, of the Audio Spectrogram Transformer what the model itself pools.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedstore.encoders.base import EncoderRequest, refuse_modality
from embedstore.encoders.cards import Card, read_config
from embedstore.encoders.missing_weights import UNUSED, none_missing
from embedstore.encoders.model_folders import folder_digest, loaded, model_folder
from embedstore.encoders.payloads.sounds import Samples
from embedstore.encoders.piecewise import network
from embedstore.encoders.runtimes.base import Array
from embedstore.encoders.sound_encoder import SoundEncoder, Windowing
from embedstore.errors import EncoderError
from embedstore.spec import EncoderSpec

if TYPE_CHECKING:
    import torch

WAVES = (
    "wav2vec2", "wav2vec2-conformer", "hubert", "wavlm", "unispeech", "unispeech-sat", "data2vec-audio", "sew", "sew-d",
)  # fmt: skip
"""Kinds of models that take samples."""
WHISPER, AST = "whisper", "audio-spectrogram-transformer"
KINDS = (*WAVES, WHISPER, AST)

SECONDS = 10
"""Of a window of samples."""
LEAST = 400
"""Samples of the shortest window: what the convolutions of wav2vec 2.0 make one frame of."""
LEAST_OF_SEW = 720
"""It halves the frames."""


def load(request: EncoderRequest) -> SoundEncoder:
    """hf-audio:ORG/NAME (hub) or :FOLDER: wav2vec2, HuBERT, WavLM, Whisper's encoder, AST; sounds (extras audio and st)."""
    refuse_modality(request, ["audio"])
    folder = model_folder(request, "hf-audio:facebook/wav2vec2-base or hf-audio:./my-model")
    config = read_config(folder / "config.json")
    kind = config.get("model_type")
    if kind not in KINDS:
        way = f" Use clap:{request.argument}." if kind == "clap" else ""
        raise EncoderError(f"{folder} holds a model of kind {kind!r}; hf-audio: loads {', '.join(KINDS)}.{way}")
    extractor: Any = loaded(request, "AutoFeatureExtractor", folder)
    windowing = _windowing(kind, extractor)
    spec = EncoderSpec(
        name=request.name,
        family="hf-audio",
        model=kind,
        weights=folder_digest(folder),
        modality="audio",
        dim=int(config["d_model"] if kind == WHISPER else config["hidden_size"]),
        preprocessing={**windowing.to_dict(), "extractor": type(extractor).__name__},
        pooling="model" if kind == AST else "mean",
    )
    features = _whisper(extractor) if kind == WHISPER else _values(extractor)
    encoder = SoundEncoder(spec, windowing, features, lambda: _module(kind, folder, request), request)
    encoder.license = Card.read(folder).license
    return encoder


def _windowing(kind: str, extractor: Any) -> Windowing:
    rate = int(extractor.sampling_rate)
    if kind == WHISPER:
        return Windowing(rate, int(extractor.n_samples), int(extractor.hop_length) * 2)
    if kind == AST:  # as many frames of 25 ms every 10 ms as it takes
        return Windowing(rate, (int(extractor.max_length) - 1) * rate // 100 + rate // 40, rate // 40)
    return Windowing(rate, SECONDS * rate, LEAST_OF_SEW if kind in ("sew", "sew-d") else LEAST)


def _values(extractor: Any) -> Callable[[Samples], tuple[Array, ...]]:
    def features(window: Samples) -> tuple[Array, ...]:
        return (np.asarray(_called(extractor, window)["input_values"][0], np.float32),)

    return features


def _whisper(extractor: Any) -> Callable[[Samples], tuple[Array, ...]]:
    hop = 2 * int(extractor.hop_length)  # the encoder halves the frames

    def features(window: Samples) -> tuple[Array, ...]:
        spectrogram = np.asarray(_called(extractor, window)["input_features"][0], np.float32)
        frames = np.arange(spectrogram.shape[1] // 2) < -(-len(window) // hop)
        return spectrogram, (frames / frames.sum()).astype(np.float32)

    return features


def _called(extractor: Any, window: Samples) -> Mapping[str, Any]:
    found: Mapping[str, Any] = extractor(window, sampling_rate=extractor.sampling_rate, return_tensors="np")
    return found


def _module(kind: str, folder: Path, request: EncoderRequest) -> torch.nn.Module:
    with none_missing(folder, unused=(*UNUSED, "decoder.") if kind == WHISPER else UNUSED):
        model: Any = loaded(request, "WhisperModel" if kind == WHISPER else "AutoModel", folder)
    if kind == WHISPER:
        return network("WeighedFrames", model.encoder)
    return network("Pooled" if kind == AST else "Frames", model)
