"""`verify`: reads every byte of a store and says what does not fit."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from embedstore._core.atomic_files import named_files, of_one_generation, read_json, sha256_file
from embedstore._core.distinct import distinct
from embedstore._core.encoding import check_encoding, open_sealed
from embedstore._core.folders import read_file, regular_file
from embedstore._core.hdf5 import plain_dataset
from embedstore._core.keys import KeyTable, hash_strings
from embedstore._core.sums import sum_of, sum_of_file, sums_of
from embedstore.errors import CorruptStoreError, EmbedstoreError, reason_of
from embedstore.store.combined import combined_is_current
from embedstore.store.format import HEAD, HEADS, PartRef
from embedstore.store.indexes import index_problems
from embedstore.store.items import ID
from embedstore.store.part_files import HASH, PLACE, ROW, SUMS, VECTORS, PartFiles, of_pieces
from embedstore.store.parts import kind_of, read_array, read_table, row_numbers
from embedstore.store.reader import StoreReader, path_of
from embedstore.store.space import Space
from embedstore.store.space_info import space_file
from embedstore.store.writer import orphans

if TYPE_CHECKING:
    import h5py


@dataclass
class VerifyReport:
    """What `verify` found.

    Parameters
    ----------
    files, bytes : int
        Read and compared with their digests.
    problems : list of str
        Damage; a store without any is clean.
    notes : list of str
        Leftovers that change no answer, such as files of a killed writer.
    """

    files: int = 0
    bytes: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        return {"clean": self.clean, **vars(self)}


def verify(store: StoreReader | str | Path, on_progress: Callable[[int], None] | None = None) -> VerifyReport:
    """Compare every committed file with its digest, and the files with one another.

    Checked: digests and sizes; HDF5 shapes, dtypes and offsets; finite vectors; rows that exist and are not repeated;
    space descriptions; heads; indexes; files that belong to nothing.

    Parameters
    ----------
    on_progress : callable, optional
        Called with the bytes read so far.
    """
    store = StoreReader.open(path_of(store), check=False)  # what was compared before is read again
    report = VerifyReport()
    for ref in store.manifest.refs():
        _check(report, lambda ref=ref: _check_file(store.files, ref, report))  # type: ignore[misc]
        if on_progress:
            on_progress(report.bytes)
    for name, entry in store.manifest.spaces.items():
        _check(report, lambda name=name, entry=entry: _check_space_json(store.path, name, entry.spec_sha256))  # type: ignore[misc]
    if report.clean:
        _check(report, lambda: _check_items(store))
        spaces: list[Space] = []
        _check(report, lambda: spaces.extend(store.spaces.values()))
        for space in spaces:
            _check(report, lambda space=space: _check_space(store, space))  # type: ignore[misc]
    heads: list[str] = []
    _check(report, lambda: heads.extend(store.heads))
    for head in heads:
        _check(report, lambda head=head: _check_head(store.path, head))  # type: ignore[misc]
    for path in sorted([*store.path.glob("spaces/*/index/index.json"), *store.path.glob("heads/*/index-*/index.json")]):
        report.problems += index_problems(path.parent)
    _check(report, lambda: _note_leftovers(store, report))
    return report


def _note_leftovers(store: StoreReader, report: VerifyReport) -> None:
    report.notes += [f"{store.path / file} belongs to nothing; the next writer removes it" for file in orphans(store)]
    if not combined_is_current(store):
        report.notes.append("embeddings.h5 shows an older generation; the next writer renews it")


def _check(report: VerifyReport, check: Callable[[], Iterator[str] | None]) -> None:
    try:
        report.problems += list(check() or ())
    except CorruptStoreError as error:
        report.problems.append(error.fact)  # its remedy may be to run what is running
    except (EmbedstoreError, KeyError, ValueError) as error:
        report.problems.append(str(error))
    except OSError as error:
        report.problems.append(f"{error.filename or 'a file'}: {reason_of(error)}.")


def _check_file(files: PartFiles, ref: PartRef, report: VerifyReport) -> Iterator[str]:
    path = files.path(ref)
    report.files += 1
    report.bytes += ref.bytes
    if sha256_file(path) != ref.sha256:
        yield f"{path}: its bytes differ from what was committed (SHA-256). {_remedy(files)}"
    elif ref.xxh3 and not ref.offsets and sum_of_file(path) != ref.xxh3:
        yield f"{path}: its bytes differ from what was committed (XXH3). {_remedy(files)}"


def _remedy(files: PartFiles) -> str:
    return f"Embed again what is lost: embedstore repair {files.root} DATASET"


def _check_space_json(root: Path, name: str, digest: str) -> Iterator[str] | None:
    path = root / space_file(name)
    if hashlib.sha256(read_file(root, space_file(name))).hexdigest() != digest:
        return iter([f"{path}: its bytes differ from what was committed (SHA-256). Restore it from a backup."])
    return None


def _check_items(store: StoreReader) -> Iterator[str]:
    """What does not fit in items that are, byte by byte, what was committed."""
    manifest, keys = store.manifest, KeyTable()
    every = [np.empty(0, np.int64)]
    ends = [*(ref.first_row for ref in manifest.items), manifest.next_row][1:]
    for ref, following in zip(manifest.items, ends, strict=True):
        table = read_table(store.files, ref, "embedstore-items", [ROW, ID])
        rows = row_numbers(table)
        if not (rows[1:] > rows[:-1]).all() or (len(rows) and (rows[0] != ref.first_row or rows[-1] >= following)):
            yield f"{store.path / ref.file}: its rows are not ascending from {ref.first_row} to below {following}."
        live = np.isin(rows, store.dead, invert=True)
        ids = hash_strings(id for id, lives in zip(table.column(ID).to_pylist(), live.tolist(), strict=True) if lives)
        again = len(np.unique(ids, axis=0)) < len(ids) or (keys.lookup(ids) >= 0).any()
        if again:
            yield f"{store.path / ref.file}: an id is that of another item, too."
        else:
            keys.insert(ids, rows[live])
        every.append(rows)
    if len(unknown := np.setdiff1d(store.dead, np.concatenate(every))):
        yield f"{store.path}: a tombstone names row {unknown[0]}, which is no item's."


def _check_space(store: StoreReader, space: Space) -> Iterator[str]:
    entry = store.manifest.spaces[space.name]
    for ref in entry.parts:
        yield from _check_hdf5(store.files, ref, space)
    for block in space.blocks():
        if not np.isfinite(block).all():
            yield f"space {space.name!r}: a vector is not finite."
            break
    rows = distinct(space.rows)
    if len(rows) != len(space.rows):
        yield f"space {space.name!r}: a row has two vectors."
    if space.pieces is not None:
        for ref in entry.pieces:
            yield from _check_hdf5(store.files, ref, space)
        if not all(np.isfinite(block).all() for block in space.pieces.blocks()):
            yield f"space {space.name!r}: the vector of a {space.pieces.unit} is not finite."
        if not np.array_equal(rows, distinct(space.pieces.rows)):
            yield f"space {space.name!r}: an item has a vector and no {space.pieces.unit}, or the reverse."
    if len(unknown := np.setdiff1d(rows, store.items.rows, assume_unique=True)):
        yield f"space {space.name!r}: row {unknown[0]} is no item's."
    for ref in entry.failures:
        failed = row_numbers(read_table(store.files, ref, "embedstore-failures"))
        if len(failed) and not 0 <= failed.min() <= failed.max() < store.manifest.next_row:
            yield f"{store.path / ref.file}: a failure names a row that was never given out."


def _check_hdf5(files: PartFiles, ref: PartRef, space: Space) -> Iterator[str]:
    import h5py

    path = files.path(ref)
    expected: dict[str, tuple[tuple[int, ...], Any]] = {
        VECTORS: ((ref.rows, space.dim), space.dtype),
        ROW: ((ref.rows,), "<i8"),
        **({PLACE: ((ref.rows, 2), "<f8")} if of_pieces(ref) else {HASH: ((ref.rows, 16), "u1")}),
    }
    with h5py.File(path, "r") as h5:
        check_encoding(h5.attrs, kind_of(ref), str(path))
        arrays = {}
        for name, (shape, dtype) in expected.items():
            dataset = plain_dataset(h5, name, str(path))
            if dataset.shape != shape or dataset.dtype != np.dtype(dtype):
                yield f"{path}: /{name} is {dataset.dtype}{dataset.shape}, expected {np.dtype(dtype)}{shape}."
                return
            arrays[name], width = dataset[()], shape[1] if len(shape) == 2 else None
            if name in ref.offsets and not np.array_equal(
                arrays[name], read_array(files, ref, name, dtype, width), equal_nan=name in (VECTORS, PLACE)
            ):
                yield f"{path}: /{name} is not at its recorded offset."
        if SUMS in ref.offsets and not _sums_fit(plain_dataset(h5, SUMS, str(path)), ref, path, arrays):
            yield f"{path}: /{SUMS} does not hold the sums of its other datasets, or is not at its recorded offset."


def _sums_fit(dataset: h5py.Dataset, ref: PartRef, path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> bool:
    if dataset.dtype != np.dtype("<u8") or dataset.ndim != 1 or not 3 <= len(dataset) <= 3 + ref.rows:
        return False
    size = int(dataset[0])
    if size < 1 or len(dataset) != 3 - (ref.rows // -size):
        return False
    found = dataset[()]
    with open(path, "rb") as file:
        file.seek(ref.offsets[SUMS])
        same = file.read(found.nbytes) == found.tobytes()
    return same and f"{sum_of(found):016x}" == ref.xxh3 and np.array_equal(found, sums_of(arrays, VECTORS, size=size))


def _check_head(root: Path, name: str) -> None:
    path = root / HEADS / name / HEAD
    of_one_generation(lambda: read_json(path, root), lambda head: _check_head_files(root, path, head))


def _check_head_files(root: Path, path: Path, head: Mapping[str, Any]) -> None:
    open_sealed(head, "embedstore-head", str(path), "Train the head again, with --replace.")
    for entry in named_files(head, path).values():
        stored = path.with_name(entry["file"])
        regular_file(root, stored.relative_to(root).as_posix())
        if sha256_file(stored) != entry["sha256"]:
            raise CorruptStoreError(
                f"{stored}: its bytes differ from what was saved (SHA-256). Train the head again, with --replace."
            )
