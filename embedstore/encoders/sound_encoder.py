"""Sounds through a network, window by window: what the CLAP and Hugging Face audio encoders share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from embedstore._core.pieces import Pieces
from embedstore._core.unit import unit_each
from embedstore.encoders.base import EncoderRequest, Vectors
from embedstore.encoders.payloads.sounds import Samples, decode_sound, provenance, windows
from embedstore.encoders.runtimes.base import Array, Model, Network, Pending
from embedstore.encoders.runtimes.choose import on_gpu, open_model
from embedstore.registry import version
from embedstore.spec import EncoderSpec

if TYPE_CHECKING:
    import torch

AT_ONCE = 16
"""Windows that go through a GPU together, always: a batch that has fewer is filled up."""
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


class Prepared(NamedTuple):
    """A sound.

    Parameters
    ----------
    windows : list of tuple of array
        What the network takes of each window, without the axis of the batch.
    weights : (w,) float64
        Samples of each: the mean of their vectors is weighted by them.
    """

    windows: list[tuple[Array, ...]]
    weights: Array


class SoundEncoder:
    """Sounds through a network; the vector of a long one is the mean of its windows' vectors, weighted by their length.

    A vector does not depend on what else is in the batch: windows go through the network one by one on a CPU, and on a GPU
    in batches of one size.

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

    truncated = 0
    license: str | None = None
    batch_size = SOUNDS

    def __init__(
        self,
        spec: EncoderSpec,
        windowing: Windowing,
        features: Callable[[Samples], tuple[Array, ...]],
        load: Callable[[], torch.nn.Module],
        request: EncoderRequest,
    ) -> None:
        self.pieces = "window" if request.pieces else None
        self.spec = replace(spec, preprocessing={**spec.preprocessing, "pieces": self.pieces}) if self.pieces else spec
        self.lanes = len(request.devices)
        self._windowing = windowing
        self._features = features
        self._load = load
        exact = request.precision == "auto" and not on_gpu(request)  # windows of a pure tone drift to 0.9998 in bfloat16
        self._request = replace(request, precision="float32") if exact else request

    @property
    def network(self) -> Network:
        whole, short = (self._features(tone(n, self._windowing.rate)) for n in self._lengths)
        shapes = [
            (-1, *(a if a == b else -1 for a, b in zip(one.shape, other.shape, strict=True)))
            for one, other in zip(whole, short, strict=True)
        ]
        return Network(self.spec.name, self.spec.fingerprint, self._load, tuple(shapes), self._examples)

    @cached_property
    def model(self) -> Model:
        return open_model(self.network, self._request)

    @cached_property
    def _at_once(self) -> int:
        return AT_ONCE if on_gpu(self._request) else 1

    def prepare(self, payload: bytes) -> Prepared:
        cut = self._windowing.cut(payload)
        return Prepared([self._features(window) for window in cut], np.array([len(window) for window in cut], np.float64))

    def start(self, batch: Sequence[Prepared]) -> Pending:
        found = self._started(batch)
        return lambda: self._means(batch, found())

    def encode(self, batch: Sequence[Prepared]) -> Vectors:
        return self.start(batch)()

    def encode_pieces(self, batch: Sequence[Prepared]) -> tuple[Vectors, Pieces]:
        """Vectors (n, dim) of sounds, and those of their windows with their seconds."""
        found = self._started(batch)()
        counts = np.array([len(sound.windows) for sound in batch])
        ends = [np.cumsum(sound.weights) for sound in batch]
        places = [np.stack([end - sound.weights, end], axis=1) for sound, end in zip(batch, ends, strict=True)]
        pieces = unit_each(found) if self.spec.normalized else found
        return self._means(batch, found), Pieces(pieces, counts, np.concatenate(places) / self._windowing.rate)

    def _started(self, batch: Sequence[Prepared]) -> Pending:
        """Waits for the vectors (m, dim) of all windows."""
        every = [window for sound in batch for window in sound.windows]
        begun = [(at, self.model.start(*inputs)) for at, inputs in self._calls(every)]

        def wait() -> Vectors:
            found = np.empty((len(every), self.spec.dim), np.float32)
            for at, pending in begun:
                found[at] = pending()[: len(at)]
            return found

        return wait

    def provenance(self) -> Mapping[str, str]:
        return {**self.model.provenance(), **provenance(), "transformers": version("transformers")}

    def _calls(self, every: Sequence[tuple[Array, ...]]) -> Iterator[tuple[list[int], list[Array]]]:
        """Positions of windows of one shape, and the inputs of the network for them."""
        alike: dict[tuple[tuple[int, ...], ...], list[int]] = {}
        for i, window in enumerate(every):
            alike.setdefault(tuple(array.shape for array in window), []).append(i)
        for positions in alike.values():
            for lo in range(0, len(positions), self._at_once):
                at = positions[lo : lo + self._at_once]
                filled = [*at, *at[-1:] * (self._at_once - len(at))]
                yield at, [np.stack(arrays) for arrays in zip(*(every[i] for i in filled), strict=True)]

    def _means(self, batch: Sequence[Prepared], found: Vectors) -> Vectors:
        """Vectors (n, dim) of sounds from those of their windows (m, dim)."""
        counts = [len(sound.windows) for sound in batch]
        weights = np.concatenate([sound.weights for sound in batch])[:, None]
        starts = np.cumsum([0, *counts[:-1]])
        sums = np.add.reduceat(found * weights, starts, axis=0)
        means = (sums / np.add.reduceat(weights, starts, axis=0)).astype(np.float32)
        if not self.spec.normalized:
            return means
        return unit_each(means)

    @property
    def _lengths(self) -> tuple[int, int]:
        return self._windowing.length, max(self._windowing.least, self._windowing.length // 3)

    def _examples(self) -> list[tuple[Array, ...]]:
        return [
            tuple(np.stack([array] * self._at_once) for array in self._features(tone(length, self._windowing.rate)))
            for length in self._lengths
        ]


def network(kind: str, model: Any) -> torch.nn.Module:
    """The module of `embedstore.encoders.runtimes.sound_networks` called `kind`, around a model of transformers."""
    from embedstore.encoders.runtimes import sound_networks

    module: torch.nn.Module = getattr(sound_networks, kind)(model)
    return module


def tone(length: int, rate: int) -> Samples:
    """Samples (length,) of a rising tone with noise, always the same."""
    time = np.arange(length) / rate
    noise = np.random.default_rng(0).normal(0, 0.01, length)
    return np.asarray(0.3 * np.sin(2 * np.pi * (200 + 80 * time) * time) + noise, np.float32)
