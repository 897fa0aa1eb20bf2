"""Ready-made vectors into a store: blocks of a source become commits; what is there already, to the bit, is left alone."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from embedstore.errors import PayloadError, SourceError
from embedstore.ingest.carry import carried
from embedstore.ingest.pack import Packed, pack
from embedstore.ingest.plan import Chunk, Planner, new_item_rows
from embedstore.ingest.report import Progress, ProgressCallback
from embedstore.ingest.rounding import refusal
from embedstore.ingest.stages import Background, RunAhead
from embedstore.ingest.text_columns import texts_embedded
from embedstore.ingest.typed_batches import Typed
from embedstore.sources.vectors.arrays import Block, Matrix
from embedstore.sources.vectors.source import VectorSource
from embedstore.store.items import ID, ROW
from embedstore.store.space import Failure, Space, failures_table
from embedstore.store.writer import NewVectors, StoreWriter

if TYPE_CHECKING:
    import pyarrow as pa

Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

PART_BYTES = 64 << 20
UNIT = 0.01
"""How far the length of a vector may be from 1 where unit length is declared; float16 costs less."""
MAX_REPORTED_FAILURES = 20


@dataclass
class ImportedSpace:
    """Counts of one space; imported + unchanged + missing + failed = rows of the source.

    Parameters
    ----------
    encoder : str
        As declared.
    imported : int
        Vectors written in this run; `replaced` of them took the place of another vector of the same item.
    unchanged : int
        Vectors that were there already, to the bit.
    missing : int
        Rows of the source without a vector.
    failed : int
        Rows whose vector cannot be used: NaN, infinity, or not of the declared length.
    kept : int
        Those of them whose items keep the vector that they had.
    zeros : int
        Vectors of zeros only, which have no direction to search in; they count as imported or unchanged.
    """

    encoder: str
    fingerprint: str
    dim: int
    dtype: str
    declared: bool = True
    imported: int = 0
    replaced: int = 0
    unchanged: int = 0
    missing: int = 0
    failed: int = 0
    kept: int = 0
    zeros: int = 0


@dataclass
class ImportReport:
    """What `import_vectors` returns.

    Parameters
    ----------
    items : int
        Rows of the source.
    added, updated : int
        Items that are new in the store, and that replaced an older version of themselves.
    spaces : mapping of space name to ImportedSpace
    bytes : int
        Of the vectors in the source.
    seconds : float
    failures : list of (space, id, reason)
        The first few of this run.
    notes : list of str
    """

    items: int = 0
    added: int = 0
    updated: int = 0
    spaces: dict[str, ImportedSpace] = field(default_factory=dict)
    bytes: int = 0
    seconds: float = 0.0
    failures: list[tuple[str, str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def gb_per_s(self) -> float:
        """10⁹ bytes of the source's vectors a second."""
        return self.bytes / self.seconds / 1e9 if self.seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        """The document of ``embedstore import --json``."""
        return {
            "items": self.items,
            "added": self.added,
            "updated": self.updated,
            "spaces": {name: dict(vars(space)) for name, space in self.spaces.items()},
            "bytes": self.bytes,
            "seconds": round(self.seconds, 3),
            "gb_per_s": round(self.gb_per_s, 6),
            "notes": list(self.notes),
        }


def rows_a_part(width: int, *, least: int = 1 << 10) -> int:
    """Rows of `width` bytes in a part: a power of two that makes about `PART_BYTES`. A kill costs at most one part."""
    return min(1 << 17, max(least, 1 << (PART_BYTES // width).bit_length() >> 1))


class VectorImporter:
    """One import: blocks of the source into commits. The next block is packed while one is committed.

    What is counted, planned and numbered belongs to the thread that commits, until the last commit is done.

    Parameters
    ----------
    found : VectorSource
    matrices : mapping of space name to Matrix
    spaces : mapping of space name to Space
    writer : StoreWriter
    report : ImportReport
        Counted up here.
    typed : Typed
        Gives the metadata its types.
    strict : bool
        Raise on a part's first failure instead of recording it.
    """

    def __init__(
        self,
        found: VectorSource,
        matrices: Mapping[str, Matrix],
        spaces: Mapping[str, Space],
        writer: StoreWriter,
        report: ImportReport,
        typed: Typed,
        *,
        strict: bool,
    ) -> None:
        self._found = found
        self._matrices = matrices
        self._spaces = spaces
        self._writer = writer
        self._store = writer.store
        self._report = report
        self._strict = strict
        self._next_row = writer.next_row
        self._typed = typed
        self._planner = (
            Planner(self._store.items, found.name, rehash=False, texts=texts_embedded(self._store.spaces.values()))
            if len(self._store)
            else None
        )

    def import_all(self, on_progress: ProgressCallback) -> None:
        size = self._rows_a_part()
        threads = min(4, os.cpu_count() or 1)
        background = Background()
        start = 0
        spare: deque[dict[str, Packed]] = deque()
        try:
            with (
                ThreadPoolExecutor(threads, thread_name_prefix="embedstore-pack") as pool,
                RunAhead(self._blocks(size), depth=1) as ahead,
            ):
                for table, blocks in ahead:
                    whole = spare.popleft() if spare else self._buffers(size)
                    packed = self._packed(blocks, whole, table.num_rows, pool, threads=threads)
                    present = {name: mask for name, (_, mask) in blocks.items()}
                    blocks.clear()  # the next ones are being read
                    background.submit(partial(self._commit, start, table, packed, present, then=partial(spare.append, whole)))
                    start += table.num_rows
                    on_progress(self._progress(start))
        finally:
            background.finish()
        on_progress(self._progress(start))

    def _progress(self, done: int) -> Progress:
        return Progress(done, self._found.count, sum(space.imported for space in self._report.spaces.values()))

    def _rows_a_part(self) -> int:
        return rows_a_part(sum(space.dim * space.dtype.itemsize for space in self._spaces.values()))

    def _packed(
        self, blocks: Mapping[str, Block], whole: Mapping[str, Packed], n: int, pool: ThreadPoolExecutor, *, threads: int
    ) -> Mapping[str, Packed]:
        """The `n` rows of each space, packed into the buffers `whole`."""
        packed = {name: buffer[:n] for name, buffer in whole.items()}
        pack([(rows, packed[name]) for name, (rows, _) in blocks.items()], pool, threads=threads)
        return packed

    def _buffers(self, size: int) -> dict[str, Packed]:
        return {n: Packed.empty(size, s.dim, s.dtype, lengths=s.spec.normalized) for n, s in self._spaces.items()}

    def _blocks(self, size: int) -> Iterator[tuple[pa.Table, dict[str, Block]]]:
        """(ids and metadata, space → rows) of each part."""
        import pyarrow as pa

        names, start = list(self._matrices), 0
        vectors = zip(*(matrix.blocks(size) for matrix in self._matrices.values()), strict=True)
        for ids, columns, blocks in zip(self._found.id_blocks(size), self._found.metadata_blocks(size), vectors, strict=True):
            table = pa.table({ID: ids, **self._typed.columns(columns.items(), start)}).combine_chunks()
            start += len(ids)
            yield table, dict(zip(names, blocks, strict=True))

    def _commit(
        self,
        start: int,
        table: pa.Table,
        packed: Mapping[str, Packed],
        present: Mapping[str, Mask | None],
        *,
        then: Callable[[], None],
    ) -> None:
        items, removed, vectors = self._prepared(start, table, packed, present)
        self._writer.commit(items, removed=removed, vectors=vectors)
        then()

    def _prepared(
        self, start: int, table: pa.Table, packed: Mapping[str, Packed], present: Mapping[str, Mask | None]
    ) -> tuple[pa.Table | None, Rows, dict[str, NewVectors]]:
        """What one commit takes, for the rows of the source from `start`."""
        n = table.num_rows
        chunk = self._planner.plan(table, start) if self._planner is not None else None
        old_row = chunk.old_row if chunk is not None else np.full(n, -1, np.int64)
        states = {name: State.of(self._spaces[name], old_row, packed[name], present[name]) for name in packed}
        if self._strict:
            self._refuse_failures(states, start, table)
        changed = (old_row < 0) | (chunk.metadata_changed if chunk is not None else False)
        for state in states.values():
            changed |= state.replaced
        count = int(changed.sum())
        row = old_row.copy()
        row[changed] = np.arange(self._next_row, self._next_row + count)
        items = self._items(table, chunk, changed) if count else None
        vectors = {name: self._vectors(name, state, changed, row, start, table) for name, state in states.items()}
        removed = old_row[changed & (old_row >= 0)]
        if chunk is not None and len(removed):
            kept = changed & (old_row >= 0)
            others = {n: s for n, s in self._store.spaces.items() if n not in states}
            vectors |= {n: carried(s, old_row, kept & ~_new_text(chunk, s), row) for n, s in others.items()}
        self._next_row += count
        self._report.added += int((old_row < 0).sum())
        self._report.updated += len(removed)
        return items, removed, vectors

    def _items(self, table: pa.Table, chunk: Chunk | None, changed: Mask) -> pa.Table:
        import pyarrow as pa

        if chunk is not None:
            return new_item_rows(chunk, self._store.items, changed, self._next_row, set())
        rows = pa.array(np.arange(self._next_row, self._next_row + table.num_rows), pa.int64())
        return table.add_column(0, ROW, rows)

    def _vectors(self, name: str, state: State, changed: Mask, row: Rows, start: int, table: pa.Table) -> NewVectors:
        """What one part adds to a space; counts it."""
        space, counts, packed = self._spaces[name], self._report.spaces[name], state.packed
        good, had = state.good, state.had
        self._refuse_rounding(name, packed, good, start)
        write = good & (~state.same | changed)
        keep = had & ~good & changed  # the vector that was there stays
        counts.imported += int((good & ~state.same).sum())
        counts.replaced += int(state.replaced.sum())
        counts.unchanged += int(state.same.sum())
        counts.missing += int((~state.present).sum())
        counts.failed += int((state.present & ~good).sum())
        counts.kept += int((had & state.present & ~good).sum())
        counts.zeros += int((good & (packed.largest == 0)).sum())
        failures = self._failures(name, state, row, start, table) if (state.present & ~good).any() else None
        if write.all() and (np.diff(row) > 0).all():
            return NewVectors(row, packed.vectors, packed.hashes, failures)
        at = np.flatnonzero(write | keep)
        at = at[np.argsort(row[at], kind="stable")]
        vectors, hashes, kept = packed.vectors[at], packed.hashes[at], keep[at]
        vectors[kept] = space.take(state.old_row[at][kept])
        hashes[kept] = space.hash_of(state.old_row[at][kept])
        return NewVectors(row[at], vectors, hashes, failures)

    def _refuse_failures(self, states: Mapping[str, State], start: int, table: pa.Table) -> None:
        """Strict: the first row that fails in any space.

        Raises
        ------
        PayloadError
        """
        first = {name: np.flatnonzero(state.present & ~state.good)[:1] for name, state in states.items()}
        if found := [(int(at[0]), name) for name, at in first.items() if len(at)]:
            i, name = min(found, key=lambda one: one[0])
            item, reason = table.column(ID)[i].as_py(), self._reason(name, states[name], i, start)
            raise PayloadError("decode", f"item {item!r}: {reason}. Nothing of this part was kept (--strict).")

    def _reason(self, name: str, state: State, i: int, start: int) -> str:
        return f"{os.path.basename(self._matrices[name].name)}: row {start + i} (from 0) {state.packed.reason(i)}"

    def _refuse_rounding(self, name: str, packed: Packed, good: Mask, start: int) -> None:
        """No vector of which the stored dtype makes something else.

        Raises
        ------
        SourceError
        """
        space = self._spaces[name]
        unfit = packed.lost | (packed.largest > float(np.finfo(space.dtype).max))
        if len(rows := np.flatnonzero(good & unfit)):
            again = "--dtype float32" if name not in self._store.spaces else "--space NEWNAME --dtype float32"
            why = refusal(space.dtype, float(packed.largest[rows[0]]), again=again)
            raise SourceError(f"{self._matrices[name].name}: row {start + int(rows[0])} (from 0) {why}")

    def _failures(self, name: str, state: State, row: Rows, start: int, table: pa.Table) -> pa.Table:
        recorded = self._spaces[name].failures_by_row
        add = []
        for i in np.flatnonzero(state.present & ~state.good).tolist():
            item = str(table.column(ID)[i].as_py())
            reason = self._reason(name, state, i, start)
            if len(self._report.failures) < MAX_REPORTED_FAILURES:
                self._report.failures.append((name, item, reason))
            failure = Failure(int(row[i]), item, "decode", reason, state.packed.hashes[i].tobytes())
            if not state.had[i] and failure != recorded.get(failure.row):
                add.append(failure)
        return failures_table(add)


@dataclass(frozen=True)
class State:
    """The rows of one part beside what a space holds of their items. Arrays are (n,).

    Parameters
    ----------
    present : bool
        The source has a vector.
    good : bool
        It can be used.
    had : bool
        The item has a vector in the space.
    same : bool
        It is this one.
    """

    packed: Packed
    old_row: Rows
    present: Mask
    good: Mask
    had: Mask
    same: Mask

    @classmethod
    def of(cls, space: Space, old_row: Rows, packed: Packed, mask: Mask | None) -> State:
        n = len(old_row)
        present = np.ones(n, bool) if mask is None else mask
        good = present & np.isfinite(packed.largest)
        if packed.lengths is not None:
            good &= np.abs(packed.lengths - 1) <= UNIT
        had, same = np.zeros(n, bool), np.zeros(n, bool)
        at = np.flatnonzero(old_row >= 0)
        had[at] = space.has(old_row[at])
        same[at] = had[at] & good[at] & (space.hash_of(old_row[at]) == packed.hashes[at]).all(axis=1)
        return cls(packed, old_row, present, good, had, same)

    @property
    def replaced(self) -> Mask:
        """Another vector takes the place of the item's."""
        return self.had & self.good & ~self.same


def _new_text(chunk: Chunk, space: Space) -> Mask:
    """Items (n,) of which a text that `space` embeds, alone or in a message, is not the one that its vector was made from."""
    new = np.zeros(len(chunk), bool)
    for column in space.info.texts:
        if column in chunk.replaced:
            new |= chunk.replaced[column]
    return new
