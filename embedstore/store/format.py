"""The names on disk: versions, the manifest `store.json` and its parts. FORMAT.md is the promise.

Knows nothing of items, vectors or encoders beyond the names of their files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from embedstore._core.atomic_files import read_json, sha256_file
from embedstore._core.encoding import encoding, open_sealed, sealed
from embedstore._core.sums import sum_of_file
from embedstore.errors import CorruptStoreError, UsageError

MANIFEST = "store.json"
LOCK = "store.lock"
COMBINED = "embeddings.h5"
HEADS, HEAD = "heads", "head.json"
PENDING = "repair.json"
ROW_BYTES = 26
"""A row of a vector part takes so many at least: one number, its row, its hash."""
MOST = 1 << 62
"""No number of a manifest is larger."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_PART = re.compile(
    r"items/(part|tombstones)-[0-9]{6,18}\.parquet"
    r"|spaces/[A-Za-z0-9][A-Za-z0-9_.-]{0,99}/((part|pieces)-[0-9]{6,18}\.h5|failures-[0-9]{6,18}\.parquet)"
)
_HEX = re.compile(r"[0-9a-f]*")


def check_name(name: str, what: str) -> str:
    """Names of spaces and heads become folders."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot name a {what}: use letters, digits, '_', '-' and '.', starting with a letter or digit."
        )
    return name


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
    xxh3 : str
        XXH3-64, hexadecimal: of the sums that a vector part carries, of the whole file elsewhere. Empty in parts of format
        version 1, which are compared with `sha256`.
    """

    file: str
    rows: int
    bytes: int
    sha256: str
    offsets: Mapping[str, int] = field(default_factory=dict)
    first_row: int = -1
    xxh3: str = ""

    @classmethod
    def of(cls, root: Path, file: str, rows: int, *, first_row: int = -1) -> PartRef:
        """Describe the finished file `root`/`file`, which is no vector part."""
        path = root / file
        return cls(file, rows, path.stat().st_size, sha256_file(path), {}, first_row, sum_of_file(path))


@dataclass(frozen=True)
class SpaceEntry:
    """The committed files of one space; `spec_sha256` is the digest of its space.json.

    Where items have several vectors each, `pieces` holds those, a file of the same number for each of `parts`.
    """

    spec_sha256: str
    parts: tuple[PartRef, ...] = ()
    failures: tuple[PartRef, ...] = ()
    pieces: tuple[PartRef, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        data = asdict(self)
        if not self.pieces:
            del data["pieces"]
        return data


@dataclass(frozen=True)
class Manifest:
    """`store.json`: what exists. A file that it does not name does not exist.

    `next_file` is the least number in the name of a new file. Lower numbers may still be in use by readers of a generation from
    before a compaction. `epoch` counts those compactions: a reader holds the lease of its epoch.
    """

    generation: int = 0
    next_row: int = 0
    next_file: int = 0
    epoch: int = 0
    items: tuple[PartRef, ...] = ()
    tombstones: tuple[PartRef, ...] = ()
    spaces: Mapping[str, SpaceEntry] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        spaces = {name: entry.to_dict() for name, entry in self.spaces.items()}
        return sealed({**encoding("embedstore-store"), **asdict(replace(self, spaces={})), "spaces": spaces})

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Manifest:
        """The manifest in a JSON object.

        Raises
        ------
        ValueError
            Something in it cannot be: a type, a number, a name, or two things that contradict one another.
        """
        spaces = {
            check_name(name, "space"): SpaceEntry(
                _digest(_at(entry, "spec_sha256"), 64),
                _refs(_at(entry, "parts"), f"spaces/{name}/part-", ".h5"),
                _refs(_at(entry, "failures"), f"spaces/{name}/failures-", ".parquet"),
                _refs(entry.get("pieces", []), f"spaces/{name}/pieces-", ".h5"),
            )
            for name, entry in _object(_at(data, "spaces")).items()
        }
        manifest = cls(
            generation=_count(_at(data, "generation")),
            next_row=_count(_at(data, "next_row")),
            next_file=_count(data.get("next_file", 0)),
            epoch=_count(data.get("epoch", 0)),
            items=_refs(_at(data, "items"), "items/part-", ".parquet"),
            tombstones=_refs(_at(data, "tombstones"), "items/tombstones-", ".parquet"),
            spaces=spaces,
        )
        manifest.check()
        return manifest

    def check(self) -> None:
        """Refuse what contradicts itself: row ranges that overlap or are not given out yet, a file twice.

        Raises
        ------
        ValueError
        """
        end = 0
        for ref in self.items:
            if ref.first_row < end:
                raise ValueError(f"{ref.file} begins at row {ref.first_row}, the part before it may reach to row {end - 1}")
            end = ref.first_row + ref.rows
        if end > self.next_row:
            raise ValueError(f"next_row is {self.next_row}, but the items need {end} rows")
        for name in ("generation", "next_row", "next_file", "epoch"):
            _count(getattr(self, name))
        for entry in self.spaces.values():
            if entry.pieces and [pieces_file(ref.file) for ref in entry.parts] != [ref.file for ref in entry.pieces]:
                raise ValueError(f"{entry.pieces[0].file} and the like are not one for each part of vectors")
        files = [ref.file for ref in self.refs()]
        if wrong := [file for file in files if not is_part(file)]:
            raise ValueError(f"a file is called {wrong[0]!r}")
        if len(files) != len(set(files)):
            raise ValueError(f"{next(file for file in files if files.count(file) > 1)} is named twice")

    def with_space(self, name: str, entry: SpaceEntry) -> Manifest:
        return replace(self, spaces={**self.spaces, name: entry})

    def refs(self) -> Iterable[PartRef]:
        """Every part that exists."""
        yield from self.items
        yield from self.tombstones
        for entry in self.spaces.values():
            yield from entry.parts
            yield from entry.failures
            yield from entry.pieces


def read_manifest(root: Path) -> tuple[Manifest, int]:
    """The manifest of the store at `root`, and the version of the format that it is written in."""
    path = root / MANIFEST
    data = open_sealed(read_json(path, root), "embedstore-store", str(path))
    try:
        return Manifest.from_dict(data), data["encoding-version"]
    except (ValueError, AttributeError) as error:
        raise CorruptStoreError(f"{path} is damaged: {error}. Restore it from a backup.") from error


def pieces_file(file: str) -> str:
    """The name of the file of pieces that goes with the vector part `file`."""
    folder, _, name = file.rpartition("/")
    return f"{folder}/{name.replace('part-', 'pieces-')}"


def is_part(file: Any) -> bool:
    """Whether something is the name of a part, and so of a file below the store."""
    return isinstance(file, str) and _PART.fullmatch(file) is not None


def _refs(data: Any, prefix: str, suffix: str) -> tuple[PartRef, ...]:
    if not isinstance(data, list):
        raise ValueError(f"a list of files is {_shown(data)}")
    return tuple(_ref(entry, prefix, suffix) for entry in data)


def _ref(data: Any, prefix: str, suffix: str) -> PartRef:
    """A part reference whose file is called `prefix`, a number, `suffix`."""
    file = _at(data, "file")
    if not (is_part(file) and file.startswith(prefix) and file.endswith(suffix)):
        raise ValueError(f"a file is called {_shown(file)}, expected {prefix}000000{suffix}")
    size = _count(_at(data, "bytes"))
    offsets = {str(name): _count(at, size) for name, at in _object(data.get("offsets", {})).items()}
    first = data.get("first_row", -1)
    return PartRef(
        file,
        _count(_at(data, "rows"), size // ROW_BYTES if file.endswith(".h5") else MOST),
        size,
        _digest(_at(data, "sha256"), 64),
        offsets,
        first if first == -1 and type(first) is int else _count(first),
        _digest(data.get("xxh3", ""), 16, or_none=True),
    )


def _object(data: Any) -> Mapping[str, Any]:
    if not isinstance(data, dict):
        raise ValueError(f"an object is {_shown(data)}")
    return data


def _at(data: Any, key: str) -> Any:
    if key not in _object(data):
        raise ValueError(f"{key} is missing")
    return data[key]


def _count(value: Any, most: int = MOST) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"a number is {_shown(value)}, expected 0 to {most}")
    return value


def _digest(value: Any, length: int, *, or_none: bool = False) -> str:
    if isinstance(value, str) and ((or_none and not value) or (len(value) == length and _HEX.fullmatch(value))):
        return value
    raise ValueError(f"a digest is {_shown(value)}, expected {length} hexadecimal digits")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"
