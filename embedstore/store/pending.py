"""`repair.json`: what a repair that lost items has yet to do. It is there until they are embedded again."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from embedstore._core.atomic_files import json_bytes, read_json
from embedstore._core.encoding import encoding, open_sealed, sealed
from embedstore._core.folders import Folder
from embedstore._core.keys import hash_strings
from embedstore.errors import CorruptStoreError, StoreError
from embedstore.store.format import PENDING
from embedstore.store.parts import read_table, row_numbers
from embedstore.store.reader import StoreReader


def pending(root: Path) -> list[str] | None:
    """Ids that a repair which was begun is not to embed again; None where none was begun.

    Raises
    ------
    CorruptStoreError
    """
    path = root / PENDING
    try:
        data = open_sealed(read_json(path, root), "embedstore-repair", str(path), f"Remove it: rm {path}")
    except CorruptStoreError:
        raise
    except StoreError:
        return None
    removed = data.get("removed")
    return [id for id in removed if isinstance(id, str)] if isinstance(removed, list) else []


def note_pending(folder: Folder, removed: Iterable[str]) -> None:
    """Note that items are lost, and that `removed` are not among them; what an earlier note says stays."""
    known = sorted({*removed, *(pending(folder.path) or ())})
    folder.write(PENDING, json_bytes(sealed({**encoding("embedstore-repair"), "removed": known})))


def end_repair(root: Path) -> None:
    """What was lost is embedded again, as far as the dataset has it."""
    with Folder.at(root) as folder:
        folder.unlink(PENDING)


def removed_ids(store: StoreReader) -> list[str]:
    """Ids of items that were removed since the last compaction, and that no live item has."""
    found: set[str] = set()
    for ref in store.manifest.items:
        table = read_table(store.files, ref, "embedstore-items", ["row", "id"])
        dead = np.isin(row_numbers(table), store.dead)
        found.update(id for id, is_dead in zip(table.column("id").to_pylist(), dead.tolist(), strict=True) if is_dead)
    ids = sorted(found)
    gone = store.items.id_table.lookup(hash_strings(ids)) < 0
    return [id for id, is_gone in zip(ids, gone.tolist(), strict=True) if is_gone]
