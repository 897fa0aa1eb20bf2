"""The leading numbers of a vector: what is left of an encoder's vectors when they are cut and brought to unit length again.

Matryoshka models are trained for that. Full vectors of a sample are kept, so that what is lost can be measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore._core.pieces import Pieces
from embedstore._core.unit import unit_rows
from embedstore.encoders.base import Encoder, EncoderRequest, Outside, Vectors, outside_of, pieces_of, prepare_all, stands_for
from embedstore.errors import UsageError

SAMPLE = 2000
"""Vectors whose full length is kept."""

QUERIES = 500
NEIGHBOURS = 10
SAME = 2e-6  # float32 sums in another order


class Cut:
    """An encoder whose vectors have `dim` numbers.

    Parameters
    ----------
    encoder : Encoder
        Of longer vectors.
    dim : int
    sample : Sample, optional
        Where full vectors are kept; a new one by default.
    """

    def __init__(self, encoder: Encoder, dim: int, sample: Sample | None = None) -> None:
        spec = encoder.spec
        self.encoder = encoder
        self.sample = sample or Sample()
        self.spec = replace(
            spec,
            dim=dim,
            normalized=True,
            preprocessing={**spec.preprocessing, "cut": {"of": spec.dim, "kept": dim}},
            query_prompt=spec.query_prompt,
            alignment=spec.alignment and f"{spec.alignment}@{dim}",
        )

    @property
    def batch_size(self) -> int:
        return self.encoder.batch_size

    @property
    def truncated(self) -> int:
        return self.encoder.truncated

    @property
    def license(self) -> str | None:
        return getattr(self.encoder, "license", None)

    @property
    def queries(self) -> Encoder:
        asked: Encoder = getattr(self.encoder, "queries", self.encoder)
        return self if asked is self.encoder else type(self)(asked, self.spec.dim, Sample(0))

    @property
    def outside(self) -> Outside | None:
        return outside_of(self.encoder)

    def prepare(self, payload: bytes) -> Any:
        return self.encoder.prepare(payload)

    def prepare_batch(self, payloads: Sequence[bytes]) -> list[Any]:
        return prepare_all(self.encoder, payloads)

    def cost(self, prepared: Any) -> int:
        cost: int = getattr(self.encoder, "cost", len)(prepared)
        return cost

    def encode(self, batch: Sequence[Any]) -> Vectors:
        return self._cut(self.encoder.encode(batch))

    @property
    def pieces(self) -> str | None:
        return pieces_of(self.encoder)

    def encode_pieces(self, batch: Sequence[Any]) -> tuple[Vectors, Pieces]:
        vectors, pieces = self.encoder.encode_pieces(batch)  # type: ignore[attr-defined]
        return self._cut(vectors), replace(pieces, vectors=cut(pieces.vectors, self.spec.dim))

    def provenance(self) -> Mapping[str, str]:
        return self.encoder.provenance()

    def _cut(self, full: Vectors) -> Vectors:
        self.sample.add(full)
        return cut(full, self.spec.dim)


class StartingCut(Cut):
    """One of an encoder that can begin a batch before the last one is done."""

    @property
    def lanes(self) -> int:
        return getattr(self.encoder, "lanes", 1)

    def start(self, batch: Sequence[Any]) -> Any:
        begun = self.encoder.start(batch)  # type: ignore[attr-defined]
        return lambda: self._cut(begun())


class Sample:
    """At most `size` of the vectors (n, dim) that were added, each as likely as any other."""

    def __init__(self, size: int = SAMPLE) -> None:
        self._size = size
        self._seen = 0
        self._kept: list[Vectors] = []
        self._rng = np.random.default_rng(0)

    def add(self, vectors: Vectors) -> None:
        fresh = vectors[: max(0, self._size - self._seen)]
        self._kept += [row.copy() for row in fresh]
        self._seen += len(fresh)
        for row in vectors[len(fresh) :] if self._size else ():
            self._seen += 1
            if (place := int(self._rng.integers(self._seen))) < self._size:
                self._kept[place] = row.copy()

    @property
    def vectors(self) -> Vectors:
        return np.stack(self._kept) if self._kept else np.empty((0, 0), np.float32)


def cut(full: Vectors, dim: int) -> Vectors:
    """The first `dim` numbers of vectors (n, d), of unit length."""
    return unit_rows(full[:, :dim])


def neighbours_kept(full: Vectors, dim: int) -> npt.NDArray[np.float64]:
    """Which share (m,) of its ten nearest neighbours among vectors (n, d) each of a few still finds when all are cut to `dim`.

    A neighbour counts as found when its full cosine is no worse than the tenth best: those that tie are equally near. Empty
    where there are too few vectors to tell.
    """
    if len(full) <= 2 * NEIGHBOURS:
        return np.empty(0)
    asked = np.linspace(0, len(full) - 1, min(QUERIES, len(full))).astype(np.int64)
    scores = []
    for vectors in (cut(full, full.shape[1]), cut(full, dim)):
        cosines = vectors[asked] @ vectors.T
        cosines[np.arange(len(asked)), asked] = -np.inf  # itself
        scores.append(cosines)
    exact, short = scores
    tenth = np.partition(exact, -NEIGHBOURS, axis=1)[:, -NEIGHBOURS]
    found = np.argpartition(short, -NEIGHBOURS, axis=1)[:, -NEIGHBOURS:]
    right = np.take_along_axis(exact, found, axis=1) >= tenth[:, None] - SAME
    return np.asarray(right.mean(axis=1), np.float64)


def shortened(encoder: Encoder, request: EncoderRequest, dim: int | None) -> Encoder:
    """`encoder` with vectors of `dim` numbers, or of as many as the model or the store says.

    Raises
    ------
    UsageError
        More than there are, or a length that the model does not declare.
    """
    declared: tuple[int, ...] | None = getattr(encoder, "matryoshka", None)
    if dim is not None and request.recorded is None:
        _check(request, encoder.spec.dim, dim, declared)
    if dim is None and request.recorded is not None:
        dim = request.recorded.preprocessing.get("cut", {}).get("kept")
    elif dim is None:
        dim = getattr(encoder, "keeps", None)
    if dim is None or dim >= encoder.spec.dim:
        return encoder
    return (StartingCut if stands_for(encoder, "start", "encode") else Cut)(encoder, dim)


def _check(request: EncoderRequest, full: int, dim: int, declared: tuple[int, ...] | None) -> None:
    if not 1 <= dim <= full:
        raise UsageError(f"Encoder {request.name!r} makes vectors of {full} numbers; @{dim} should lie between 1 and {full}.")
    if request.force or dim == full:
        return
    if declared is None:
        raise UsageError(
            f"Encoder {request.name!r}: the model does not say that its vectors of {full} numbers may be cut to {dim} (no "
            "Matryoshka training in its configuration or model card). Leave out "
            f"@{dim}, or cut it all the same: --force; the recall that is lost is measured."
        )
    if declared and dim not in declared:
        raise UsageError(
            f"Encoder {request.name!r}: the model was trained to be cut to {', '.join(map(str, sorted(declared)))} numbers, "
            f"not to {dim}. Take one of them, or cut it all the same: --force; the recall that is lost is measured."
        )
