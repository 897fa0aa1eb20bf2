"""Sounds through a network, window by window: what the CLAP and Hugging Face audio encoders share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from embedstore._core.pieces import Pieces
from embedstore._core.unit import unit_each
from embedstore.encoders.base import EncoderRequest, Vectors
from embedstore.encoders.payloads.sounds import Samples, decode_sound, provenance, windows
from embedstore.encoders.piecewise import PiecewiseEncoder, Prepared
from embedstore.encoders.runtimes.base import Array
from embedstore.spec import EncoderSpec

if TYPE_CHECKING:
    import torch

SOUNDS = 8
"""A good number of sounds for one `encode`: their windows are held in memory."""


@dataclass(frozen=True)
class Windowing:
    """How sounds are cut.

    Parameters
    ----------
    rate : int
        Samples a second.
    length : int
        Samples of a window.
    least : int
        A shorter last window is left out; a shorter sound is padded with zeros.
    """

    rate: int
    length: int
    least: int

    def cut(self, payload: bytes) -> list[Samples]:
        """The windows of a sound file's bytes.

        Raises
        ------
        PayloadError
        """
        return windows(decode_sound(payload, self.rate), self.length, self.least)

    def to_dict(self) -> dict[str, Any]:
        return {"rate": self.rate, "mix": "mean", "window": self.length, "least": self.least}


class SoundEncoder(PiecewiseEncoder):
    """Sounds through a network; the vector of a long one is the mean of its windows' vectors, weighted by their length.

    Parameters
    ----------
    spec : EncoderSpec
    windowing : Windowing
    features : callable
        What the network takes of the samples (m,) of a window: arrays without the axis of the batch. Called from threads.
    load : callable
        Makes the torch module, from arrays with that axis to (n, dim).
    request : EncoderRequest
    """

    def __init__(
        self,
        spec: EncoderSpec,
        windowing: Windowing,
        features: Callable[[Samples], tuple[Array, ...]],
        load: Callable[[], torch.nn.Module],
        request: EncoderRequest,
    ) -> None:
        def prepared(payload: bytes) -> Prepared:
            cut = windowing.cut(payload)
            return Prepared([features(window) for window in cut], np.array([len(window) for window in cut], np.float64))

        def examples() -> list[tuple[Array, ...]]:
            lengths = windowing.length, max(windowing.least, windowing.length // 3)
            return [features(tone(length, windowing.rate)) for length in lengths]

        self.pieces = "window" if request.pieces else None
        self._rate = windowing.rate
        spec = replace(spec, preprocessing={**spec.preprocessing, "pieces": self.pieces}) if self.pieces else spec
        super().__init__(spec, prepared, examples, load, request, batch_size=SOUNDS)

    def encode_pieces(self, batch: Sequence[Prepared | bytes]) -> tuple[Vectors, Pieces]:
        """Vectors (n, dim) of sounds, and those of their windows with their seconds."""
        weights, waiting = self._started(batch)
        found = waiting()
        ends = [np.cumsum(of_one) for of_one in weights]
        places = [np.stack([end - length, end], axis=1) for length, end in zip(weights, ends, strict=True)]
        counts = np.array([len(of_one) for of_one in weights])
        pieces = Pieces(unit_each(found) if self.spec.normalized else found, counts, np.concatenate(places) / self._rate)
        return self._means(weights, found), pieces

    def provenance(self) -> Mapping[str, str]:
        return {**super().provenance(), **provenance()}


def tone(length: int, rate: int) -> Samples:
    """Samples (length,) of a rising tone with noise, always the same."""
    time = np.arange(length) / rate
    noise = np.random.default_rng(0).normal(0, 0.01, length)
    return np.asarray(0.3 * np.sin(2 * np.pi * (200 + 80 * time) * time) + noise, np.float32)
