"""Torch modules around transformers' own models of sounds, films and images: what a piece is in, vectors out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class _Around(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model


class Frames(_Around):
    """Samples (n, m) through a model of frames; their mean (n, dim)."""

    def forward(self, samples: Tensor) -> Tensor:
        return self.model(samples).last_hidden_state.mean(dim=1)  # type: ignore[no-any-return]


class WeighedFrames(_Around):
    """Spectrograms (n, bands, f) and weights (n, f / 2) of the encoder's frames; their weighted sum (n, dim)."""

    def forward(self, spectrograms: Tensor, weights: Tensor) -> Tensor:
        frames = self.model(spectrograms).last_hidden_state
        return (frames * weights.to(frames.dtype)[:, :, None]).sum(dim=1)  # type: ignore[no-any-return]


class Pooled(_Around):
    """Spectrograms (n, f, bands) through a model that pools by itself."""

    def forward(self, spectrograms: Tensor) -> Tensor:
        return self.model(spectrograms).pooler_output  # type: ignore[no-any-return]


class ClapSounds(_Around):
    """Spectrograms (n, 1 or 4, f, bands) and whether they are of a longer sound (n, 1) through CLAP's sound tower."""

    def forward(self, spectrograms: Tensor, longer: Tensor) -> Tensor:
        return self.model.get_audio_features(spectrograms, is_longer=longer).pooler_output  # type: ignore[no-any-return]


class ClapWords(_Around):
    """Token ids and mask (n, length) through CLAP's text tower."""

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.model.get_text_features(input_ids=ids, attention_mask=mask).pooler_output  # type: ignore[no-any-return]


class NaflexImages(_Around):
    """Patches (n, p, values), which of them are there (n, p), and rows and columns (n, 2) through SigLIP2's image tower."""

    def forward(self, patches: Tensor, there: Tensor, shapes: Tensor) -> Tensor:
        return self.model.get_image_features(patches, there, shapes).pooler_output  # type: ignore[no-any-return]


class NaflexWords(_Around):
    """Token ids and mask (n, length) through SigLIP2's text tower, which was trained on padded texts of one length."""

    def __init__(self, model: Any, length: int, padding: int, left: bool) -> None:
        super().__init__(model)
        self.length, self.padding, self.left = length, padding, left

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        lengths = mask.sum(dim=1, keepdim=True)
        at = torch.arange(self.length, device=ids.device)[None] - (self.length - lengths if self.left else 0 * lengths)
        there = (at >= 0) & (at < lengths)
        ids = torch.where(there, ids.gather(1, at.clamp(0, ids.shape[1] - 1)), self.padding)
        return self.model.get_text_features(input_ids=ids).pooler_output  # type: ignore[no-any-return]


class FilmTokens(_Around):
    """Frames (n, t, 3, h, w) uint8 through V-JEPA 2's encoder; the mean (n, dim) of all tokens."""

    def __init__(self, model: Any, mean: list[float], std: list[float]) -> None:
        super().__init__(model)
        self.normal = _Normal(mean, std)

    def forward(self, frames: Tensor) -> Tensor:
        found = self.model(pixel_values_videos=self.normal(frames), skip_predictor=True)
        return found.last_hidden_state.mean(dim=1)  # type: ignore[no-any-return]


class PeSounds(_Around):
    """Samples (n, 1, m) through the sound tower of a Perception Encoder."""

    def forward(self, samples: Tensor) -> Tensor:
        return self.model.audio_head(self.model.audio_encoder(samples).pooler_output)  # type: ignore[no-any-return]


class PeFilms(_Around):
    """Frames (n, t, 3, h, w) uint8 through the film tower of a Perception Encoder."""

    def __init__(self, model: Any, mean: list[float], std: list[float]) -> None:
        super().__init__(model)
        self.normal = _Normal(mean, std)

    def forward(self, frames: Tensor) -> Tensor:
        return self.model.video_head(self.model.video_encoder(self.normal(frames)).pooler_output)  # type: ignore[no-any-return]


class PeWords(_Around):
    """Token ids and mask (n, length) through the text tower of a Perception Encoder, and one of its heads."""

    def __init__(self, model: Any, head: nn.Module) -> None:
        super().__init__(model)
        self.head = head

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        found = self.model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
        return self.head(found.hidden_states[-1][:, 0])  # type: ignore[no-any-return]


class _Normal(nn.Module):
    """Pixels (…, 3, h, w) uint8 as the numbers that a model was trained on."""

    def __init__(self, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.tensor(mean)[:, None, None], requires_grad=False)
        self.std = nn.Parameter(torch.tensor(std)[:, None, None], requires_grad=False)

    def forward(self, pixels: Tensor) -> Tensor:
        return (pixels.to(self.mean.dtype) - self.mean) / self.std
