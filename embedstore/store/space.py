"""One space of a store: which encoder made it, its vectors by position, row and id of payload, its failures."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from embedstore._core.keys import KEY_BYTES, Keys, KeyTable
from embedstore._core.pieces import Pieces, spans
from embedstore.spec import EncoderSpec
from embedstore.store.format import PartRef, SpaceEntry
from embedstore.store.part_files import HASH, PLACE, ROW, VECTORS, PartFiles
from embedstore.store.parts import read_array, read_into, read_table, row_numbers
from embedstore.store.picker import OPEN_FILES, RowPicker
from embedstore.store.raw_vectors import RawVectors
from embedstore.store.space_info import SpaceInfo

if TYPE_CHECKING:
    import pyarrow as pa

FEW = 1000
"""Pieces that are read one by one, so that nothing else becomes resident."""

Array = npt.NDArray[Any]
Rows = npt.NDArray[np.int64]


class Space:
    """The vectors of one space in one generation; `rows` and `vectors` leave out removed items.

    Positions run over the parts in order of commit. Reading is a memory map of the HDF5 parts. Where items have several
    vectors, `pieces` holds them, `vectors` is one for each item all the same, and search (`raw`, `raw_rows`, `live`) goes over
    the pieces.
    """

    def __init__(self, files: PartFiles, info: SpaceInfo, entry: SpaceEntry, dead: Rows) -> None:
        self.info = info
        self._files = files
        self._entry = entry
        self._dead = dead
        self._mapped: dict[int, Array] = {}

    def __repr__(self) -> str:
        return f"<Space {self.name!r}: {len(self)} vectors of {self.dim} {self.info.dtype} by {self.spec.label}>"

    @property
    def name(self) -> str:
        return self.info.name

    @property
    def root(self) -> Path:
        """The store's folder."""
        return self._files.root

    @property
    def files(self) -> PartFiles:
        """Where the parts are read."""
        return self._files

    @property
    def spec(self) -> EncoderSpec:
        return self.info.spec

    @property
    def payload(self) -> str:
        """The column of the store's items that is embedded: a modality, or a metadata column."""
        return self.info.payload

    @property
    def fingerprint(self) -> str:
        return self.info.spec.fingerprint

    @property
    def dim(self) -> int:
        return self.info.spec.dim

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.info.dtype)

    @property
    def parts(self) -> tuple[PartRef, ...]:
        """The committed vector files, in order."""
        return self._entry.parts

    @property
    def index_folder(self) -> Path:
        """Where an index over this space lives."""
        return self.root / "spaces" / self.name / "index"

    @cached_property
    def pieces(self) -> PieceSpace | None:
        """Several vectors an item; None in a space that has one."""
        return PieceSpace(self._files, self.info, self._entry, self._dead) if self.info.pieces else None

    @property
    def _searched(self) -> Space:
        """What search goes over."""
        return self if self.pieces is None else self.pieces

    @property
    def unit(self) -> str | None:
        """What items have several vectors of, such as ``"frame"``; None where they have one."""
        return self.info.pieces

    def pieces_of(self, rows: Rows) -> Pieces:
        """What search compares of `rows` (k,), which must all be here: their pieces, or the one vector of each."""
        if self.pieces is not None:
            return self.pieces.of(rows)
        return Pieces.nowhere(self.take(rows), np.ones(len(rows), np.int64))

    @property
    def raw(self) -> RawVectors:
        """Every vector ever committed, removed ones included, at positions that never change: what an index is built over."""
        return RawVectors(self._searched)

    @property
    def raw_parts(self) -> tuple[PartRef, ...]:
        """The committed files of `raw`, in order."""
        return self._searched.parts

    @cached_property
    def picker(self) -> RowPicker | None:
        """Reads single vectors; None where a part cannot be read at an offset."""
        parts = self.parts
        if not parts or not hasattr(os, "pread") or any(VECTORS not in ref.offsets for ref in parts):
            return None
        return RowPicker(self._files, parts, self.dtype, self.dim)

    @property
    def raw_rows(self) -> Rows:
        """Row (n,) int64 of each position of `raw`."""
        return self._searched._all_rows

    @property
    def live(self) -> npt.NDArray[np.bool_] | None:
        """Which positions of `raw` (n,) are not removed; None where none is."""
        return self._searched._live

    def __len__(self) -> int:
        return len(self.rows) if len(self._dead) else sum(ref.rows for ref in self._entry.parts)

    @cached_property
    def rows(self) -> Rows:
        """Row (n,) int64 of each vector, in the order of `vectors`."""
        return self._all_rows if self._live is None else self._all_rows[self._live]

    @cached_property
    def hashes(self) -> Keys:
        """Content hash (n, 2) uint64 of the payload each vector was made from, in the order of `vectors`."""
        return self._all_hashes if self._live is None else self._all_hashes[self._live]

    def vectors(self) -> Array:
        """All vectors (n, dim), in the order of `rows`. One part without removals is returned as a memory map."""
        if len(self._entry.parts) == 1 and self._live is None:
            return self._map(0)
        if self._live is None:
            return self._whole(VECTORS, self.dtype, self.dim)
        out = np.empty((len(self), self.dim), dtype=self.dtype)
        at = 0
        for block in self.blocks():
            out[at : at + len(block)] = block
            at += len(block)
        return out

    def blocks(self, size: int = 65536) -> Iterator[Array]:
        """The vectors in order, in blocks of at most `size` rows; blocks do not span parts."""
        start = 0
        for ref in self._entry.parts:
            part = read_array(self._files, ref, VECTORS, self.dtype, self.dim, check=False)
            keep = None if self._live is None else self._live[start : start + len(part)]
            for lo in range(0, len(part), size):
                block = self._compared(ref, part, lo, min(lo + size, len(part)))
                yield block if keep is None or keep[lo : lo + size].all() else block[keep[lo : lo + size]]
            start += len(part)

    def row_blocks(self) -> Iterator[Rows]:
        """`rows` a part at a time."""
        for start, ref in zip(self._starts, self._entry.parts, strict=True):
            rows = read_array(self._files, ref, ROW, np.int64)
            live = rows if self._live is None else rows[self._live[start : start + ref.rows]]
            if len(live):
                yield live

    def live_ranges(self) -> Iterator[tuple[str, int, int, int]]:
        """Runs of vectors that are not removed: (part file, rows in the part, first, last + 1) in order."""
        start = 0
        for ref in self._entry.parts:
            live = np.ones(ref.rows, bool) if self._live is None else self._live[start : start + ref.rows]
            edges = np.flatnonzero(np.diff(np.concatenate([[False], live, [False]]).astype(np.int8)))
            for lo, hi in edges.reshape(-1, 2).tolist():
                yield ref.file, ref.rows, lo, hi
            start += ref.rows

    def has(self, rows: Rows) -> npt.NDArray[np.bool_]:
        """Whether each of `rows` (m,) has a vector here."""
        return self._position(rows) >= 0

    def take(self, rows: Rows) -> Array:
        """Vectors (m, dim) of `rows` (m,), which must all be here (see `has`)."""
        position = self._position(rows)
        if (position < 0).any():
            raise KeyError(f"row {rows[position < 0][0]} has no vector in space {self.name!r}")
        return self.at(position)

    def at(self, position: Rows) -> Array:
        """Vectors (m, dim) at positions over all parts."""
        if len(self._entry.parts) == 1:
            return np.asarray(self._map(0)[position])
        out = np.empty((len(position), self.dim), dtype=self.dtype)
        if not len(position):
            return out
        part_of = np.searchsorted(self._starts, position, side="right") - 1
        order = None if (np.diff(part_of) >= 0).all() else np.argsort(part_of, kind="stable")
        parts, firsts = np.unique(part_of if order is None else part_of[order], return_index=True)
        for i, lo, hi in zip(parts, firsts, [*firsts[1:], len(position)], strict=True):
            where = slice(lo, hi) if order is None else order[lo:hi]
            out[where] = self._map(int(i))[position[where] - self._starts[i]]
        return out

    def hash_of(self, rows: Rows) -> Keys:
        """Content hashes (m, 2) of `rows` (m,); zeros where there is no vector."""
        position = self._position(rows)
        out = np.zeros((len(rows), 2), dtype=np.uint64)
        out[position >= 0] = self._all_hashes[position[position >= 0]]
        return out

    @cached_property
    def hash_table(self) -> KeyTable:
        """Content hash → row of one vector made from such a payload."""
        table = KeyTable(self.root)
        for start, ref in zip(self._starts, self._entry.parts, strict=True):
            live = slice(None) if self._live is None else self._live[start : start + ref.rows]
            hashes = read_array(self._files, ref, HASH, np.uint8, KEY_BYTES)[live]
            distinct, first = np.unique(np.ascontiguousarray(hashes).view(f"V{KEY_BYTES}").ravel(), return_index=True)
            keys = distinct.view("<u8").reshape(-1, 2)
            new = table.lookup(keys) < 0
            table.insert(keys[new], read_array(self._files, ref, ROW, np.int64)[live][first[new]])
        return table

    @cached_property
    def failures(self) -> pa.Table:
        """Payloads of live items that could not be embedded: row, id, stage, reason, hash; the latest per row."""
        import pyarrow as pa

        parts = [read_table(self._files, ref, "embedstore-failures") for ref in self._entry.failures]
        if not parts:
            return failures_table([])
        every = pa.concat_tables(parts)
        rows = row_numbers(every)
        _, last = np.unique(rows[::-1], return_index=True)
        keep = np.sort(len(rows) - 1 - last)
        keep = keep[~np.isin(rows[keep], self._dead) & ~self.has(rows[keep])]
        return every.take(pa.array(keep))

    @cached_property
    def failures_by_row(self) -> dict[int, Failure]:
        """Row → failure, as in `failures`."""
        return {f["row"]: Failure(**{**f, "hash": f["hash"] or b""}) for f in self.failures.to_pylist()}

    def _compared(self, ref: PartRef, part: Array, lo: int, hi: int) -> Array:
        """Vectors `lo` to `hi` of a mapped part, compared with the sums of their blocks."""
        if not self._files.known(ref):
            first, last = self._files.block_edges(ref, lo, hi)
            row_bytes = self.dim * self.dtype.itemsize
            self._files.check_rows(ref, first, part[first:last].reshape(-1).view(np.uint8).data, row_bytes)
        return part[lo:hi]

    def _map(self, number: int) -> Array:
        """The vectors (n, dim) of a part, mapped; a mapping keeps its file open, so not all of very many are kept."""
        part = self._mapped.get(number)
        if part is None:
            if len(self._mapped) >= OPEN_FILES:
                self._mapped.clear()
            part = read_array(self._files, self._entry.parts[number], VECTORS, self.dtype, self.dim)
            self._mapped[number] = part
        return part

    def _whole(self, name: str, dtype: Any, *width: int) -> Array:
        """A dataset of all parts, in memory."""
        refs = self._entry.parts
        out = np.empty((sum(ref.rows for ref in refs), *width), dtype)
        at = 0
        for ref in refs:
            read_into(out[at : at + ref.rows], self._files, ref, name)
            at += ref.rows
        return out

    @cached_property
    def _starts(self) -> Rows:
        return np.cumsum([0, *(ref.rows for ref in self._entry.parts)])[:-1].astype(np.int64)

    @cached_property
    def _all_rows(self) -> Rows:
        return self._whole(ROW, np.int64)

    @cached_property
    def _all_hashes(self) -> Keys:
        return self._whole(HASH, np.uint8, KEY_BYTES).view("<u8")

    @cached_property
    def _live(self) -> npt.NDArray[np.bool_] | None:
        """Mask over all positions, or None where nothing was removed."""
        if not len(self._dead):
            return None
        live = np.isin(self._all_rows, self._dead, invert=True)
        live.flags.writeable = False
        return None if live.all() else live

    @cached_property
    def _order(self) -> npt.NDArray[np.intp] | None:
        """Positions by ascending row; None where rows already ascend."""
        rows = self._all_rows
        return None if (rows[1:] > rows[:-1]).all() else np.argsort(rows, kind="stable")

    @cached_property
    def _ascending(self) -> Rows:
        """The rows of all positions, ascending."""
        return self._all_rows if self._order is None else self._all_rows[self._order]

    def _position(self, rows: Rows) -> Rows:
        """Position of each row over all parts, -1 where absent."""
        if not len(self._all_rows):
            return np.full(len(rows), -1, dtype=np.int64)
        ascending = self._ascending
        at = np.minimum(np.searchsorted(ascending, rows), len(ascending) - 1)
        position = at if self._order is None else self._order[at]
        return np.where(ascending[at] == rows, position, -1)


class PieceSpace(Space):
    """The pieces of a space: as `Space`, with several vectors of one row, those of a row beside one another."""

    def __init__(self, files: PartFiles, info: SpaceInfo, entry: SpaceEntry, dead: Rows) -> None:
        super().__init__(files, info, replace(entry, parts=entry.pieces, failures=(), pieces=()), dead)

    @property
    def pieces(self) -> None:
        """A piece has no pieces."""
        return

    @cached_property
    def places(self) -> npt.NDArray[np.float64]:
        """Where each position of `raw` (m, 2) begins and ends in its item, in seconds; NaN where that says nothing."""
        return self._whole(PLACE, np.float64, 2)

    def of(self, rows: Rows) -> Pieces:
        """The pieces of `rows` (k,), which must all be here.

        Raises
        ------
        KeyError
        """
        first = np.searchsorted(self._ascending, rows)
        counts = np.searchsorted(self._ascending, rows, side="right") - first
        if not counts.all():
            raise KeyError(f"row {rows[counts == 0][0]} has no pieces in space {self.name!r}")
        at = spans(first, counts)
        position = at if self._order is None else self._order[at]
        vectors = self.raw.take(position) if len(position) <= FEW else self.at(position)  # many are faster through a map
        return Pieces(vectors, counts, self.places[position])

    @cached_property
    def _order(self) -> npt.NDArray[np.intp] | None:
        rows = self._all_rows
        return None if (rows[1:] >= rows[:-1]).all() else np.argsort(rows, kind="stable")


class Failure(NamedTuple):
    """One payload that could not be embedded; `hash` is empty where it was not read."""

    row: int
    id: str
    stage: str
    reason: str
    hash: bytes


def failures_table(failures: Sequence[Failure]) -> pa.Table:
    """Failures as a table: row int64, id, stage, reason, hash (16 bytes, or null)."""
    import pyarrow as pa

    kinds = {"row": pa.int64(), "id": pa.string(), "stage": pa.string(), "reason": pa.string(), "hash": pa.binary(KEY_BYTES)}
    columns = {name: [getattr(f, name) for f in failures] for name in kinds}
    columns["hash"] = [digest or None for digest in columns["hash"]]
    return pa.table({name: pa.array(columns[name], kind) for name, kind in kinds.items()})
