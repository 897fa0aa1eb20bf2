"""Rewriting a store without what was removed, in parts of a good size. Rows keep their numbers; none is ever reused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from embedstore.errors import StoreError, reason_of
from embedstore.store.format import Manifest, PartRef, SpaceEntry, pieces_file
from embedstore.store.parts import write_pieces, write_table, write_vectors
from embedstore.store.pending import note_pending, pending, removed_ids
from embedstore.store.reader import StoreReader
from embedstore.store.space import Space
from embedstore.store.writer import StoreWriter, next_number

PART_BYTES = 64 << 20
ITEM_ROWS = 65536
SMALL_ROWS = 16384
SMALL_PARTS = 8


def worth_compacting(store: StoreReader) -> str | None:
    """Why a compaction would help: something was removed, or parts are small and many; None where it would not."""
    if len(store.dead):
        share = len(store.dead) / max(len(store.dead) + len(store), 1)
        return f"{len(store.dead):,} rows ({share:.0%}) were removed or replaced"
    for name, entry in store.manifest.spaces.items():
        rows = sum(ref.rows for ref in entry.parts)
        if len(entry.parts) > SMALL_PARTS and rows < min(SMALL_ROWS, _part_rows(store.spaces[name]) // 2) * len(entry.parts):
            return f"space {name!r} lies in {len(entry.parts):,} parts of {rows // len(entry.parts):,} vectors"
    return None


def compact_parts(writer: StoreWriter, say: Callable[[str], None] = lambda text: None) -> None:
    """Rewrite items, vectors and failures of the live rows into new parts, and commit them at once.

    A kill before the commit leaves the store as it was. Readers that opened it before go on with its old files, which the next
    writer deletes once they are gone.
    """
    try:
        manifest = rewritten(writer.store, say)
        if pending(writer.store.path) is not None:  # who was removed is forgotten now
            note_pending(writer.folder, removed_ids(writer.store))
        writer.replace(manifest)
    except OSError as error:
        raise StoreError(
            f"{writer.store.path} could not be compacted ({reason_of(error)}); it is as it was. Make room and try again."
        ) from error
    writer.clean()


def rewritten(store: StoreReader, say: Callable[[str], None] = lambda text: None) -> Manifest:
    """The manifest of the store's live rows in new files."""
    manifest = replace(store.manifest, items=tuple(_items(store)), tombstones=())
    for name, space in store.spaces.items():
        say(f"space {name}")
        manifest = manifest.with_space(name, _entry(store, space, manifest))
    named = [*store.manifest.refs(), *manifest.refs()]
    return replace(manifest, next_file=next_number(named, store.manifest.next_file))


def _items(store: StoreReader) -> Iterator[PartRef]:
    number = next_number(store.manifest.items, store.manifest.next_file)
    for i, lo in enumerate(range(0, len(store.items), ITEM_ROWS)):
        rows = store.items.rows[lo : lo + ITEM_ROWS]
        table = store.items.take(rows)
        yield write_table(store.path, f"items/part-{number + i:06d}.parquet", table, "embedstore-items", first_row=int(rows[0]))


def _entry(store: StoreReader, space: Space, manifest: Manifest) -> SpaceEntry:
    entry = manifest.spaces[space.name]
    folder, number = f"spaces/{space.name}", next_number(entry.parts, manifest.next_file)
    parts, several = [], []
    for i, rows in enumerate(_runs(space)):
        file = f"{folder}/part-{number + i:06d}.h5"
        parts.append(write_vectors(store.path, file, space.take(rows), rows, space.hash_of(rows)))
        if space.pieces is not None:
            several.append(write_pieces(store.path, pieces_file(file), space.pieces.of(rows), rows))
    failures: tuple[PartRef, ...] = ()
    if space.failures.num_rows:
        file = f"{folder}/failures-{next_number(entry.failures, manifest.next_file):06d}.parquet"
        failures = (write_table(store.path, file, space.failures, "embedstore-failures"),)
    return replace(entry, parts=tuple(parts), failures=failures, pieces=tuple(several))


def _runs(space: Space) -> Iterator[npt.NDArray[np.int64]]:
    rows, size = np.sort(space.rows), _part_rows(space)
    for lo in range(0, len(rows), size):
        yield rows[lo : lo + size]


def _part_rows(space: Space) -> int:
    held = len(space) + (len(space.pieces) if space.pieces else 0)
    return max(1, int(PART_BYTES / (space.dim * space.dtype.itemsize) * len(space) / max(held, 1)))
