"""`import_vectors`: vectors that somebody else computed into a store, declared to be of an encoder. The wiring."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from embedstore._keys import hash_strings
from embedstore.encoders.base import ALIASES, ENCODERS
from embedstore.errors import DuplicateIdError, PayloadError, SourceError, UsageError
from embedstore.pipeline.pack import Packed, pack
from embedstore.pipeline.plan import Chunk, Planner, new_item_rows
from embedstore.pipeline.report import Progress, ProgressCallback
from embedstore.pipeline.stages import Background
from embedstore.sources.matrices import Block, Matrix
from embedstore.sources.vectors import VectorSource, open_vectors
from embedstore.spec import MODALITIES, UNNAMED, EncoderSpec
from embedstore.store import Store
from embedstore.store.items import ID, ROW
from embedstore.store.space import Failure, Space, failures_table
from embedstore.store.writer import NewVectors, StoreWriter

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ImportReport", "ImportedSpace", "import_vectors"]

Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

PART_BYTES = 64 << 20
TWO_TOWERS = ("openclip",)
"""Encoder families whose images and texts can be compared, which a name alone tells."""
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
            "gb_per_s": round(self.gb_per_s, 3),
            "notes": list(self.notes),
        }


def import_vectors(
    source: str | os.PathLike[str] | npt.NDArray[Any],
    store: Store | str | os.PathLike[str],
    *,
    space: str | None = None,
    encoder: str | None = None,
    modality: str | None = None,
    ids: str | os.PathLike[str] | Sequence[str] | npt.NDArray[Any] | None = None,
    metadata: str | os.PathLike[str] | Mapping[str, Sequence[Any]] | None = None,
    vector_column: str | None = None,
    dtype: str | None = None,
    normalized: bool | None = None,
    add_items: bool = False,
    strict: bool = False,
    on_progress: ProgressCallback | None = None,
) -> ImportReport:
    """Import vectors into a space which says that they were declared to be of an encoder, not computed by it here.

    Vectors are known by their bytes: the same ones again add nothing, changed ones replace what was there. A run that was
    killed is completed by the same call, to the same bytes as one that was not.

    Parameters
    ----------
    source : path or (n, dim) array
        ``.npy``, ``.npz``, Parquet, CSV, TSV, JSON lines, HDF5 (``FILE.h5:/dataset``), a folder as clip-retrieval or autofaiss
        write it, or an array of float16, float32 or float64.
    store : Store or path
        Made if it does not exist.
    space : str, optional
        Default: the modality. A source with two modalities makes the spaces ``SPACE-image`` and ``SPACE-text``.
    encoder : str, optional
        Which encoder made the vectors. If embedstore can load it, texts and files are encoded by it to search the space.
    modality : str, optional
        What the vectors are of; needed unless the source, the name of the space or the space that is there says it.
    ids : str, path or sequence, optional
        A column of the source or of `metadata`, a file, ``"row"`` for the numbers of the rows, or the ids. Default: a column
        ``id``, else the numbers of the rows.
    metadata : path or mapping, optional
        A table whose rows are those of the vectors.
    vector_column : str, optional
        The column or array that holds the vectors, if it is not plain.
    dtype : str, optional
        ``"float16"`` (default) or ``"float32"``: how vectors of a new space are stored.
    normalized : bool, optional
        Declare that vectors have unit length; others are failures.
    add_items : bool
        Let a further space of a store bring items that it does not hold yet.
    strict : bool
        Raise `PayloadError` on a part's first failure instead of recording it; nothing of that part is kept.
    on_progress : callable, optional
        Called with a `Progress` now and then.

    Returns
    -------
    ImportReport

    Raises
    ------
    FingerprintError
        The space holds vectors of another encoder, or computed ones.
    DuplicateIdError
        Naming both rows.
    SourceError, StoreError, UsageError
    """
    started = time.perf_counter()
    found = open_vectors(source, ids=ids, metadata=metadata, vector_column=vector_column)
    made = not isinstance(store, Store) and not (Path(store) / "store.json").exists()
    opened = store if isinstance(store, Store) else Store.open(store, create=True)
    report = ImportReport(items=found.count, notes=[*found.notes])
    with opened.writer(discard_if_empty=made) as writer:
        matrices = _named(found, writer.store, space, modality)
        specs = _specs(matrices, writer.store, encoder, normalized)
        spaces = {name: _space(writer, name, specs[name], dtype, found.name) for name in matrices}
        fresh = len(writer.store) > 0 and not any(name in writer.store.spaces for name in spaces)
        _check_ids(found, writer.store, refuse_unknown=fresh and not add_items)
        report.spaces = {name: ImportedSpace(s.spec.name, s.fingerprint, s.dim, s.info.dtype) for name, s in spaces.items()}
        report.bytes = sum(m.shape[0] * m.shape[1] * m.itemsize for _, m in matrices.values())
        run = _Run(found, {name: matrix for name, (_, matrix) in matrices.items()}, spaces, writer, report, strict=strict)
        run.import_all(on_progress or (lambda progress: None))
    report.notes += _notes(found, report, encoder, ids)
    report.seconds = time.perf_counter() - started
    return report


def _named(found: VectorSource, store: Store, space: str | None, modality: str | None) -> dict[str, tuple[str, Matrix]]:
    """Space name → (modality, matrix)."""
    if modality is not None and modality not in MODALITIES:
        raise UsageError(f"modality must be one of {list(MODALITIES)}. Got {modality!r} instead.")
    if "" not in found.matrices:
        if modality is not None and modality not in found.matrices:
            raise UsageError(f"{found.name} has no vectors of {modality}, but of {' and '.join(found.matrices)}.")
        chosen = {m: matrix for m, matrix in found.matrices.items() if modality in (None, m)}
        several = len(chosen) > 1 and space is not None
        return {f"{space}-{m}" if several else space or m: (m, matrix) for m, matrix in chosen.items()}
    if modality is None and space in store.spaces:
        modality = store.spaces[str(space)].spec.modality
    modality = modality or (space if space in MODALITIES else None)
    if modality is None:
        raise UsageError(
            f"Say what {found.name} holds vectors of: --modality {', '.join(MODALITIES[:-1])} or {MODALITIES[-1]}."
        )
    return {space or modality: (modality, found.matrices[""])}


def _specs(
    matrices: Mapping[str, tuple[str, Matrix]], store: Store, encoder: str | None, normalized: bool | None
) -> dict[str, EncoderSpec]:
    """What is declared of each space; what is not said is as it was said before."""
    specs = {}
    for name, (modality, matrix) in matrices.items():
        before = store.spaces[name].spec if name in store.spaces and store.spaces[name].spec.declared else None
        if before is not None and before.dim != matrix.shape[1]:
            raise SourceError(
                f"{matrix.name} holds vectors of {matrix.shape[1]} numbers, but space {name!r} of {before.dim}. "
                "Give them a space of their own: --space NAME."
            )
        named = encoder or (before.name if before is not None and before.family != UNNAMED else None)
        full = ALIASES.get(named or "", named or "")
        family, _, model = full.partition(":")
        aligned = None
        if len(matrices) > 1 or family in TWO_TOWERS:
            aligned = f"declared:{full or '+'.join(matrices)}"
        specs[name] = EncoderSpec(
            name=named or "unnamed",
            family=family or UNNAMED,
            model=model if named else name,
            weights="declared",
            modality=modality,
            dim=matrix.shape[1],
            normalized=before.normalized if normalized is None and before is not None else bool(normalized),
            alignment=before.alignment if before is not None and not encoder else aligned,
            declared=True,
        )
    return specs


def _space(writer: StoreWriter, name: str, spec: EncoderSpec, dtype: str | None, source: str) -> Space:
    from embedstore import __version__

    stored = writer.store.spaces[name].info.dtype if name in writer.store.spaces else "float16"
    provenance = {"declared": f"imported from {os.path.basename(source)}", "embedstore": __version__}
    return writer.ensure_space(name, spec, dtype=dtype or stored, provenance=provenance)


def _check_ids(found: VectorSource, store: Store, *, refuse_unknown: bool) -> None:
    """Before anything is written: no id twice, and none that the store lacks where that is not wanted.

    Raises
    ------
    DuplicateIdError, UsageError
    """
    if found.ids is None and not refuse_unknown:
        return
    import pyarrow as pa
    import pyarrow.compute as pc

    ids = pa.chunked_array(found.id_blocks(65536), pa.string())
    if pc.count_distinct(ids).as_py() < len(ids):
        codes = np.asarray(ids.combine_chunks().dictionary_encode().indices)
        second = int(np.setdiff1d(np.arange(len(codes)), np.unique(codes, return_index=True)[1])[0])
        first = int(np.flatnonzero(codes == codes[second])[0])
        raise DuplicateIdError(
            f"{found.name}: rows {first} and {second} (from 0) both have the id {ids[first].as_py()!r}. "
            "Make ids unique, name another column (--ids NAME), or number the rows (--ids row)."
        )
    if not refuse_unknown:
        return
    known = np.concatenate([store.items.id_table.lookup(hash_strings(chunk.to_pylist())) for chunk in ids.chunks]) >= 0
    if not known.all():
        row = int(np.flatnonzero(~known)[0])
        raise UsageError(
            f"{store.path} has no item for {int((~known).sum()):,} of the {len(ids):,} ids of {found.name}: the first is "
            f"{ids[row].as_py()!r} in row {row} (from 0). Say where the ids are (--ids), or add these items (--add-items)."
        )


def _notes(found: VectorSource, report: ImportReport, encoder: str | None, ids: Any) -> Iterator[str]:
    if encoder and (family := ALIASES.get(encoder, encoder).partition(":")[0]) not in ENCODERS.names():
        yield (
            f"embedstore cannot load an encoder called {encoder!r} (there is no {family!r}): the vectors can be searched by id "
            "and by vector, and trained on, but not searched by texts or files."
        )
    if found.ids is None and ids is None:
        replaced = sum(space.replaced for space in report.spaces.values())
        also = f" {replaced:,} vectors replaced those of the same number." if replaced else ""
        yield f"Ids are the numbers of the rows, from 0.{also} --ids names a column or a file with others."


def part_rows(spaces: Sequence[Space]) -> int:
    """Rows of a part: a power of two that makes about `PART_BYTES`. Every kill costs at most one part."""
    width = sum(space.dim * space.dtype.itemsize for space in spaces)
    return 1 << min(17, max(10, (PART_BYTES // width).bit_length() - 1))


class _Run:
    """One import: blocks of the source into commits. The next block is packed while one is committed."""

    def __init__(
        self,
        found: VectorSource,
        matrices: Mapping[str, Matrix],
        spaces: Mapping[str, Space],
        writer: StoreWriter,
        report: ImportReport,
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
        self._planner = Planner(self._store.items, found.name, rehash=False) if len(self._store) else None

    def import_all(self, on_progress: ProgressCallback) -> None:
        size = part_rows(list(self._spaces.values()))
        threads = min(4, os.cpu_count() or 1)
        background = Background()
        start = 0
        spare: deque[dict[str, Packed]] = deque()
        try:
            with ThreadPoolExecutor(threads, thread_name_prefix="embedstore-pack") as pool:
                for table, blocks in self._blocks(size):
                    whole = (
                        spare.popleft() if spare else {n: Packed.empty(size, s.dim, s.dtype) for n, s in self._spaces.items()}
                    )
                    packed = {name: buffer[: table.num_rows] for name, buffer in whole.items()}
                    for name, (rows, _) in blocks.items():
                        pack(rows, packed[name], pool, threads=threads)
                    present = {name: mask for name, (_, mask) in blocks.items()}
                    prepared = self._prepared(start, table, packed, present)
                    background.submit(partial(self._commit, *prepared, then=partial(spare.append, whole)))
                    start += table.num_rows
                    on_progress(Progress(start, self._found.count, sum(s.imported for s in self._report.spaces.values())))
        finally:
            background.finish()

    def _blocks(self, size: int) -> Iterator[tuple[pa.Table, dict[str, Block]]]:
        """(ids and metadata, space → rows) of each part."""
        import pyarrow as pa

        names = list(self._matrices)
        vectors = zip(*(matrix.blocks(size) for matrix in self._matrices.values()), strict=True)
        for ids, columns, blocks in zip(self._found.id_blocks(size), self._found.metadata_blocks(size), vectors, strict=True):
            yield pa.table({ID: ids, **columns}).combine_chunks(), dict(zip(names, blocks, strict=True))

    def _commit(
        self, items: pa.Table | None, removed: Rows, vectors: Mapping[str, NewVectors], *, then: Callable[[], None]
    ) -> None:
        self._writer.commit(items, removed=removed, vectors=vectors)
        then()

    def _prepared(
        self, start: int, table: pa.Table, packed: Mapping[str, Packed], present: Mapping[str, Mask | None]
    ) -> tuple[pa.Table | None, Rows, dict[str, NewVectors]]:
        """What one commit takes, for the rows of the source from `start`."""
        n = table.num_rows
        chunk = self._planner.plan(table, start) if self._planner is not None else None
        old_row = chunk.old_row if chunk is not None else np.full(n, -1, np.int64)
        states = {name: _State.of(self._spaces[name], old_row, packed[name], present[name]) for name in packed}
        changed = (old_row < 0) | (chunk.metadata_changed if chunk is not None else False)
        for state in states.values():
            changed |= state.replaced
        count = int(changed.sum())
        row = old_row.copy()
        row[changed] = np.arange(self._next_row, self._next_row + count)
        items = self._items(table, chunk, changed) if count else None
        vectors = {name: self._vectors(name, state, changed, row, start, table) for name, state in states.items()}
        removed = old_row[changed & (old_row >= 0)]
        if len(removed):
            vectors |= {n: _carried(s, old_row, changed, row) for n, s in self._store.spaces.items() if n not in states}
        self._next_row += count
        self._report.added += int((old_row < 0).sum())
        self._report.updated += len(removed)
        return items, removed, vectors

    def _items(self, table: pa.Table, chunk: Chunk | None, changed: Mask) -> pa.Table:
        import pyarrow as pa

        if chunk is not None:
            return new_item_rows(chunk, self._store.items, changed, self._next_row, set())
        empty = [f.name for f in table.schema if pa.types.is_null(f.type)]
        rows = pa.array(np.arange(self._next_row, self._next_row + table.num_rows), pa.int64())
        return table.drop_columns(empty).add_column(0, ROW, rows)

    def _vectors(self, name: str, state: _State, changed: Mask, row: Rows, start: int, table: pa.Table) -> NewVectors:
        """What one part adds to a space; counts it."""
        space, counts, packed = self._spaces[name], self._report.spaces[name], state.packed
        good, had = state.good, state.had
        self._refuse_overflow(name, packed, good, start)
        write = good & (~state.same | changed)
        keep = had & ~good & changed  # the vector that was there stays
        counts.imported += int((good & ~state.same).sum())
        counts.replaced += int(state.replaced.sum())
        counts.unchanged += int(state.same.sum())
        counts.missing += int((~state.present).sum())
        counts.failed += int((state.present & ~good).sum())
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

    def _refuse_overflow(self, name: str, packed: Packed, good: Mask, start: int) -> None:
        space = self._spaces[name]
        limit = float(np.finfo(space.dtype).max)
        if len(over := np.flatnonzero(good & (packed.largest > limit))):
            again = "--dtype float32" if name not in self._store.spaces else "--space NEWNAME --dtype float32"
            raise SourceError(
                f"{self._matrices[name].name}: row {start + int(over[0])} (from 0) holds {packed.largest[over[0]]:.6g}; "
                f"{space.info.dtype} holds up to {limit:.6g}. Store the vectors as float32: {again}"
            )

    def _failures(self, name: str, state: _State, row: Rows, start: int, table: pa.Table) -> pa.Table:
        space, matrix = self._spaces[name], self._matrices[name]
        recorded = space.failures_by_row
        add = []
        for i in np.flatnonzero(state.present & ~state.good).tolist():
            item = str(table.column(ID)[i].as_py())
            reason = f"{os.path.basename(matrix.name)}: row {start + i} (from 0) {state.reason(i)}"
            if self._strict:
                raise PayloadError("decode", f"item {item!r}: {reason}. Nothing of this part was kept (--strict).")
            if len(self._report.failures) < MAX_REPORTED_FAILURES:
                self._report.failures.append((name, item, reason))
            failure = Failure(int(row[i]), item, "decode", reason, state.packed.hashes[i].tobytes())
            if not state.had[i] and failure != recorded.get(failure.row):
                add.append(failure)
        return failures_table(add)


@dataclass(frozen=True)
class _State:
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
    def of(cls, space: Space, old_row: Rows, packed: Packed, mask: Mask | None) -> _State:
        n = len(old_row)
        present = np.ones(n, bool) if mask is None else mask
        good = present & np.isfinite(packed.largest)
        if space.spec.normalized:
            lengths = np.sqrt(np.einsum("ij,ij->i", packed.vectors, packed.vectors, dtype=np.float32))
            good &= np.abs(lengths - 1) <= UNIT
        had, same = np.zeros(n, bool), np.zeros(n, bool)
        at = np.flatnonzero(old_row >= 0)
        had[at] = space.has(old_row[at])
        same[at] = had[at] & good[at] & (space.hash_of(old_row[at]) == packed.hashes[at]).all(axis=1)
        return cls(packed, old_row, present, good, had, same)

    @property
    def replaced(self) -> Mask:
        """Another vector takes the place of the item's."""
        return self.had & self.good & ~self.same

    def reason(self, i: int) -> str:
        """Why the vector of a row cannot be used."""
        if np.isnan(largest := self.packed.largest[i]):
            return "holds NaN"
        if np.isinf(largest):
            return "holds infinity"
        length = float(np.linalg.norm(self.packed.vectors[i].astype(np.float32)))
        return f"has length {length:.4g}, but unit length is declared"


def _carried(space: Space, old_row: Rows, changed: Mask, row: Rows) -> NewVectors:
    """Vectors and failures that updated items keep in a space that this import is not about."""
    at = np.flatnonzero(changed & (old_row >= 0))
    recorded = space.failures_by_row
    failures = [
        recorded[old]._replace(row=new)
        for old, new in zip(old_row[at].tolist(), row[at].tolist(), strict=True)
        if old in recorded
    ]
    has = at[space.has(old_row[at])]
    return NewVectors(row[has], space.take(old_row[has]), space.hash_of(old_row[has]), failures_table(failures))
