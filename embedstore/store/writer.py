"""`StoreWriter`: the one place that changes a store. A commit is all or nothing, whenever the process dies."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from embedstore._core.atomic_files import json_bytes
from embedstore._core.distinct import distinct
from embedstore._core.encoding import VERSIONS
from embedstore._core.folders import Folder
from embedstore._core.keys import Keys
from embedstore._core.locks import locked
from embedstore._core.message_parts import spelled
from embedstore._core.pieces import Pieces
from embedstore.errors import FingerprintError, StoreError, UsageError, next_step, reason_of
from embedstore.spec import EncoderSpec
from embedstore.store.combined import combined_is_current, write_combined
from embedstore.store.create import busy, discard_empty
from embedstore.store.format import (
    COMBINED,
    LOCK,
    MANIFEST,
    PENDING,
    Manifest,
    PartRef,
    SpaceEntry,
    check_name,
    pieces_file,
    read_manifest,
)
from embedstore.store.leases import LEASES, begin_epoch, files_left, leave_behind, retire
from embedstore.store.parts import write_pieces, write_table, write_vectors
from embedstore.store.reader import StoreReader, is_store
from embedstore.store.space import Space
from embedstore.store.space_info import DTYPES, SpaceInfo, space_file

if TYPE_CHECKING:
    import pyarrow as pa

Rows = npt.NDArray[np.int64]

FILES_AT_ONCE = 4
"""Vector files of one commit that are written at the same time: while one waits for the disk, another is hashed."""


@dataclass(frozen=True)
class NewVectors:
    """What one commit adds to one space.

    Parameters
    ----------
    rows : (n,) int64
    vectors : (n, dim), of the space's dtype
    hashes : (n, 2) uint64
        Content hash of each vector's payload.
    failures : pyarrow.Table, optional
        As made by `embedstore.store.space.failures_table`.
    pieces : Pieces, optional
        Of each vector's payload; those of a space that keeps them, and of no other.
    """

    rows: Rows
    vectors: npt.NDArray[Any]
    hashes: Keys
    failures: pa.Table | None = None
    pieces: Pieces | None = None


class StoreWriter:
    """Holds the write lock from ``__enter__`` to ``__exit__``; `store` is the latest generation.

    Parameters
    ----------
    opened : StoreReader
        The store, in whatever generation; it is opened again, in the same way.
    discard_if_empty : bool
        Delete the store if the block fails before anything was ever committed.
    """

    def __init__(self, opened: StoreReader, *, discard_if_empty: bool = False) -> None:
        self._root = opened.path
        self._open = type(opened).open
        self._access = opened.access
        self._discard_if_empty = discard_if_empty
        self.store: StoreReader
        self._new_spaces: dict[str, SpaceInfo] = {}
        self._durable: set[tuple[str, ...]] = set()

    def __enter__(self) -> StoreWriter:
        with ExitStack() as opened:
            try:
                if not is_store(self._root):
                    self._open(self._root)  # says so, before a lock file is made there
                self._folder = opened.enter_context(Folder.at(self._root))
                opened.enter_context(locked(self._folder, LOCK, busy=busy(self._root)))
                self.store = self._open(self._root, **vars(self._access))
                begin_epoch(self._folder, self.store.manifest.epoch)
                self.clean()
                self._upgrade()
            except OSError as error:
                raise StoreError(f"{self._root} cannot be written to: {reason_of(error)}.{next_step(error)}") from error
            self._opened = opened.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._opened:
            try:
                if error is not None and self.store.generation == 0 and self._discard_if_empty:
                    _remove_orphans(self.store, self._folder)
                    discard_empty(self._folder)
                elif not combined_is_current(self.store):
                    write_combined(self.store)
            except StoreError:
                if error is None:  # what went wrong first is what the user has to hear
                    raise

    @property
    def folder(self) -> Folder:
        """The store's folder, open."""
        return self._folder

    @property
    def next_row(self) -> int:
        """The row that the next new item gets."""
        return self.store.manifest.next_row

    def ensure_space(
        self,
        name: str,
        spec: EncoderSpec,
        *,
        dtype: str,
        provenance: Mapping[str, str],
        license: str | None = None,
        column: str | None = None,
        pieces: str | None = None,
    ) -> Space:
        """The space called `name`; a new one is made by the next commit.

        Raises
        ------
        FingerprintError
            The space holds another encoder's vectors.
        StoreError
            The space stores another dtype.
        """
        if name in self.store.spaces:
            space = self.store.spaces[name]
            _check_same(space, spec, dtype)
            if space.unit != pieces and not spec.declared:  # an import says it in its own words
                held, given = (f"every {word}" if word else "one vector an item" for word in (space.unit, pieces))
                raise StoreError(f"Space {name!r} keeps {held}, and {spec.label} makes {given}. Mend the encoder.")
            return space
        if dtype not in DTYPES:
            raise UsageError(f"dtype must be one of {list(DTYPES)}. Got {dtype!r} instead.")
        info = SpaceInfo(check_name(name, "space"), spec, dtype, dict(provenance), license, column, pieces)
        self._new_spaces[name] = info
        return Space(self.store.files, info, SpaceEntry(""), self.store.dead)

    def publish_spaces(self) -> None:
        """Commit spaces that are new and still empty."""
        self.commit()

    def commit(
        self,
        items: pa.Table | None = None,
        *,
        removed: Rows | None = None,
        vectors: Mapping[str, NewVectors] | None = None,
    ) -> None:
        """Write everything, then name it in ``store.json``: a kill before that leaves the last generation.

        Parameters
        ----------
        items : pyarrow.Table
            New items; ``row`` ascends from `next_row`.
        removed : (m,) int64
            Rows that are no longer valid.
        vectors : mapping of space name to NewVectors
        """
        old = self.store.manifest
        new = replace(old, generation=old.generation + 1)
        try:
            for name, info in self._new_spaces.items():
                new = new.with_space(name, self._make_space(info))
            self._new_spaces = {}
            with ThreadPoolExecutor(FILES_AT_ONCE, thread_name_prefix="embedstore-commit") as pool:
                entries = {
                    name: pool.submit(self._add_vectors, name, new.spaces[name], added)
                    for name, added in (vectors or {}).items()
                }
                if items is not None and items.num_rows:
                    new = self._add_items(new, items)
                if removed is not None and len(removed):
                    new = replace(new, tombstones=(*new.tombstones, self._tombstones(removed)))
                for name, entry in entries.items():
                    new = new.with_space(name, entry.result())
            if new == replace(old, generation=new.generation):
                return
            self._publish(new)
        except OSError as error:
            raise StoreError(
                f"Writing to {self._root} failed ({reason_of(error)}); everything committed before is safe. "
                "Make room or mend the permissions, then run the same command again."
            ) from error

    def replace(self, manifest: Manifest) -> None:
        """Commit a manifest whose files are already written. Those it no longer names are left to readers that hold a lease.

        `clean` deletes them, once no one has an older generation open.
        """
        old = self.store.manifest
        new = replace(manifest, generation=old.generation + 1, epoch=old.epoch + 1)
        begin_epoch(self._folder, new.epoch)
        named = {ref.file for ref in new.refs()}
        leave_behind(self._folder, old.epoch, {ref.file for ref in old.refs()} - named)
        self._publish(new)

    def clean(self) -> None:
        """Delete what readers that are gone by now went by, and what a killed writer left."""
        retire(self._folder, self.store.manifest.epoch)
        _remove_orphans(self.store, self._folder)

    def _upgrade(self) -> None:
        """Write the manifest of an older format version anew: it then guards itself."""
        if read_manifest(self._root)[1] != VERSIONS["embedstore-store"][-1]:
            self._publish(self.store.manifest)

    def _make_space(self, info: SpaceInfo) -> SpaceEntry:
        *folders, file = space_file(info.name).split("/")
        data = info.to_json()
        with self._made(*folders) as folder:
            folder.write(file, data)
        return SpaceEntry(hashlib.sha256(data).hexdigest())

    def _add_items(self, manifest: Manifest, items: pa.Table) -> Manifest:
        self._made("items").close()
        file = f"items/part-{next_number(manifest.items, manifest.next_file):06d}.parquet"
        ref = write_table(self._root, file, items, "embedstore-items", first_row=manifest.next_row)
        return replace(manifest, items=(*manifest.items, ref), next_row=manifest.next_row + items.num_rows)

    def _tombstones(self, rows: Rows) -> PartRef:
        import pyarrow as pa

        self._made("items").close()
        manifest = self.store.manifest
        file = f"items/tombstones-{next_number(manifest.tombstones, manifest.next_file):06d}.parquet"
        table = pa.table({"row": pa.array(distinct(rows), pa.int64())})
        return write_table(self._root, file, table, "embedstore-tombstones")

    def _add_vectors(self, name: str, entry: SpaceEntry, added: NewVectors) -> SpaceEntry:
        folder, least = f"spaces/{name}", self.store.manifest.next_file
        if len(added.rows):
            file = f"{folder}/part-{next_number(entry.parts, least):06d}.h5"
            ref = write_vectors(self._root, file, added.vectors, added.rows, added.hashes)
            if added.pieces is not None:
                several = write_pieces(self._root, pieces_file(file), added.pieces, added.rows)
                entry = replace(entry, pieces=(*entry.pieces, several))
            entry = replace(entry, parts=(*entry.parts, ref))
        if added.failures is not None and added.failures.num_rows:
            file = f"{folder}/failures-{next_number(entry.failures, least):06d}.parquet"
            ref = write_table(self._root, file, added.failures, "embedstore-failures")
            entry = replace(entry, failures=(*entry.failures, ref))
        return entry

    def _publish(self, manifest: Manifest) -> None:
        try:
            manifest.check()
        except ValueError as error:
            raise StoreError(f"{self._root} was not changed: what was to be committed contradicts itself ({error}).") from error
        self._folder.write(MANIFEST, json_bytes(manifest.to_dict()))
        same = manifest.epoch == self.store.manifest.epoch
        self.store = self.store.at(manifest) if same else self._open(self._root, **vars(self._access))

    def _made(self, *names: str) -> Folder:
        """The folder `names` of the store, made where it is not there, and durable before anything is committed to it."""
        new = names not in self._durable
        folder = self._folder.inside(*names, create=new)
        self._durable.add(names)
        return folder


def next_number(refs: Iterable[PartRef], least: int) -> int:
    """One more than the highest number in the names of `refs`, and no less than `least`: no name is used again."""
    return max(least, 1 + max((int(Path(ref.file).stem.rpartition("-")[2]) for ref in refs), default=-1))


def _of_its_own(spec: EncoderSpec) -> str:
    """How a space for such vectors is asked for."""
    if spec.parts:
        return f'--{spec.modality} "NEWNAME={spelled(spec.parts)}={spec.name}"'
    return f"--{spec.modality} NEWNAME={spec.name}"


def _check_same(space: Space, spec: EncoderSpec, dtype: str) -> None:
    if space.fingerprint != spec.fingerprint:
        raise FingerprintError(
            f"Space {space.name!r} holds vectors of {space.spec.label}; {spec.label} makes others"
            f"{_prompts_differ(space.spec, spec)}, and the two cannot be mixed. Give the new ones a space of their own: "
            + ("--space NEWNAME" if spec.declared else _of_its_own(spec))
        )
    if space.spec.query_prompt != spec.query_prompt:
        raise UsageError(
            f"Space {space.name!r} records the prompt {space.spec.query_prompt!r} for queries, not {spec.query_prompt!r}. "
            f"Leave out --query-prompt, or embed into a space of its own: {_of_its_own(spec)}"
        )
    if space.info.dtype != dtype:
        raise StoreError(f"Space {space.name!r} stores {space.info.dtype}, not {dtype}. Leave out --dtype.")


def _prompts_differ(held: EncoderSpec, new: EncoderSpec) -> str:
    """Both prompts, where it is they that differ."""
    return "" if held.prompt == new.prompt else f" (prompt {new.prompt!r} instead of {held.prompt!r})"


def orphans(store: StoreReader) -> list[str]:
    """Files (relative, with ``/``) in the store's data folders that its manifest does not name: what a killed writer leaves.

    Raises
    ------
    StoreError
        Something that is neither file nor folder lies where a file of the store belongs, such as a link.
    """
    with Folder.at(store.path) as root:
        return _orphans(store, root)


def _orphans(store: StoreReader, root: Folder) -> list[str]:
    known = {ref.file for ref in store.manifest.refs()}
    known |= {space_file(name) for name in store.manifest.spaces}
    known |= files_left(root, store.manifest.epoch)
    for name in (MANIFEST, COMBINED, LOCK):
        root.has(name)
    found = [name for name in (f"{MANIFEST}.tmp", f"{COMBINED}.tmp", f"{PENDING}.tmp") if root.has(name)]
    found += [file for file in _files_below(root, LEASES) if file.endswith(".tmp")]
    for top in ("items", "spaces"):
        found += [file for file in _files_below(root, top) if file not in known]
    return sorted(found)


def _files_below(root: Folder, *names: str) -> Iterator[str]:
    """Files (relative to `root`) in the folder `names` and below, but for the indexes of spaces."""
    try:
        with root.inside(*names) as folder:
            files, folders = folder.listing()
    except FileNotFoundError:
        return
    yield from ("/".join((*names, file)) for file in files)
    for inner in folders:
        if len(names) != 2 or inner != "index":  # a space may be called so, too
            yield from _files_below(root, *names, inner)


def _remove_orphans(store: StoreReader, root: Folder) -> None:
    found = _orphans(store, root)
    if any(file.endswith(".h5") for file in found) and not combined_is_current(store):
        root.unlink(COMBINED)  # of parts that are gone HDF5 reads zeros, and says nothing
    for file in found:
        *names, name = file.split("/")
        with root.inside(*names) as folder:
            folder.unlink(name)
    with suppress(FileNotFoundError), root.inside("spaces") as spaces:
        for name in spaces.listing()[1]:
            if name not in store.manifest.spaces:
                spaces.remove_empty(name)
