"""Torch modules around transformers' own models of sounds: what a window is in, vectors out."""

from __future__ import annotations

from typing import Any

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
