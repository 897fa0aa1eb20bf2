"""The names on disk: versions, the manifest `store.json` and its parts. FORMAT.md is the promise.

Knows nothing of items, vectors or encoders beyond the names of their files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from embedstore._encoding import check_encoding, encoding
from embedstore._files import read_json, sha256_file
from embedstore._folders import regular_file
from embedstore.errors import CorruptStoreError, StoreError, UsageError

MANIFEST = "store.json"
LOCK = "store.lock"
COMBINED = "embeddings.h5"
HEADS, HEAD = "heads", "head.json"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True)
class PartRef:
    """One committed, immutable file.

    Parameters
    ----------
    file : str
        Relative to the store, with ``/``.
    rows : int
    bytes : int
    sha256 : str
        Of the whole file.
    offsets : mapping of str to int
        Byte offset of each contiguous HDF5 dataset in the file, so that it can be memory-mapped without opening HDF5.
    first_row : int
        Smallest row of an item part (their row ranges do not overlap and ascend); -1 for other parts.
    """

    file: str
    rows: int
    bytes: int
    sha256: str
    offsets: Mapping[str, int] = field(default_factory=dict)
    first_row: int = -1

    @classmethod
    def of(cls, root: Path, file: str, rows: int, *, offsets: Mapping[str, int] | None = None, first_row: int = -1) -> PartRef:
        """Describe the finished file `root`/`file`."""
        path = root / file
        return cls(file, rows, path.stat().st_size, sha256_file(path), dict(offsets or {}), first_row)


@dataclass(frozen=True)
class SpaceEntry:
    """The committed files of one space; `spec_sha256` is the digest of its space.json."""

    spec_sha256: str
    parts: tuple[PartRef, ...] = ()
    failures: tuple[PartRef, ...] = ()


@dataclass(frozen=True)
class Manifest:
    """`store.json`: what exists. A file that it does not name does not exist.

    `next_file` is the least number in the name of a new file: those below may be names that a compaction gave up, and that an
    older reader still goes by.
    """

    generation: int = 0
    next_row: int = 0
    next_file: int = 0
    items: tuple[PartRef, ...] = ()
    tombstones: tuple[PartRef, ...] = ()
    spaces: Mapping[str, SpaceEntry] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {**encoding("embedstore-store"), **asdict(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Manifest:
        return cls(
            generation=data["generation"],
            next_row=data["next_row"],
            next_file=data.get("next_file", 0),
            items=_refs(data["items"]),
            tombstones=_refs(data["tombstones"]),
            spaces={
                name: SpaceEntry(entry["spec_sha256"], _refs(entry["parts"]), _refs(entry["failures"]))
                for name, entry in data["spaces"].items()
            },
        )

    def with_space(self, name: str, entry: SpaceEntry) -> Manifest:
        return replace(self, spaces={**self.spaces, name: entry})

    def refs(self) -> Iterable[PartRef]:
        """Every part that exists."""
        yield from self.items
        yield from self.tombstones
        for entry in self.spaces.values():
            yield from entry.parts
            yield from entry.failures


def _refs(data: Iterable[Mapping[str, Any]]) -> tuple[PartRef, ...]:
    return tuple(PartRef(**ref) for ref in data)


def read_manifest(root: Path) -> Manifest:
    """The manifest of the store at `root`."""
    path = root / MANIFEST
    data = read_json(path, root)
    check_encoding(data, "embedstore-store", str(path))
    try:
        return checked_names(Manifest.from_dict(data), str(path))
    except (KeyError, TypeError) as error:
        raise CorruptStoreError(f"{path} is damaged ({error!r}). Restore it from a backup.") from error


def check_name(name: str, what: str) -> str:
    """Names of spaces and heads become folders."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot name a {what}: use letters, digits, '_', '-' and '.', starting with a letter or digit."
        )
    return name


def checked_names(manifest: Manifest, where: str) -> Manifest:
    """`manifest`, whose names become paths, after a look at each of them.

    Raises
    ------
    CorruptStoreError
        One is not what a file or folder of its kind is called; `where` says where it stood.
    """
    roles = [(manifest.items, "items/part", "parquet"), (manifest.tombstones, "items/tombstones", "parquet")]
    for name, entry in manifest.spaces.items():
        if not _NAME.fullmatch(name):
            raise CorruptStoreError(f"{where} names a space {name!r}, which cannot be a folder. Restore it from a backup.")
        roles += [(entry.parts, f"spaces/{name}/part", "h5"), (entry.failures, f"spaces/{name}/failures", "parquet")]
    for refs, stem, ending in roles:
        pattern = re.compile(rf"{re.escape(stem)}-\d{{6,18}}\.{ending}", re.ASCII)
        for ref in refs:
            if not isinstance(ref.file, str) or not pattern.fullmatch(ref.file):
                raise CorruptStoreError(
                    f"{where} names a file {ref.file!r} where {stem}-NNNNNN.{ending} should be. Restore it from a backup."
                )
    return manifest


def check_size(root: Path, ref: PartRef) -> Path:
    """The path of a part, after a look at its size (cheap: no byte is read)."""
    path = root / ref.file
    try:
        size = regular_file(root, ref.file).st_size
    except FileNotFoundError:
        if all(named.file != ref.file for named in read_manifest(root).refs()):
            raise StoreError(f"{root} was compacted after it was opened. Open it again.") from None
        raise CorruptStoreError(f"{path} is missing.", _whole_damage(root)) from None
    if size != ref.bytes:
        raise CorruptStoreError(f"{path} has {size} bytes, committed were {ref.bytes}.", _whole_damage(root))
    return path


def _whole_damage(root: Path) -> str:
    return f"Run 'embedstore verify {root}' for the whole damage."
