"""`vjepa2:MODEL`: videos through V-JEPA 2, from the hub or a local folder; the mean of its encoder's tokens."""

from __future__ import annotations

from typing import Any

from embedstore.encoders.base import EncoderRequest, refuse_modality
from embedstore.encoders.cards import Card, read_config
from embedstore.encoders.film_frames import FilmFrames
from embedstore.encoders.missing_weights import none_missing
from embedstore.encoders.model_folders import folder_digest, loaded, model_folder
from embedstore.encoders.piecewise import PiecewiseEncoder, network
from embedstore.errors import EncoderError
from embedstore.spec import EncoderSpec

FILMS = 4
"""A good number for one `encode`."""


def load(request: EncoderRequest) -> PiecewiseEncoder:
    """vjepa2:ORG/NAME (hub) or vjepa2:FOLDER: V-JEPA 2; videos (extras video and st)."""
    refuse_modality(request, ["video"])
    folder = model_folder(request, "vjepa2:facebook/vjepa2-vitl-fpc64-256 or vjepa2:./my-model")
    config = read_config(folder / "config.json")
    if config.get("model_type") != "vjepa2":
        raise EncoderError(f"{folder} holds a model of kind {config.get('model_type')!r}, not 'vjepa2'. Try st: or frames:.")
    frames = FilmFrames(loaded(request, "AutoVideoProcessor", folder), int(config.get("frames_per_clip", 64)), always=True)

    def module() -> Any:
        with none_missing(folder):
            model = loaded(request, "VJEPA2Model", folder)
        del model.predictor
        return network("FilmTokens", model, *frames.normal)

    spec = EncoderSpec(
        name=request.name,
        family="vjepa2",
        model="vjepa2",
        weights=folder_digest(folder),
        modality="video",
        dim=int(config.get("hidden_size", 1024)),
        preprocessing=frames.about(),
        pooling="mean",
    )
    encoder = PiecewiseEncoder(spec, frames.prepared, frames.examples, module, request, batch_size=FILMS, late=True)
    encoder.license = Card.read(folder).license
    return encoder
