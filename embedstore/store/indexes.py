"""The index of a space on disk: which files it is, what they must hash to, and which vectors they were built over.

An index is a cache: ``index.json`` is replaced last, its files are immutable, and one that is damaged, older than the space
or of another encoder is never used. The search library's own format of the files is none of our business here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from embedstore._core.atomic_files import json_bytes, named_files, of_one_generation, read_json
from embedstore._core.digests import check_digest
from embedstore._core.encoding import encoding, open_sealed, sealed
from embedstore._core.folders import Folder, regular_file, split_root
from embedstore._core.typed import from_json
from embedstore.errors import CorruptStoreError, EmbedstoreError, one_line
from embedstore.store.format import PartRef

INDEX = "index.json"
LOCK = "index.lock"
DEPTH = 3
"""An index lies in ``spaces/NAME/index`` or ``heads/NAME/index-INPUT`` of a store: below that store no link is followed."""


@dataclass(frozen=True)
class IndexFile:
    """One file of an index, relative to its folder."""

    file: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class IndexRecord:
    """``index.json``.

    Parameters
    ----------
    space, fingerprint : str
        Whose vectors these are.
    covers : sequence of (file, sha256)
        The parts, in order, that positions in the index count over.
    files : mapping of str to IndexFile
    index : mapping
        How it was made and what was measured, as JSON.
    number : int
        Counts the generations of this index; names of files contain it.
    """

    space: str
    fingerprint: str
    covers: Sequence[tuple[str, str]]
    files: Mapping[str, IndexFile]
    index: Mapping[str, Any] = field(default_factory=dict)
    number: int = 0

    def to_dict(self) -> dict[str, Any]:
        return sealed({**encoding("embedstore-index"), **asdict(self)})

    @classmethod
    def read(cls, folder: Path) -> IndexRecord | None:
        """The record in `folder`; None where there is no index.

        Raises
        ------
        CorruptStoreError
            It is not what was written.
        """
        root, names = split_root(folder, DEPTH)
        path = root.joinpath(*names, INDEX)
        try:
            regular_file(root, path.relative_to(root).as_posix())
        except FileNotFoundError:
            return None
        data = read_json(path, root)
        data = open_sealed(data, "embedstore-index", str(path), "")
        named = named_files(data, path)
        try:
            files = {name: from_json(IndexFile, entry) for name, entry in named.items()}
            covers = [(str(file), str(sha256)) for file, sha256 in data["covers"]]
            kinds = (str, str, dict, int)
            given = (data["space"], data["fingerprint"], data["index"], data["number"])
            if any(type(value) is not kind for value, kind in zip(given, kinds, strict=True)):
                raise ValueError(f"its space, fingerprint, index or number is {one_line(repr(given), 80)}")
        except (LookupError, TypeError, ValueError) as error:
            raise CorruptStoreError(f"{path} is damaged ({error}).") from error
        return cls(data["space"], data["fingerprint"], covers, files, data["index"], data["number"])

    def write(self, folder: Folder) -> None:
        """Make this the index of `folder`, and remove the files of older ones."""
        folder.write(INDEX, json_bytes(self.to_dict()))
        keep = {INDEX, LOCK, *(entry.file for entry in self.files.values())}
        for name in folder.listing()[0]:
            if name not in keep:
                folder.unlink(name)

    def misfit(self, name: str, fingerprint: str, parts: Sequence[PartRef]) -> str | None:
        """Why this index is not one of the space as it is; None where it is, or where the space only grew."""
        if self.fingerprint != fingerprint:
            return f"it was built from vectors of fingerprint {self.fingerprint}, space {name!r} holds {fingerprint}"
        now = [(ref.file, ref.sha256) for ref in parts[: len(self.covers)]]
        if now != list(self.covers):
            return f"space {name!r} was compacted, restored or replaced since it was built"
        return None

    def checked(self, folder: Path, name: str, *, always: bool = False) -> Path:
        """The path of file `name` after a comparison with its digest.

        A file that was compared before on this machine, and has the same inode, size and times since, is not read again
        unless `always`.

        Raises
        ------
        CorruptStoreError
        """
        entry = self.files[name]
        root, names = split_root(folder, DEPTH)
        with suppress(FileNotFoundError):  # which the next line says
            regular_file(root, "/".join((*names, entry.file)))
        check_digest(folder / entry.file, entry.bytes, entry.sha256, always=always)
        return folder / entry.file


def index_problems(folder: Path) -> list[str]:
    """What is damaged in the index of `folder`, every byte read."""

    def check(record: IndexRecord | None) -> None:
        if record is not None:
            for name in record.files:
                record.checked(folder, name, always=True)

    try:
        of_one_generation(lambda: IndexRecord.read(folder), check)
    except (EmbedstoreError, KeyError, TypeError, ValueError, OSError) as error:
        return [f"{error} Build it again: embedstore index"]
    return []
