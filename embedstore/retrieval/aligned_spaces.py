"""Spaces that an aligner makes out of stored ones: read like any other, computed as they are read, stored nowhere.

The wiring of stores and aligners that search needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from embedstore._core.atomic_files import read_json
from embedstore._core.encoding import open_sealed
from embedstore._core.keys import Keys
from embedstore._core.pieces import Pieces
from embedstore.errors import EmbedstoreError
from embedstore.spec import EncoderSpec
from embedstore.store import Space, Store
from embedstore.store.format import HEAD, HEADS, PartRef
from embedstore.store.parts import row_numbers
from embedstore.store.raw_vectors import RawVectors

__all__ = ["ProjectedSpace", "SearchableSpace", "projected_name", "query_space", "skipped_aligners", "spaces_of"]

if TYPE_CHECKING:
    from embedstore.heads.aligner_io import AlignRecord

Array = npt.NDArray[Any]
Rows = npt.NDArray[np.int64]
Float = npt.NDArray[np.float32]

BLOCK = 65536


class SearchableSpace(Protocol):
    """What search asks of a space; `Space` and `ProjectedSpace` both have it."""

    @property
    def name(self) -> str: ...
    @property
    def root(self) -> Path: ...
    @property
    def spec(self) -> EncoderSpec: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def dim(self) -> int: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def rows(self) -> Rows: ...
    @property
    def hashes(self) -> Keys: ...
    def __len__(self) -> int: ...
    def vectors(self) -> Array: ...
    def blocks(self, size: int = BLOCK) -> Iterator[Array]: ...
    def has(self, rows: Rows) -> npt.NDArray[np.bool_]: ...
    def take(self, rows: Rows) -> Array: ...
    def hash_of(self, rows: Rows) -> Keys: ...
    @property
    def unit(self) -> str | None: ...
    def pieces_of(self, rows: Rows) -> Pieces: ...
    @property
    def raw_parts(self) -> tuple[PartRef, ...]: ...
    @property
    def index_folder(self) -> Path: ...
    @property
    def raw(self) -> RawVectors | ProjectedRaw: ...
    @property
    def raw_rows(self) -> Rows: ...
    @property
    def live(self) -> npt.NDArray[np.bool_] | None: ...


class ProjectedSpace:
    """One side of an aligner over the space it was fitted on. Rows, order and hashes are those of the stored space.

    Parameters
    ----------
    base : Space
        Whose encoder makes what `project_query` takes.
    record : AlignRecord
    """

    def __init__(self, base: Space, record: AlignRecord) -> None:
        self.base = base
        self._record = record

    def __repr__(self) -> str:
        return f"<ProjectedSpace {self.name!r}: {len(self)} vectors of {self.dim} float32 by {self.spec.label}>"

    @property
    def name(self) -> str:
        return projected_name(self._record.name, self.base.name)

    @property
    def head(self) -> str:
        """The aligner's name."""
        return self._record.name

    @property
    def root(self) -> Path:
        """The store's folder."""
        return self.base.root

    @cached_property
    def fitted_on(self) -> Rows:
        """Rows of the pairs that the aligner was fitted on: it knows them, so they say nothing about how good it is."""
        from embedstore.heads.io import read_split

        table = read_split(self._record.split, self.head)
        fitted = np.asarray(table.column("split").to_pylist()) != "test"
        return row_numbers(table)[np.flatnonzero(fitted)]

    @cached_property
    def spec(self) -> EncoderSpec:
        """The base encoder followed by the projection; the fingerprint is of both."""
        base = self.base.spec
        return EncoderSpec(
            name=f"{base.name} aligned by {self._record.name}",
            family="align",
            model=self._record.head.loss_ or "cca",
            weights=f"sha256:{self._record.weights_digest(self.base.name)}",
            modality=base.modality,
            dim=self._record.head.dim_,
            preprocessing={"encoder": base.fingerprint},
            normalized=True,
            alignment=self._record.alignment,
        )

    @property
    def fingerprint(self) -> str:
        return self.spec.fingerprint

    @property
    def dim(self) -> int:
        return self._record.head.dim_

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.float32)

    def __len__(self) -> int:
        return len(self.base)

    @property
    def rows(self) -> Rows:
        """Row (n,) int64 of each vector, in the order of `vectors`."""
        return self.base.rows

    @property
    def hashes(self) -> Keys:
        """Content hash (n, 2) uint64 of the payload each vector was made from, in the order of `vectors`."""
        return self.base.hashes

    def vectors(self) -> Float:
        """All vectors (n, dim), in the order of `rows`."""
        return np.concatenate([np.empty((0, self.dim), np.float32), *self.blocks()])

    def blocks(self, size: int = BLOCK) -> Iterator[Float]:
        """The vectors in order, in blocks of at most `size` rows."""
        for block in self.base.blocks(size):
            yield self.project_query(block)

    def has(self, rows: Rows) -> npt.NDArray[np.bool_]:
        """Whether each of `rows` (m,) has a vector here."""
        return self.base.has(rows)

    def take(self, rows: Rows) -> Float:
        """Vectors (m, dim) of `rows` (m,), which must all be here (see `has`)."""
        return self.project_query(self.base.take(rows))

    def hash_of(self, rows: Rows) -> Keys:
        """Content hashes (m, 2) of `rows` (m,); zeros where there is no vector."""
        return self.base.hash_of(rows)

    @property
    def unit(self) -> str | None:
        """What items have several vectors of; None where they have one."""
        return self.base.unit

    def pieces_of(self, rows: Rows) -> Pieces:
        """What search compares of `rows` (k,): see `Space.pieces_of`."""
        pieces = self.base.pieces_of(rows)
        return replace(pieces, vectors=self.project_query(pieces.vectors))

    @property
    def raw_parts(self) -> tuple[PartRef, ...]:
        """The committed files of `raw` of the space underneath."""
        return self.base.raw_parts

    @property
    def index_folder(self) -> Path:
        """Where an index over this space lives: beside the aligner."""
        return self.root / HEADS / self.head / f"index-{self.base.name}"

    @property
    def raw(self) -> ProjectedRaw:
        """Every vector ever committed, projected, at positions that never change."""
        return ProjectedRaw(self)

    @property
    def raw_rows(self) -> Rows:
        """Row (n,) int64 of each position of `raw`."""
        return self.base.raw_rows

    @property
    def live(self) -> npt.NDArray[np.bool_] | None:
        """Which positions of `raw` (n,) are not removed; None where none is."""
        return self.base.live

    @property
    def projection(self) -> tuple[Float, Float]:
        """What `project_query` does with unit vectors (m, d): the mean (d,) that is taken away, and the weight (d, dim)."""
        head, side = self._record.head, self.base.name
        return head.mean_[side], head.weight_[side]

    def project_query(self, vectors: Array) -> Float:
        """Vectors of the base encoder, (d,) or (m, d), in this space: (dim,) or (m, dim) float32 of unit length.

        Raises
        ------
        HeadError
            Another width, or values that are not finite.
        """
        vectors = np.asarray(vectors)
        projected = self._record.head.project(self.base.name, np.atleast_2d(vectors))
        return projected[0] if vectors.ndim == 1 else projected


class ProjectedRaw:
    """The raw vectors of a projected space, as an index reads them."""

    def __init__(self, space: ProjectedSpace) -> None:
        self._space = space

    def __len__(self) -> int:
        return len(self._space.base.raw)

    @property
    def dim(self) -> int:
        return self._space.dim

    def blocks(self, size: int = 16384) -> Iterator[Float]:
        """All vectors in order, at most `size` rows at a time."""
        for block in self._space.base.raw.blocks(size):
            yield self._space.project_query(block)

    def take(self, positions: Rows) -> Float:
        """Vectors (m, dim) at `positions` (m,)."""
        return self._space.project_query(self._space.base.raw.take(positions))

    def array(self) -> Float:
        """All of them (n, dim), in memory."""
        return np.concatenate([np.empty((0, self.dim), np.float32), *self.blocks()])


def projected_name(head: str, side: str) -> str:
    """The name of one side of the aligner `head`, such as ``"aligned.image"``."""
    return f"{head}.{side}"


def spaces_of(store: Store) -> dict[str, Space | ProjectedSpace]:
    """Every space that can be searched: those stored first, then the two sides of each aligner that still fits them."""
    return _with_projected(store)[0]


def skipped_aligners(store: Store) -> dict[str, str]:
    """Aligners that `spaces_of` leaves out: name → one line that says why and what to do."""
    return _with_projected(store)[1]


def query_space(spaces: Mapping[str, SearchableSpace], target: SearchableSpace, modality: str) -> SearchableSpace | None:
    """The space whose encoder makes queries of `modality` that can be compared with the vectors of `target`.

    `target` itself where it is of that modality, else one that is aligned with it; None where there is none. Where it is a
    `ProjectedSpace`, a query is encoded by the encoder of its `base` and goes through its `project_query`.
    """
    if target.spec.modality == modality:
        return target
    if target.spec.alignment is None:
        return None
    aligned = (s for s in spaces.values() if s.spec.alignment == target.spec.alignment and s.spec.modality == modality)
    return next(aligned, None)


def _with_projected(store: Store) -> tuple[dict[str, Space | ProjectedSpace], dict[str, str]]:
    spaces: dict[str, Space | ProjectedSpace] = dict(store.spaces)
    skipped = {}
    for name in store.heads:
        folder = store.path / HEADS / name
        try:
            document = read_json(folder / HEAD, store.path)
            if open_sealed(document, "embedstore-head", str(folder / HEAD), "Train it again.").get("kind") != "align":
                continue
            from embedstore.heads.aligner_io import load_aligner  # heads are slow to import, and few stores are aligned

            record = load_aligner(folder)
        except EmbedstoreError as error:
            skipped[name] = str(error)
            continue
        sides = [projected_name(name, side) for side in record.inputs]
        if reason := _misfit(store, record, sides):
            skipped[name] = reason
            continue
        spaces.update({s: ProjectedSpace(store.spaces[side], record) for s, side in zip(sides, record.inputs, strict=True)})
    return spaces, skipped


def _misfit(store: Store, record: AlignRecord, sides: Sequence[str]) -> str | None:
    """Why the store's spaces are not those that the aligner was fitted on; None where they are."""
    again = f"Align again: embedstore align {store.path} --from {' --to '.join(record.inputs)} --name {record.name}"
    for side, spec in record.inputs.items():
        space = store.spaces.get(side)
        if space is None:
            return f"Head {record.name!r} aligns space {side!r}, which {store.path} does not have. {again}"
        if space.fingerprint != spec.fingerprint:
            return (
                f"Head {record.name!r} was fitted on {spec.label}; space {side!r} holds vectors of {space.spec.label}. {again}"
            )
    if taken := [side for side in sides if side in store.spaces]:
        return (
            f"Head {record.name!r} would make a space {taken[0]!r}, which is stored already. Align again with another --name."
        )
    return None
