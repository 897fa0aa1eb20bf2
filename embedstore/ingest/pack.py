"""Float rows made ready for a part: checked, rounded to the stored dtype and hashed, a cache-sized piece at a time.

All of it is whole-array work without the GIL, so that blocks can be packed by several threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore._core.atomic_files import aligned_empty
from embedstore._core.keys import Keys, hash_rows
from embedstore.ingest.rounding import lost_direction

Array = npt.NDArray[Any]

PIECE_BYTES = 1 << 20
_SUBNORMAL = np.uint32(0x38800000)
"""float32 bits of 2^-14: smaller values are subnormal in float16."""
_ROUND = np.uint32(0x0FFF - (112 << 23) & 0xFFFFFFFF)
"""Half a unit of float16's last place, less one, with the exponent's bias moved from 127 to 15."""


@dataclass(frozen=True)
class Packed:
    """Rows of one block as they are stored.

    Parameters
    ----------
    vectors : (n, dim) float16 or float32
    hashes : (n, 2) uint64
        `embedstore._core.keys.hash_rows` of the vectors.
    largest : (n,) float64
        The largest magnitude in each row as it came; not finite where a value is not.
    lost : (n,) bool
        `embedstore.ingest.rounding.lost_direction`.
    lengths : (n,) float32, optional
        Euclidean, of the vectors as they are stored; anything where `largest` is not finite.
    """

    vectors: Array
    hashes: Keys
    largest: npt.NDArray[np.float64]
    lost: npt.NDArray[np.bool_]
    lengths: npt.NDArray[np.float32] | None = None

    @classmethod
    def empty(cls, n: int, dim: int, dtype: Any, *, lengths: bool = False) -> Packed:
        return cls(
            aligned_empty((n, dim), dtype),
            np.empty((n, 2), np.uint64),
            np.empty(n),
            np.empty(n, bool),
            np.empty(n, np.float32) if lengths else None,
        )

    def __getitem__(self, rows: slice) -> Packed:
        lengths = None if self.lengths is None else self.lengths[rows]
        return Packed(self.vectors[rows], self.hashes[rows], self.largest[rows], self.lost[rows], lengths)

    def reason(self, i: int) -> str:
        """Why the vector of a row cannot be used."""
        if np.isnan(largest := self.largest[i]):
            return "holds NaN"
        if np.isinf(largest):
            return "holds infinity"
        length = float(np.linalg.norm(self.vectors[i].astype(np.float32)))
        return f"has length {length:.4g}, but unit length is declared"


def pack(given: Sequence[tuple[Sequence[Array], Packed]], pool: ThreadPoolExecutor, *, threads: int) -> None:
    """Fill each `Packed` from rows in pieces (m, dim) of float16, float32, float64, int8 or uint8.

    What its dtype cannot hold becomes infinite.
    """
    work: list[tuple[Array, Packed, int]] = []
    for pieces, out in given:
        at = 0
        for rows in pieces:
            step = max(1, PIECE_BYTES // max(rows[:1].nbytes, 1))
            share = max(-(-len(rows) // (threads * step)) * step, 1)
            to = out[at : at + len(rows)]
            work += [(rows[lo : lo + share], to[lo : lo + share], step) for lo in range(0, len(rows), share)]
            at += len(rows)
    list(pool.map(lambda some: _pack(*some), work))


def _pack(rows: Array, out: Packed, step: int) -> None:
    native = np.dtype(np.float32) if rows.dtype.kind in "iu" else rows.dtype.newbyteorder("=")
    spare = np.empty((2, step, rows.shape[1]), f"u{native.itemsize}")
    for lo in range(0, len(rows), step):
        piece, to = rows[lo : lo + step], out[lo : lo + step]
        piece = np.ascontiguousarray(piece, native)
        magnitude, free = spare[:, : len(piece)]
        _magnitude(piece, magnitude)
        to.largest[:] = magnitude.max(axis=1).view(piece.dtype)
        if piece.dtype == np.float32 and to.vectors.dtype == np.float16:
            _round_to_half(piece, magnitude, free, to.vectors)
        else:
            with np.errstate(over="ignore", invalid="ignore"):
                to.vectors[...] = piece
        to.hashes[...] = hash_rows(to.vectors)
        if to.lengths is not None:
            values = _as_float32(to.vectors)
            np.sqrt(np.einsum("ij,ij->i", values, values), out=to.lengths)
    out.lost[:] = lost_direction(rows, out.vectors, out.largest)


def _magnitude(rows: Array, out: Array) -> None:
    """The bits of ``abs(rows)`` as unsigned integers, which are ordered like the values; NaN is larger than infinity."""
    np.bitwise_and(rows.view(out.dtype), out.dtype.type(np.iinfo(out.dtype).max >> 1), out=out)


def _as_float32(vectors: Array) -> npt.NDArray[np.float32]:
    """Magnitudes of `vectors` (n, dim) in float32; of float16 by integer arithmetic, in a third of NumPy's time.

    The bits are moved to where float32 has them, and a product makes up for the other bias of the exponent, of subnormal
    numbers too. Infinities become finite.
    """
    if vectors.dtype != np.float16:
        return vectors
    bits = (vectors.view(np.uint16) & np.uint16(0x7FFF)).astype(np.uint32)
    bits <<= np.uint32(13)
    values: npt.NDArray[np.float32] = bits.view(np.float32)
    values *= np.float32(2.0**112)
    return values


def _round_to_half(rows: Array, magnitude: Array, spare: Array, out: Array) -> None:
    """``out[...] = rows``, float32 to float16, to the bit for values that float16 can hold; others become anything.

    NumPy converts value by value in portable code; integer arithmetic on whole arrays takes half the time. Half a unit in the
    last place is added (less one, plus the last bit that stays, so that ties go to even), then the exponent is moved.

    Parameters
    ----------
    magnitude : (n, dim) uint32
        `_magnitude` of `rows`; overwritten.
    spare : (n, dim) uint32
        Overwritten.
    """
    subnormal = np.flatnonzero(magnitude < _SUBNORMAL)
    np.right_shift(magnitude, np.uint32(13), out=spare)
    spare &= np.uint32(1)
    magnitude += spare
    magnitude += _ROUND
    magnitude >>= np.uint32(13)
    np.right_shift(rows.view(np.uint32), np.uint32(16), out=spare)
    spare &= np.uint32(0x8000)
    magnitude |= spare
    np.copyto(out.view(np.uint16), magnitude, casting="unsafe")
    out.reshape(-1)[subnormal] = rows.reshape(-1)[subnormal]
