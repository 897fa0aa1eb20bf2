"""`verify`: reads every byte of a store and says what does not fit."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from embedstore._distinct import distinct
from embedstore._encoding import check_encoding
from embedstore._files import read_json, sha256_file
from embedstore._hdf5 import plain_dataset
from embedstore.errors import CorruptStoreError, EmbedstoreError, reason_of
from embedstore.store.combined import combined_is_current
from embedstore.store.format import PartRef, check_size
from embedstore.store.indexes import index_problems
from embedstore.store.parts import HASH, ROW, VECTORS, read_array
from embedstore.store.reader import Store
from embedstore.store.space import Space, space_file
from embedstore.store.writer import orphans


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


def verify(store: Store | str | Path, on_progress: Callable[[int], None] | None = None) -> VerifyReport:
    """Compare every committed file with its digest, and the files with one another.

    Checked: digests and sizes; HDF5 shapes, dtypes and offsets; finite vectors; rows that exist and are not repeated;
    space descriptions; heads; indexes; files that belong to nothing.

    Parameters
    ----------
    on_progress : callable, optional
        Called with the bytes read so far.
    """
    store = store if isinstance(store, Store) else Store.open(store)
    report = VerifyReport()
    for ref in store.manifest.refs():
        _check(report, lambda ref=ref: _check_file(store.path, ref, report))  # type: ignore[misc]
        if on_progress:
            on_progress(report.bytes)
    for name, entry in store.manifest.spaces.items():
        _check(report, lambda name=name, entry=entry: _check_space_json(store.path, name, entry.spec_sha256))  # type: ignore[misc]
    if report.clean:
        for space in store.spaces.values():
            _check(report, lambda space=space: _check_space(store, space))  # type: ignore[misc]
    for head in store.heads:
        _check(report, lambda head=head: _check_head(store.path / "heads" / head))  # type: ignore[misc]
    for path in sorted([*store.path.glob("spaces/*/index/index.json"), *store.path.glob("heads/*/index-*/index.json")]):
        report.problems += index_problems(path.parent)
    report.notes += [f"{path} belongs to nothing; the next writer removes it" for path in orphans(store)]
    if not combined_is_current(store):
        report.notes.append("embeddings.h5 shows an older generation; the next writer renews it")
    return report


def _check(report: VerifyReport, check: Callable[[], Iterator[str] | None]) -> None:
    try:
        report.problems += list(check() or ())
    except CorruptStoreError as error:
        report.problems.append(error.fact)  # its remedy may be to run what is running
    except (EmbedstoreError, KeyError, ValueError) as error:
        report.problems.append(str(error))
    except OSError as error:
        report.problems.append(f"{error.filename or 'a file'}: {reason_of(error)}.")


def _check_file(root: Path, ref: PartRef, report: VerifyReport) -> Iterator[str] | None:
    path = check_size(root, ref)
    report.files += 1
    report.bytes += ref.bytes
    if sha256_file(path) != ref.sha256:
        return iter([f"{path}: its bytes differ from what was committed (SHA-256). Restore it from a backup."])
    return None


def _check_space_json(root: Path, name: str, digest: str) -> Iterator[str] | None:
    path = root / space_file(name)
    if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
        return iter([f"{path}: its bytes differ from what was committed (SHA-256). Restore it from a backup."])
    return None


def _check_space(store: Store, space: Space) -> Iterator[str]:
    entry = store.manifest.spaces[space.name]
    for ref in entry.parts:
        yield from _check_hdf5(store.path, ref, space)
    for block in space.blocks():
        if not np.isfinite(block).all():
            yield f"space {space.name!r}: a vector is not finite."
            break
    rows = distinct(space.rows)
    if len(rows) != len(space.rows):
        yield f"space {space.name!r}: a row has two vectors."
    if len(unknown := np.setdiff1d(rows, store.items.rows, assume_unique=True)):
        yield f"space {space.name!r}: row {unknown[0]} is no item's."


def _check_hdf5(root: Path, ref: PartRef, space: Space) -> Iterator[str]:
    import h5py

    path = root / ref.file
    expected: dict[str, tuple[tuple[int, ...], Any]] = {
        VECTORS: ((ref.rows, space.dim), space.dtype),
        ROW: ((ref.rows,), "<i8"),
        HASH: ((ref.rows, 16), "u1"),
    }
    with h5py.File(path, "r") as h5:
        check_encoding(h5.attrs, "embedstore-vectors", str(path))
        for name, (shape, dtype) in expected.items():
            dataset = plain_dataset(h5, name, str(path))
            if dataset.shape != shape or dataset.dtype != np.dtype(dtype):
                yield f"{path}: /{name} is {dataset.dtype}{dataset.shape}, expected {np.dtype(dtype)}{shape}."
                continue
            width = shape[1] if len(shape) == 2 else None
            if name in ref.offsets and not np.array_equal(
                dataset[()], read_array(root, ref, name, dtype, width), equal_nan=name == VECTORS
            ):
                yield f"{path}: /{name} is not at its recorded offset."


def _check_head(folder: Path) -> Iterator[str]:
    head = read_json(folder / "head.json")
    check_encoding(head, "embedstore-head", str(folder / "head.json"))
    for entry in head["files"].values():
        if sha256_file(folder / entry["file"]) != entry["sha256"]:
            yield f"{folder / entry['file']}: its bytes differ from what was saved (SHA-256). Train the head again."
