"""Ready-made vectors of which an item has several: pieces and their mean become one commit."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from embedstore._core.keys import Keys, hash_payload, keys_from_bytes
from embedstore._core.pieces import Pieces
from embedstore._core.unit import unit_rows
from embedstore.encoders.names import EncoderName
from embedstore.ingest.importer import State, VectorImporter, rows_a_part
from embedstore.ingest.pack import Packed, pack
from embedstore.sources.vectors.arrays import Block
from embedstore.sources.vectors.piece_columns import PieceRows, PieceVectors
from embedstore.spec import EncoderSpec
from embedstore.store.space import Space
from embedstore.store.writer import NewVectors

if TYPE_CHECKING:
    import pyarrow as pa

Rows = npt.NDArray[np.int64]

LEAST_ROWS = 16
"""Of a part: an item may have a thousand pieces."""
PLACE_BYTES = 16
UNITS = {"frames": "frame", "clap": "window", "hf-audio": "window", "colbert": "token"}
"""Encoder family → what it makes several vectors of."""


def unit_of(spec: EncoderSpec) -> str:
    """The word for one of several vectors of an item: what the declared encoder calls it, where its name says that."""
    family = EncoderName.parse(spec.name).family
    return "patch" if (family, spec.modality) == ("colbert", "image") else UNITS.get(family, "vector")


@dataclass(frozen=True, kw_only=True)
class PackedPieces(Packed):
    """Rows of one block that have several vectors each, as they are stored; `vectors` are their means.

    Parameters
    ----------
    hashes : (n, 2) uint64
        BLAKE2b-128 of a row's vectors as they are stored, then of their places.
    largest, lengths : (n,)
        Of the vector of the row that is furthest from what can be used.
    pieces : Pieces
        Of the rows that have some, in order.
    which : (n,) int64
        Position of each row in `pieces`; -1 where it has none.
    """

    pieces: Pieces
    which: Rows

    @classmethod
    def of(cls, rows: PieceRows, packed: Packed, *, unit: bool) -> PackedPieces:
        """What `rows` of n items are, of `packed`, which is of all their vectors.

        Parameters
        ----------
        unit : bool
            The mean has unit length.
        """
        some = rows.counts > 0
        pieces = Pieces(packed.vectors, rows.counts[some], _one_nan(rows.places))
        largest = np.full(len(some), np.inf)
        lost, hashes = np.zeros(len(some), bool), np.zeros((len(some), 2), np.uint64)
        means = np.zeros((len(some), packed.vectors.shape[1]), packed.vectors.dtype)
        lengths = None if packed.lengths is None else np.ones(len(some), np.float32)
        if some.any():
            largest[some], lost[some] = _largest(pieces, packed)
            hashes[some] = _hashes(pieces)
            with np.errstate(over="ignore", invalid="ignore"):
                mean = pieces.means()
                means[some] = unit_rows(mean) if unit else mean
        if lengths is not None and packed.lengths is not None and some.any():
            lengths[some] = _furthest_from_one(pieces, packed.lengths)
        which = np.where(some, np.cumsum(some) - 1, -1)
        return cls(means, hashes, largest, lost, lengths, pieces=pieces, which=which)

    def reason(self, i: int) -> str:
        """Why the vectors of a row cannot be used."""
        if self.which[i] < 0:
            return "holds an empty list; expected one vector at least, or null for none"
        if not np.isfinite(self.largest[i]) or self.lengths is None:
            return super().reason(i)
        return f"holds a vector of length {self.lengths[i]:.4g}, but unit length is declared"


class PieceImporter(VectorImporter):
    """As `VectorImporter`, of one space whose items have several vectors."""

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        ((self._name, matrix),) = self._matrices.items()
        if not isinstance(matrix, PieceVectors):
            raise TypeError(f"{matrix.name} has no pieces")
        self._given = matrix
        self._report.bytes = matrix.pieces * matrix.shape[1] * matrix.itemsize

    @property
    def _space(self) -> Space:
        return self._spaces[self._name]

    def _rows_a_part(self) -> int:
        each = -(-self._given.pieces // self._given.shape[0])
        width = self._space.dim * max(self._given.itemsize, self._space.dtype.itemsize)  # blocks are in memory as they come
        return rows_a_part(width + each * (width + PLACE_BYTES), least=LEAST_ROWS)

    def _buffers(self, size: int) -> dict[str, Packed]:
        return {}

    def _packed(
        self, blocks: Mapping[str, Block], whole: Mapping[str, Packed], n: int, pool: ThreadPoolExecutor, *, threads: int
    ) -> Mapping[str, Packed]:
        space = self._space
        rows = PieceRows(*blocks[self._name][0])
        packed = Packed.empty(len(rows.vectors), space.dim, space.dtype, lengths=space.spec.normalized)
        pack([([rows.vectors], packed)], pool, threads=threads)
        return {self._name: PackedPieces.of(rows, packed, unit=space.spec.normalized)}

    def _vectors(
        self, name: str, state: State, changed: npt.NDArray[np.bool_], row: Rows, start: int, table: pa.Table
    ) -> NewVectors:
        new = super()._vectors(name, state, changed, row, start, table)
        if not isinstance(state.packed, PackedPieces):
            raise TypeError(f"{name} was packed without its pieces")
        order = np.argsort(row, kind="stable")
        at = order[np.searchsorted(row, new.rows, sorter=order)]
        mine = state.good[at]  # the others keep the pieces that they had
        given = state.packed.pieces.take(state.packed.which[at[mine]])
        if mine.all():
            return replace(new, pieces=given)
        held = self._space.pieces_of(state.old_row[at[~mine]])
        joined = np.concatenate([np.flatnonzero(mine), np.flatnonzero(~mine)])
        return replace(new, pieces=Pieces.joined([given, held]).take(np.argsort(joined)))


def _one_nan(places: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """`places`, of whose many NaNs there is one alone: what is known by its bytes has one form."""
    return np.where(np.isnan(places), np.nan, places)


def _largest(pieces: Pieces, packed: Packed) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """The largest magnitude of each item (n,), and whether one of its vectors loses its direction: of that one, then."""
    largest = np.maximum.reduceat(packed.largest, pieces.starts)
    lost = np.logical_or.reduceat(packed.lost, pieces.starts)
    least = np.minimum.reduceat(np.where(packed.lost, packed.largest, np.inf), pieces.starts)
    fits = largest <= float(np.finfo(pieces.vectors.dtype).max)
    return np.where(lost & fits, least, largest), lost


def _furthest_from_one(pieces: Pieces, lengths: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    most = np.maximum.reduceat(lengths, pieces.starts)
    least = np.minimum.reduceat(lengths, pieces.starts)
    return np.where(most - 1 >= 1 - least, most, least)


def _hashes(pieces: Pieces) -> Keys:
    """Keys (n, 2) of the items' vectors and places; see store/FORMAT.md."""
    vectors, places = np.ascontiguousarray(pieces.vectors), np.ascontiguousarray(pieces.places, "<f8")
    found = []
    for lo, count in zip(pieces.starts.tolist(), pieces.counts.tolist(), strict=True):
        found.append(hash_payload(vectors[lo : lo + count].tobytes() + places[lo : lo + count].tobytes()))
    return keys_from_bytes(b"".join(found))
