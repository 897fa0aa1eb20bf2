"""Payloads through a network in pieces, in calls of one size, so that a vector does not depend on what else is in its batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from embedstore._core.unit import unit_each
from embedstore.encoders.base import EncoderRequest, Vectors
from embedstore.encoders.runtimes.base import Array, Model, Network, Pending
from embedstore.encoders.runtimes.choose import on_gpu, open_model
from embedstore.registry import version
from embedstore.spec import EncoderSpec

if TYPE_CHECKING:
    import torch

AT_ONCE = 16
"""Pieces that go through a GPU together, always: a batch that has fewer is filled up."""


class Prepared(NamedTuple):
    """A payload.

    Parameters
    ----------
    pieces : list of tuple of array
        What the network takes of each, without the axis of the batch.
    weights : (p,) float64
        The vector is the mean of theirs by weight.
    """

    pieces: list[tuple[Array, ...]]
    weights: Array


class PiecewiseEncoder:
    """Payloads through a network; the vector of one that is cut is the mean of its pieces' vectors, by weight.

    Pieces go through the network one by one on a CPU, and on a GPU in batches of one size.

    Parameters
    ----------
    spec : EncoderSpec
    prepared : callable
        What the network takes of a payload; called from threads.
    examples : callable
        Makes two pieces, whose arrays differ where the length of an axis varies.
    load : callable
        Makes the torch module, from arrays with the axis of the batch to (n, dim).
    request : EncoderRequest
    batch_size : int
    late : bool
        Payloads are prepared as they are encoded: what comes of one takes so much memory that few are to be held.
    """

    truncated = 0
    license: str | None = None

    def __init__(
        self,
        spec: EncoderSpec,
        prepared: Callable[[bytes], Prepared],
        examples: Callable[[], list[tuple[Array, ...]]],
        load: Callable[[], torch.nn.Module],
        request: EncoderRequest,
        *,
        batch_size: int,
        late: bool = False,
    ) -> None:
        self.spec = spec
        self.lanes = len(request.devices)
        self.batch_size = batch_size
        self._prepared = prepared
        self._pieces = examples
        self._load = load
        self._late = late
        exact = request.precision == "auto" and not on_gpu(request)  # windows of a pure tone drift to 0.9998 in bfloat16
        self._request = replace(request, precision="float32") if exact else request

    @property
    def network(self) -> Network:
        shapes = [
            (-1, *(a if a == b else -1 for a, b in zip(one.shape, other.shape, strict=True)))
            for one, other in zip(*self._pieces(), strict=True)
        ]
        return Network(self.spec.name, self.spec.fingerprint, self._load, tuple(shapes), self._examples)

    @cached_property
    def model(self) -> Model:
        return open_model(self.network, self._request)

    @cached_property
    def _at_once(self) -> int:
        return AT_ONCE if on_gpu(self._request) else 1

    def prepare(self, payload: bytes) -> Prepared | bytes:
        return payload if self._late else self._prepared(payload)

    def start(self, batch: Sequence[Prepared | bytes]) -> Pending:
        weights, found = self._started(batch)
        return lambda: self._means(weights, found())

    def encode(self, batch: Sequence[Prepared | bytes]) -> Vectors:
        return self.start(batch)()

    def _started(self, batch: Sequence[Prepared | bytes]) -> tuple[list[Array], Pending]:
        """The weights of each payload's pieces, and what waits for the vectors (m, dim) of all pieces."""
        found = [self._prepared(one) if isinstance(one, bytes) else one for one in batch]
        every = [piece for one in found for piece in one.pieces]
        begun = [(at, self.model.start(*inputs)) for at, inputs in self._calls(every)]

        def wait() -> Vectors:
            vectors = np.empty((len(every), self.spec.dim), np.float32)
            for at, pending in begun:
                vectors[at] = pending()[: len(at)]
            return vectors

        return [one.weights for one in found], wait

    def provenance(self) -> Mapping[str, str]:
        return {**self.model.provenance(), "transformers": version("transformers")}

    def _calls(self, every: Sequence[tuple[Array, ...]]) -> Iterator[tuple[list[int], list[Array]]]:
        """Positions of pieces of one shape, and the inputs of the network for them."""
        alike: dict[tuple[tuple[int, ...], ...], list[int]] = {}
        for i, piece in enumerate(every):
            alike.setdefault(tuple(array.shape for array in piece), []).append(i)
        for positions in alike.values():
            for lo in range(0, len(positions), self._at_once):
                at = positions[lo : lo + self._at_once]
                filled = [*at, *at[-1:] * (self._at_once - len(at))]
                yield at, [np.stack(arrays) for arrays in zip(*(every[i] for i in filled), strict=True)]

    def _means(self, weights_of: Sequence[Array], found: Vectors) -> Vectors:
        """Vectors (n, dim) of payloads from those of their pieces (m, dim)."""
        counts = [len(weights) for weights in weights_of]
        weights = np.concatenate(weights_of)[:, None]
        starts = np.cumsum([0, *counts[:-1]])
        sums = np.add.reduceat(found * weights, starts, axis=0)
        means = (sums / np.add.reduceat(weights, starts, axis=0)).astype(np.float32)
        if not self.spec.normalized:
            return means
        return unit_each(means)

    def _examples(self) -> list[tuple[Array, ...]]:
        return [tuple(np.stack([array] * self._at_once) for array in piece) for piece in self._pieces()]


def lone(*arrays: Any) -> Prepared:
    """A payload that is one piece."""
    return Prepared([arrays], np.ones(1))


def network(kind: str, *given: Any) -> torch.nn.Module:
    """The module of `embedstore.encoders.runtimes.media_networks` called `kind`, around a model of transformers."""
    from embedstore.encoders.runtimes import media_networks

    module: torch.nn.Module = getattr(media_networks, kind)(*given)
    return module
