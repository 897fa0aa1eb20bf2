"""`index`: build, tune and keep the index of a space; open it again, and refuse it when it is damaged or stale."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore._core.arguments import as_type
from embedstore._core.atomic_files import of_one_generation
from embedstore._core.folders import Folder
from embedstore._core.locks import locked
from embedstore._core.threads import bounded
from embedstore._core.typed import from_json
from embedstore.errors import (
    EmbedstoreError,
    FingerprintError,
    StoreError,
    UsageError,
    next_step,
    one_line,
    reason_of,
)
from embedstore.indexing.exact import RESIDENT_BYTES
from embedstore.indexing.faiss_checks import note_made, try_index
from embedstore.indexing.index_files import ENTRIES, FAISS, read_base, write_base
from embedstore.indexing.recipe import Recipe
from embedstore.indexing.report import IndexReport
from embedstore.indexing.vector_index import QUERIES, VectorIndex
from embedstore.indexing.vectors import ArrayVectors, Vectors
from embedstore.retrieval.aligned_spaces import SearchableSpace, skipped_aligners, spaces_of
from embedstore.retrieval.index_options import IndexOptions
from embedstore.retrieval.query_files import read_queries
from embedstore.store import Store
from embedstore.store.format import PartRef
from embedstore.store.indexes import DEPTH, INDEX, LOCK, IndexFile, IndexRecord

__all__ = ["IndexReport", "OpenIndex", "index", "open_index"]


@dataclass(frozen=True)
class OpenIndex:
    """A space that can be searched: by its index where there is a good one, exactly otherwise.

    Parameters
    ----------
    index : VectorIndex
    problem : str, optional
        Why an index that is there is not used.
    remedy : str
        What that means for searches, and what to do.
    record : IndexRecord, optional
    """

    index: VectorIndex
    problem: str | None = None
    remedy: str = ""
    record: IndexRecord | None = None

    @property
    def note(self) -> str | None:
        """What the reader of results has to know."""
        return f"{self.problem} {self.remedy}" if self.problem else None


@dataclass(frozen=True)
class Origin:
    """What an open index was read from: of one origin, one stands for the other.

    Parameters
    ----------
    fingerprint : str
    parts : tuple of PartRef
        With their digests.
    index : list
        State of the index's file; see `states`.
    """

    fingerprint: str
    parts: tuple[PartRef, ...]
    index: list[tuple[int, int] | None]


def origin_of(space: SearchableSpace) -> Origin:
    """What `open_index` of a space would read now."""
    return Origin(space.fingerprint, tuple(space.raw_parts), states([str(space.index_folder / INDEX)]))


def unchanged(
    opened: Mapping[str, tuple[Origin, OpenIndex]], spaces: Mapping[str, SearchableSpace]
) -> dict[str, tuple[Origin, OpenIndex]]:
    """Of what another searcher has open, by name, what would be opened just so; an index that could not be read is not."""
    return {
        name: (origin, found)
        for name, (origin, found) in dict(opened).items()  # copied at once: threads add to it
        if name in spaces and found.problem is None and origin == origin_of(spaces[name])
    }


def states(paths: Sequence[str]) -> list[tuple[int, int] | None]:
    """What tells a file or folder from the one that replaced it; None for what is not there."""
    found: list[tuple[int, int] | None] = []
    for path in paths:
        try:
            status = os.stat(path)
            found.append((status.st_mtime_ns, status.st_ino))
        except OSError:
            found.append(None)
    return found


@bounded()
def index(
    store: Store | str | Path,
    space: str | None = None,
    *,
    recall: float = IndexOptions.recall,
    at: int = IndexOptions.at,
    memory: int | str | None = IndexOptions.memory,
    latency: float | str | None = IndexOptions.latency,
    factory: str | None = IndexOptions.factory,
    queries: str | Path | None = IndexOptions.queries,
    device: str = IndexOptions.device,
    on_progress: Callable[[str], None] = lambda text: None,
) -> IndexReport:
    """Build an index of a space, tuned on held-out queries until its recall is proven, and keep it in the store.

    Parameters
    ----------
    space : str, optional
        May be left out where the store has only one.
    recall : float
        The lower 95 % confidence bound of recall@`at` has to pass this, for every set of queries.
    memory : int or str, optional
        Bytes, or such as ``"4GB"``, for building and for the finished index.
    latency : float or str, optional
        Seconds, or such as ``"5ms"``, for one query at the 95th percentile.
    factory : str, optional
        The kind of index, such as ``"HNSW32"`` or ``"IVF4096,SQ8"``, instead of the one that fits the size.
    queries : str or Path, optional
        Real queries: a ``.npy`` of shape (m, dim), or a space that can be compared with this one. Spaces that are aligned with
        it are used without being named: their vectors are queries of another kind than its own, and measured apart.
    device : str
        ``"cuda"`` builds a graph on a GPU; it is tuned and searched on the CPU.

    Returns
    -------
    IndexReport

    Raises
    ------
    UsageError
        A parameter that cannot be right; memory in which no index can be built.
    StoreLockedError
        Another process is building an index of this space.
    """
    options = IndexOptions(
        recall=recall, at=at, memory=memory, latency=latency, factory=factory, queries=queries, device=device
    )
    opened = store if isinstance(store, Store) else Store.open(store)
    spaces = spaces_of(opened)
    target = _target(opened, spaces, space)
    index = VectorIndex(recall=recall, at=at, memory=memory, latency=latency, factory=factory, device=device)
    busy = f"Another process is building an index of space {target.name!r}. Wait for it to end."
    try:
        with Folder.last(target.index_folder, DEPTH, create=True) as folder, locked(folder, LOCK, busy=busy):
            folder.listing()  # nothing strange is in it
            index.fit(target.raw, _queries(spaces, target, queries), wanted=target.live, say=on_progress)
            _keep(folder, target, index, options)
    except OSError as error:
        raise StoreError(
            f"The index of space {target.name!r} could not be written: {reason_of(error)}.{next_step(error)}"
        ) from error
    return index.report_


def open_index(
    space: SearchableSpace, *, resident: bool = False, device: str = "cpu", exact_bytes: int = RESIDENT_BYTES
) -> OpenIndex:
    """The saved index of `space`, or exact search where there is none that can be trusted.

    Parameters
    ----------
    resident : bool
        Read index and vectors into memory, for many searches.
    device : str
        Where exact search runs.
    exact_bytes : int
        How much exact search may keep; see `ExactIndex`.
    """
    vectors: Vectors = ArrayVectors(space.raw.array()) if resident else space.raw
    try:
        return of_one_generation(
            lambda: IndexRecord.read(space.index_folder),
            lambda record: _opened(space, record, vectors, resident, device, exact_bytes),
        )
    except (EmbedstoreError, LookupError, TypeError, AttributeError, ValueError, RuntimeError, OSError) as error:
        return OpenIndex(_exact(vectors, device, exact_bytes), f"The index is not used: {one_line(error)}", _again(space))


def _opened(
    space: SearchableSpace, record: IndexRecord | None, vectors: Vectors, resident: bool, device: str, exact_bytes: int
) -> OpenIndex:
    """The index that `record` describes, or none where it is of other vectors; raises what is wrong with its files."""
    if record is None:
        return OpenIndex(_exact(vectors, device, exact_bytes))
    if reason := record.misfit(space.name, space.fingerprint, space.raw_parts):
        return OpenIndex(_exact(vectors, device, exact_bytes), f"The index is not used: {reason}.", _again(space), record)
    report = IndexReport.from_dict(record.index["report"])
    base = None
    if record.files:
        recipe = from_json(Recipe, record.index["recipe"])
        paths = {role: record.checked(space.index_folder, role) for role in record.files}
        for role in (FAISS, ENTRIES):
            if role in paths:
                try_index(paths[role], record.files[role].sha256)
        base = read_base(paths, recipe, vectors, record.index["count"], resident=resident)
    opened = VectorIndex.assembled(report, base, vectors, device=device, exact_bytes=exact_bytes)
    return OpenIndex(opened.settle() if resident else opened, record=record)


def _exact(vectors: Vectors, device: str, exact_bytes: int) -> VectorIndex:
    report = IndexReport("flat", len(vectors), vectors.dim, 10, 0.95, "no index")
    return VectorIndex.assembled(report, None, vectors, device=device, exact_bytes=exact_bytes)


def _again(space: SearchableSpace) -> str:
    return f"Search is exact and slower meanwhile; build it again: embedstore index {space.root} {space.name}"


def _target(store: Store, spaces: Mapping[str, SearchableSpace], name: str | None) -> SearchableSpace:
    name = as_type(name, str | None, "space")
    if name is None:
        if len(store.spaces) != 1:
            raise UsageError(f"Say which space to index: {', '.join(spaces) or 'the store has none yet'}.")
        return next(iter(store.spaces.values()))
    if name not in spaces:
        skipped = skipped_aligners(store)
        if (head := name.partition(".")[0]) in skipped:
            raise UsageError(skipped[head])
        raise UsageError(f"{store.path} has no space {name!r}. Spaces: {', '.join(spaces) or 'none yet'}.")
    return spaces[name]


def _queries(
    spaces: Mapping[str, SearchableSpace], target: SearchableSpace, given: str | Path | None
) -> dict[str, npt.NDArray[Any]]:
    found: dict[str, npt.NDArray[Any]] = {}
    if target.spec.alignment is not None:
        for other in spaces.values():
            if other.spec.alignment == target.spec.alignment and other.name != target.name and len(other):
                found[f"{other.name} → {target.name}"] = _sampled(other)
    if given is None:
        return found
    if (name := str(given)) in spaces:
        other = spaces[name]
        if other.fingerprint != target.fingerprint and f"{name} → {target.name}" not in found:
            raise FingerprintError(
                f"Space {name!r} ({other.spec.label}) cannot be compared with {target.name!r} ({target.spec.label})."
            )
        return found | {f"{name} → {target.name}": _sampled(other)}
    return {**found, Path(name).name: read_queries(Path(name), spaces=spaces, dim=target.dim)}


def _sampled(space: SearchableSpace) -> npt.NDArray[Any]:
    rows = space.rows
    chosen = np.random.default_rng(0).choice(len(rows), min(QUERIES, len(rows)), replace=False)
    return space.take(rows[np.sort(chosen)])


def _next_number(folder: Folder) -> int:
    """One that no index here had, nor any file of one, a killed one's included."""
    numbered = (re.match(r"(?:base|labels|entries)-(\d+)\.", name) for name in folder.listing()[0])
    used = [int(match[1]) for match in numbered if match]
    with contextlib.suppress(EmbedstoreError, KeyError, TypeError, ValueError):  # a damaged record is about to be replaced
        if (record := IndexRecord.read(folder.path)) is not None:
            used.append(record.number)
    return 1 + max(used, default=0)


def _keep(folder: Folder, space: SearchableSpace, built: VectorIndex, options: IndexOptions) -> None:
    number = _next_number(folder)
    files: dict[str, IndexFile] = {}
    index: dict[str, Any] = {"report": built.report_.to_dict(), "options": options.recorded()}
    if built.base_ is not None:
        for role, name in write_base(built.base_, folder, number).items():
            ref = PartRef.of(folder.path, name, 0)
            files[role] = IndexFile(name, ref.bytes, ref.sha256)
            note_made(ref.sha256)
        index |= {"recipe": built.base_.recipe.to_dict(), "count": len(built.base_)}
    covers = [(ref.file, ref.sha256) for ref in space.raw_parts]
    IndexRecord(space.name, space.fingerprint, covers, files, index, number).write(folder)
