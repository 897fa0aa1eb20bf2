"""The vectors of one space during a run: what was there, what has been claimed, what has been encoded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from embedstore._core.distinct import distinct
from embedstore._core.keys import Keys, KeyTable
from embedstore._core.pieces import Pieces
from embedstore.encoders.base import Encoder
from embedstore.errors import EncoderError, PayloadError
from embedstore.ingest.rounding import lost_direction, refusal
from embedstore.store.part_files import PLACE, VECTORS
from embedstore.store.space import Space

Rows = npt.NDArray[np.int64]
Array = npt.NDArray[Any]


class SpaceState:
    """Every payload is claimed once in a run, by content hash; its claim is its number among the encoded ones.

    The thread that reads calls `claim`, the one that encodes `put` and `fail`, the one that closes chunks `take_claims`.

    Parameters
    ----------
    space : Space
        As it was when the run began.
    encoder : Encoder
    """

    def __init__(self, space: Space, encoder: Encoder) -> None:
        self.space = space
        self.encoder = encoder
        self.batch_size = encoder.batch_size
        if self.batch_size < 1:
            raise EncoderError(f"{encoder.spec.name} has a batch_size of {self.batch_size}; it should be 1 or more.")
        self.cost: Callable[[Any], int] = getattr(encoder, "cost", len)
        self.failed: dict[int, PayloadError] = {}
        self.unfit: dict[int, str] = {}
        self.encoded = 0
        self._claimed = KeyTable(space.root)
        self.claims = 0
        self._blocks: deque[tuple[Rows, Array]] = deque()
        self._pieces: dict[int, tuple[Array, Array]] = {}
        self._stored_pieces: list[_StoredPieces] = []
        self._closed: list[_Closed] = []
        self._closed_until = 0

    @property
    def name(self) -> str:
        return self.space.name

    @property
    def payload(self) -> str:
        """The column of items that it embeds: see `Space`."""
        return self.space.payload

    @property
    def waiting(self) -> int:
        """Payloads encoded since the last chunk was closed."""
        return sum(len(claims) for claims, _ in self._blocks)

    def claim(self, hashes: Keys) -> tuple[Rows, Rows, npt.NDArray[np.intp]]:
        """Find or claim payloads by content hash.

        Parameters
        ----------
        hashes : (n, 2) uint64

        Returns
        -------
        claim : (n,) int64
            -1 where the space already had such a payload.
        copy : (n,) int64
            The row that has it, else -1.
        first : (m,) positions
            Those claimed now: the caller must bring each to `put` or `fail`.
        """
        claim = np.full(len(hashes), -1, np.int64)
        if not len(hashes):
            return claim, claim.copy(), np.empty(0, np.intp)
        copy = self.space.hash_table.lookup(hashes)
        todo = np.flatnonzero(copy < 0)
        found = self._claimed.lookup(hashes[todo])
        claim[todo] = found
        fresh = todo[found < 0]
        if not len(fresh):
            return claim, copy, fresh
        void = np.ascontiguousarray(hashes[fresh]).view("V16").ravel()
        _, first, inverse = np.unique(void, return_index=True, return_inverse=True)
        order = np.argsort(first, kind="stable")
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        numbers = self.claims + rank
        claim[fresh] = numbers[inverse]
        self._claimed.insert(hashes[fresh[first]], numbers)
        self.claims += len(first)
        return claim, copy, fresh[np.sort(first)]

    def put(self, claims: Rows, vectors: Array, pieces: Pieces | None = None) -> None:
        """Keep encoded vectors (n, dim) float32 in the stored dtype; a vector that is not finite becomes a failure.

        Those that the stored dtype cannot hold are noted in `unfit`, with what to say of each. So are `pieces`, of an encoder
        that makes such.
        """
        if vectors.shape != (len(claims), self.space.dim):
            raise EncoderError(
                f"{self.encoder.spec.name} returned vectors of shape {vectors.shape} for {len(claims)} payloads; "
                f"expected {(len(claims), self.space.dim)}. Mend the encoder."
            )
        finite = np.isfinite(vectors).all(axis=1)
        if pieces is not None:
            self._check_pieces(pieces, len(claims))
            finite &= pieces.every(np.asarray(np.isfinite(pieces.vectors).all(axis=1)))
        for claim in claims[~finite]:
            self.fail(int(claim), PayloadError("encode", "the encoder returned a vector that is not finite"))
        claims = claims[finite]
        self._blocks.append((claims, self._stored(claims, vectors[finite])))
        if pieces is not None:
            pieces = pieces.take(finite)
            pieces = replace(pieces, vectors=self._stored(np.repeat(claims, pieces.counts), pieces.vectors))
            for claim, start, count in zip(claims.tolist(), pieces.starts.tolist(), pieces.counts.tolist(), strict=True):
                own = slice(start, start + count)
                self._pieces[claim] = pieces.vectors[own], pieces.places[own]
        self.encoded += len(claims)

    def _stored(self, claims: Rows, vectors: Array) -> Array:
        """Vectors (n, dim) of `claims` (n,) in the stored dtype; those that it cannot hold are noted."""
        largest = np.abs(vectors).max(axis=1, initial=0)
        with np.errstate(over="ignore"):
            stored = vectors.astype(self.space.dtype)
        unfit = lost_direction(vectors, stored, largest) | (largest > float(np.finfo(self.space.dtype).max))
        for i in np.flatnonzero(unfit):
            again = "--dtype float32" + (", in a space of its own (NAME=ENCODER)" if len(self.space) else "")
            self.unfit[int(claims[i])] = refusal(self.space.dtype, float(largest[i]), again=again)
        return stored

    def _check_pieces(self, pieces: Pieces, payloads: int) -> None:
        shapes = pieces.vectors.shape, pieces.counts.shape, pieces.places.shape
        total = int(pieces.counts.sum())
        if shapes != ((total, self.space.dim), (payloads,), (total, 2)) or (pieces.counts < 1).any():
            raise EncoderError(
                f"{self.encoder.spec.name} returned {pieces.vectors.shape} vectors of pieces, counts of shape "
                f"{pieces.counts.shape} and places of shape {pieces.places.shape} for {payloads} payloads. Mend the encoder."
            )

    def fail(self, claim: int, error: PayloadError) -> None:
        self.failed[claim] = error

    def close_chunk(self, until: int) -> None:
        """Gather what was put for the claims below `until` (all are there) into one array."""
        count = until - self._closed_until
        if count <= 0:
            return
        vectors = np.empty((count, self.space.dim), self.space.dtype)
        at = np.full(count, -1, np.int32)
        while self._blocks:
            claims, block = self._blocks.popleft()
            vectors[claims - self._closed_until] = block
            at[claims - self._closed_until] = claims - self._closed_until
        self._closed.append(_Closed(self._closed_until, count, lambda: vectors, _places(at)))
        self._closed_until = until

    def take_claims(self, claims: Rows) -> Array:
        """Vectors (n, dim) of `claims` (n,), none of which failed, from closed chunks.

        Raises
        ------
        EncoderError
            A claim was neither put nor failed; its vector would be whatever memory held.
        """
        out = np.empty((len(claims), self.space.dim), self.space.dtype)
        starts = np.array([closed.start for closed in self._closed], dtype=np.int64)
        block_of = np.searchsorted(starts, claims, side="right") - 1
        for i in distinct(block_of):
            closed = self._closed[i]
            where = block_of == i
            found = claims[where] - closed.start
            found = found if closed.at is None else closed.at[found]
            if (found < 0).any():
                raise EncoderError(
                    f"{int((found < 0).sum())} payloads of space {self.name!r} got neither a vector nor a failure. "
                    "Nothing of this part was kept; run the command again, and report this as a bug."
                )
            out[where] = closed.vectors()[found]
        return out

    def take_pieces(self, claims: Rows) -> Pieces:
        """The pieces of `claims` (n,), none of which failed, from closed chunks."""
        held = [self._pieces.get(claim) or self._read_again(claim) for claim in claims.tolist()]
        vectors = [np.empty((0, self.space.dim), self.space.dtype), *(one for one, _ in held)]
        places = [np.empty((0, 2)), *(one for _, one in held)]
        counts = np.fromiter((len(one) for _, one in held), np.int64, len(held))
        return Pieces(np.concatenate(vectors), counts, np.concatenate(places))

    def _read_again(self, claim: int) -> tuple[Array, Array]:
        """The pieces of a claim that is on disk: vectors (m, dim) and places (m, 2)."""
        for stored in reversed(self._stored_pieces):
            at = int(np.searchsorted(stored.claims, claim))
            if at < len(stored.claims) and stored.claims[at] == claim:
                own = slice(stored.starts[at], stored.starts[at] + stored.counts[at])
                return stored.vectors()[own], stored.places()[own]
        raise EncoderError(f"A payload of space {self.name!r} got a vector and no {self.space.unit}. Report this as a bug.")

    def committed(
        self,
        part: Callable[[], Array],
        claims: Rows,
        pieces: Pieces | None = None,
        read: Callable[[str, int], Array] | None = None,
    ) -> None:
        """A closed chunk is on disk: free the memory.

        Parameters
        ----------
        part : callable
            Maps the part, (n, dim), whenever its vectors are wanted: what stays mapped stays resident.
        claims : (n,) int64
            Claim of each vector of the part, -1 for vectors copied from elsewhere.
        pieces : Pieces, optional
            Those of each vector of the part.
        read : callable, optional
            Maps a dataset of the part of pieces, by its name and width.
        """
        if pieces is not None and read is not None:
            own, first = np.unique(claims, return_index=True)  # a claim may be of several items
            order = first[[claim in self._pieces for claim in own.tolist()]]
            starts, counts, dim = pieces.starts[order], pieces.counts[order], self.space.dim
            vectors, places = partial(read, VECTORS, dim), partial(read, PLACE, 2)
            self._stored_pieces.append(_StoredPieces(claims[order], starts, counts, vectors, places))
            for claim in claims[order].tolist():  # the thread that closes chunks finds each in one of the two
                del self._pieces[claim]
        for i in reversed(range(len(self._closed))):
            start, size, _, at, committed = self._closed[i]
            if committed:
                break
            mine = (claims >= start) & (claims < start + size)
            if mine.any():
                moved = np.full(size, -1, np.int32)
                positions = np.flatnonzero(mine)
                moved[claims[positions] - start] = positions
                if (moved[slice(None) if at is None else at >= 0] >= 0).all():
                    self._closed[i] = _Closed(start, size, part, _places(moved), committed=True)


class _StoredPieces(NamedTuple):
    """Where the pieces of claims (n,), ascending, lie in a part, which is mapped for as long as they are held."""

    claims: Rows
    starts: Rows
    counts: Rows
    vectors: Callable[[], Array]
    places: Callable[[], Array]


class _Closed(NamedTuple):
    """The vectors of a chunk's claims.

    Parameters
    ----------
    start, size : int
        Its claims are `start` to `start` + `size` - 1.
    vectors : callable
        In memory, or mapped for as long as they are held.
    at : (size,) int32, optional
        Where each claim's vector is among them, -1 where there is none; None: in the order of the claims.
    """

    start: int
    size: int
    vectors: Callable[[], Array]
    at: npt.NDArray[np.int32] | None
    committed: bool = False


def _places(at: npt.NDArray[np.int32]) -> npt.NDArray[np.int32] | None:
    """`at` (n,), or None where everything is at its own number."""
    return None if (at == np.arange(len(at))).all() else at
