"""What is left of a store some of whose parts are damaged: everything that still is what was committed."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from embedstore._core.atomic_files import sha256_file
from embedstore._core.column_values import blank
from embedstore._core.distinct import distinct
from embedstore._core.keys import KEY_BYTES, Keys, hash_strings
from embedstore.errors import CorruptStoreError
from embedstore.store.format import Manifest, PartRef, SpaceEntry, pieces_file
from embedstore.store.part_files import HASH, ROW, SUMS, VECTORS, PartFiles
from embedstore.store.parts import read_array, row_numbers, write_vectors
from embedstore.store.pending import note_pending, removed_ids
from embedstore.store.reader import StoreReader
from embedstore.store.rewrite import ITEM_ROWS, rewritten
from embedstore.store.space import Space
from embedstore.store.writer import StoreWriter, next_number

Rows = npt.NDArray[np.int64]


@dataclass
class Damage:
    """What was found and taken out.

    Parameters
    ----------
    files : list of str
        Damaged or missing parts, relative to the store.
    items : int
        Items that are gone with their vectors in every space.
    removed : list of str
        Where items are gone: ids that are known to have been removed, so that they are not taken for those.
    vectors : mapping of space name to int
        Vectors that are gone while their items are there.
    revived : int
        Items that had been removed and are back, because it is no longer known that they were.
    """

    files: list[str] = field(default_factory=list)
    items: int = 0
    removed: list[str] = field(default_factory=list)
    vectors: dict[str, int] = field(default_factory=dict)
    revived: int = 0


def damaged_parts(store: StoreReader) -> set[str]:
    """The parts (by file) that are not what was committed, every byte read."""
    return {ref.file for ref in store.manifest.refs() if not _is_whole(store.files, ref)}


def _is_whole(files: PartFiles, ref: PartRef) -> bool:
    """Whether a part is what was committed; where that cannot be told (no permission, no memory), the reason is raised."""
    try:
        return sha256_file(files.path(ref)) == ref.sha256
    except CorruptStoreError:
        return False
    except OSError as error:
        if error.errno == errno.EIO:  # the disk cannot read it
            return False
        raise


def take_out(writer: StoreWriter) -> Damage:
    """Commit the store without its damaged parts, keeping every block of vectors that is whole.

    Items whose part is damaged lose their vectors, too: it is no longer known whose they were. What was removed may be back
    where that it was is lost; of several items with one id, the latest stays.
    """
    store = writer.store
    bad = damaged_parts(store)
    damage = Damage(sorted(bad))
    if not bad:
        return damage
    before, dead = store.manifest, [ref for ref in store.manifest.tombstones if ref.file in bad]
    least = next_number(before.refs(), before.next_file)  # a reader may have the damaged ones open
    manifest = replace(before, tombstones=_whole(before.tombstones, bad), items=_whole(before.items, bad), next_file=least)
    for name, space in store.at(manifest).spaces.items():
        entry, lost = _salvaged(space, before.spaces[name], bad, least)
        manifest = manifest.with_space(name, entry)
        damage.vectors |= {name: lost} if lost else {}
    if dead or len(manifest.items) < len(before.items):
        left, lost_rows = store.at(manifest), _rows_of_lost_parts(before, store.at(manifest), bad)
        again = _older_of_one_id(left)
        damage.items = sum(ref.rows for ref in before.items if ref.file in bad)
        damage.revived = max(0, sum(ref.rows for ref in dead) - len(again))
        damage.removed = removed_ids(left) if damage.items else []
        live = store.at(manifest)
        live.dead = distinct(np.concatenate([left.dead, lost_rows, again]))
        manifest = rewritten(live)
    if damage.items and any(not space.spec.declared for space in store.at(manifest).spaces.values()):
        note_pending(writer.folder, damage.removed)
    writer.replace(replace(manifest, next_file=next_number(manifest.refs(), least)))
    return damage


def lacks_vectors(store: StoreReader) -> bool:
    """Whether an item has a payload of a computed space, and neither a vector nor a failure there."""
    for space in store.spaces.values():
        columns = [name for name in space.info.columns if name in store.items.column_types()]
        if space.spec.declared or not columns:
            continue
        failed = row_numbers(space.failures)
        for lo in range(0, len(store.items), ITEM_ROWS):
            rows = store.items.rows[lo : lo + ITEM_ROWS]
            rows = rows[~space.has(rows) & ~np.isin(rows, failed)]
            found = zip(columns, store.items.take(rows, columns).columns, strict=True)
            missing = [np.asarray(blank(column) if name in space.info.texts else column.is_null()) for name, column in found]
            lacking = (np.logical_or if space.info.whole else np.logical_and).reduce(missing)
            if not lacking.all():
                return True
    return False


def _whole(refs: tuple[PartRef, ...], bad: set[str]) -> tuple[PartRef, ...]:
    return tuple(ref for ref in refs if ref.file not in bad)


def _rows_of_lost_parts(manifest: Manifest, left: StoreReader, bad: set[str]) -> Rows:
    """The rows with a vector or a failure in `left` that a damaged item part may have held."""
    ends = [*(ref.first_row for ref in manifest.items), manifest.next_row][1:]
    rows = [row_numbers(space.failures) for space in left.spaces.values()]
    every = distinct(np.concatenate([*(space.rows for space in left.spaces.values()), *rows, np.empty(0, np.int64)]))
    lost = [
        every[np.searchsorted(every, ref.first_row) : np.searchsorted(every, end)]
        for ref, end in zip(manifest.items, ends, strict=True)
        if ref.file in bad
    ]
    return np.concatenate([np.empty(0, np.int64), *lost])


def _older_of_one_id(store: StoreReader) -> Rows:
    """Rows of items whose id a later row has, too."""
    if not len(store.items):
        return np.empty(0, np.int64)
    table = store.items.table(["id"])
    keys = hash_strings(table.column("id").to_pylist())
    _, last = np.unique(keys[::-1], axis=0, return_index=True)
    return np.delete(store.items.rows, len(keys) - 1 - last)


def _salvaged(space: Space, entry: SpaceEntry, bad: set[str], least: int) -> tuple[SpaceEntry, int]:
    """The entry of a space with its whole parts and the whole blocks of damaged ones, and how many vectors are lost."""
    files, lost = PartFiles(space.root), 0
    number, parts, whole_pieces = next_number(entry.parts, least), [], _whole(entry.pieces, bad)
    several = {ref.file for ref in whole_pieces}
    for ref in entry.parts:
        if ref.file not in bad and (not entry.pieces or pieces_file(ref.file) in several):
            parts.append(ref)
            continue
        found = None if entry.pieces else _whole_blocks(files, space, ref)  # a vector goes with its pieces
        kept = 0 if found is None else len(found[1])
        lost += ref.rows - kept
        if found is not None and kept:
            vectors, rows, hashes = found
            parts.append(write_vectors(space.root, f"spaces/{space.name}/part-{number:06d}.h5", vectors, rows, hashes))
            number += 1
    names = {pieces_file(ref.file) for ref in parts}
    pieces = tuple(ref for ref in whole_pieces if ref.file in names)
    return replace(entry, parts=tuple(parts), failures=_whole(entry.failures, bad), pieces=pieces), lost


def _whole_blocks(files: PartFiles, space: Space, ref: PartRef) -> tuple[npt.NDArray[np.generic], Rows, Keys] | None:
    """The vectors of a damaged part whose blocks are whole, with their rows and hashes; None where it cannot be told."""
    if SUMS not in ref.offsets:
        return None
    try:
        rows = read_array(files, ref, ROW, np.int64)
        hashes = read_array(files, ref, HASH, np.uint8, KEY_BYTES)
        vectors = read_array(files, ref, VECTORS, space.dtype, space.dim, check=False)
        whole = files.whole_rows(ref, vectors)
    except CorruptStoreError:
        return None
    return np.asarray(vectors[whole]), np.asarray(rows[whole]), np.ascontiguousarray(hashes[whole]).view("<u8")
