"""`StoreReader`: a store as it is read, pinned to the generation it opened. Knows neither views nor writers."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from embedstore._core.arguments import as_type, shown, strings
from embedstore._core.distinct import distinct
from embedstore._core.folders import Folder, readable
from embedstore.errors import CorruptStoreError, StoreError, UsageError, next_step, reason_of
from embedstore.store.access import WHERE_TIMEOUT, Access
from embedstore.store.create import create_store
from embedstore.store.format import HEAD, HEADS, MANIFEST, Manifest, SpaceEntry, read_manifest
from embedstore.store.items import Items, Rows
from embedstore.store.leases import LeaseGoneError, take_lease
from embedstore.store.part_files import PartFiles
from embedstore.store.parts import read_table, row_numbers
from embedstore.store.space import Space
from embedstore.store.space_info import read_space_info

EPOCHS_MISSED = 100
"""Compactions that may end while a store is opened."""


class StoreReader:
    """What a store's folder holds: items, their vectors in one or more spaces, and the names of the heads trained on them.

    Reading needs no lock: everything that a generation names is immutable. `refresh` moves to the latest generation.
    """

    def __init__(
        self, path: str | os.PathLike[str], manifest: Manifest, *, access: Access | None = None, lease: int | None = None
    ) -> None:
        self.path = Path(path)
        self.manifest = manifest
        self.access = access or Access()
        self.files = PartFiles(self.path, check=self.access.check, lease=lease)
        self.kept: dict[Any, Any] = {}
        """What others keep for as long as this object lives, such as open indexes."""

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"kept": {}}

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        create: bool = False,
        check: bool = True,
        where_timeout: float = WHERE_TIMEOUT,
        allow_models: Sequence[str | os.PathLike[str]] = (),
    ) -> Self:
        """Open the store at `path`.

        Parameters
        ----------
        create : bool
            Make an empty store where there is none (in a folder that is new or empty).
        check : bool
            Compare items and vectors with their checksums when they are first used on this machine.
        where_timeout : float
            Seconds after which a filter (``where``) is given up.
        allow_models : sequence of path
            Models that are loaded though the store names them by a relative path, or holds them: if you trust them.

        Raises
        ------
        StoreError, CorruptStoreError, FormatVersionError
        """
        root, access = path_of(path), Access(where_timeout, allow_models, check)
        try:
            found = is_store(root)
        except OSError as error:
            raise StoreError(f"{root} cannot be read: {reason_of(error)}.{next_step(error)}") from error
        if found:
            return cls._latest(root, access)
        if not create:
            raise StoreError(
                f"There is no store at {root}{_near(root)}. Make one: embedstore embed DATASET --store {root} --image …"
            )
        create_store(root)
        return cls._latest(root, access)

    @classmethod
    def _latest(cls, root: Path, access: Access) -> Self:
        """The latest generation, whose files no compaction takes away while this object lives."""
        for _ in range(EPOCHS_MISSED):
            manifest, _version = read_manifest(root)
            with suppress(LeaseGoneError), Folder.at(root) as folder:  # a compaction ended: the next manifest is there
                lease = take_lease(folder, manifest.epoch)
                if lease is None and read_manifest(root)[0].epoch != manifest.epoch:
                    continue
                return cls(root, manifest, access=access, lease=lease)
        raise StoreError(f"{root} is compacted again and again. Try again when that has ended.")

    def __repr__(self) -> str:
        return f"<Store {self.path}: {len(self)} items, spaces {list(self.spaces)}, generation {self.generation}>"

    def __len__(self) -> int:
        return len(self.items)

    @property
    def generation(self) -> int:
        """Counts commits; what this object shows belongs to this one."""
        return self.manifest.generation

    def refresh(self) -> Self:
        """The same store at its latest generation, as a new object."""
        return self.alike(self.path)

    def alike(self, path: Path) -> Self:
        """The store at `path`, opened as this one was."""
        return type(self).open(path, **vars(self.access))

    def at(self, manifest: Manifest) -> Self:
        """The store as a later generation of the same epoch shows it: what was compared, and the lease, are shared."""
        later = type(self)(self.path, manifest, access=self.access)
        later.files = self.files
        return later

    def where(self, expression: str) -> Rows:
        """Live rows (n,) ascending for which the SQL `expression` holds; see `Items.where`."""
        return self.items.where(as_type(expression, str, "where"), timeout=self.access.where_timeout)

    @cached_property
    def dead(self) -> Rows:
        """Rows (n,) that were removed or replaced, ascending."""
        tables = [read_table(self.files, ref, "embedstore-tombstones") for ref in self.manifest.tombstones]
        rows = [row_numbers(table) for table in tables]
        return distinct(np.concatenate([np.empty(0, dtype=np.int64), *rows]))

    @cached_property
    def items(self) -> Items:
        return Items(self.files, self.manifest.items, self.dead)

    @cached_property
    def spaces(self) -> Mapping[str, Space]:
        return {name: self._described(name, entry) for name, entry in self.manifest.spaces.items()}

    def _described(self, name: str, entry: SpaceEntry) -> Space:
        info = read_space_info(self.path, name, entry.spec_sha256)
        if len(entry.pieces) != (len(entry.parts) if info.pieces else 0):
            raise CorruptStoreError(
                f"{self.path / MANIFEST} names {len(entry.parts)} parts of space {name!r} and {len(entry.pieces)} of pieces, "
                "which do not go together. Restore it from a backup."
            )
        return Space(self.files, info, entry, self.dead)

    def space(self, name: str) -> Space:
        """The space called `name`; `UsageError` lists those there are."""
        name = as_type(name, str, "the name of a space")
        if name not in self.spaces:
            known = ", ".join(self.spaces) or "none yet"
            raise UsageError(f"{self.path} has no space {name!r}. Spaces: {known}.")
        return self.spaces[name]

    def absent(self, ids: Sequence[str]) -> list[str]:
        """Those of `ids` that no item has, once each."""
        ids = list(dict.fromkeys(strings(ids, "ids")))
        return [ids[i] for i in np.flatnonzero(self.items.known_rows(ids) < 0).tolist()]

    @property
    def heads(self) -> list[str]:
        """Names of the saved heads."""
        try:
            with readable(self.path / HEADS), Folder.below(self.path, HEADS) as folder:
                names = folder.listing()[1]
        except FileNotFoundError:
            return []
        shown = (name for name in names if not name.startswith("."))  # the others are being removed
        return [name for name in shown if os.path.lexists(self.path / HEADS / name / HEAD)]

    def info(self) -> dict[str, Any]:
        """The document of ``embedstore info --json``."""
        spaces = {}
        for name, space in self.spaces.items():
            vectors, failed = len(space), space.failures.num_rows
            spaces[name] = {
                "vectors": vectors,
                "missing": len(self) - vectors - failed,
                "failed": failed,
                "dim": space.dim,
                "dtype": space.info.dtype,
                "fingerprint": space.fingerprint,
                "encoder": space.spec.name,
                **_told(space),
                **({} if space.info.column is None else {"column": space.info.column}),
                **({"declared": True} if space.spec.declared else {}),
            }
        return {
            "items": len(self),
            "columns": self.items.column_words(),
            "spaces": spaces,
            "heads": self.heads,
            "generation": self.generation,
        }


def path_of(store: StoreReader | str | os.PathLike[str]) -> Path:
    """The folder of a store, which need not be one yet.

    Raises
    ------
    UsageError
        Neither a store nor a path.
    """
    if not isinstance(store, StoreReader | str | os.PathLike):
        raise UsageError(f"store must be a Store or a path. Got {shown(store)} instead.")
    return store.path if isinstance(store, StoreReader) else Path(store)


def is_store(root: Path) -> bool:
    """Whether something is in the place of a manifest in `root`."""
    try:
        os.lstat(root / MANIFEST)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _told(space: Space) -> dict[str, str]:
    """The prompts of items and of queries, and the licence of the weights, where there are any."""
    said = {"prompt": space.spec.prompt, "query_prompt": space.spec.query_prompt, "license": space.info.license or ""}
    return {key: value for key, value in said.items() if value}


def _near(root: Path) -> str:
    """A hint at stores beside or inside `root`."""
    for folder in (root, root.parent):
        if folder.is_dir():
            found = sorted(path.parent.name for path in folder.glob(f"*/{MANIFEST}"))
            if found:
                return f" (stores in {folder}: {', '.join(found[:5])})"
    return ""
