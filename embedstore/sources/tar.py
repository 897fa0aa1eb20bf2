"""Members of a tar, read once from its start to its end; compressed ones too. Damage is an error, never a silent end."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable, Iterator
from typing import Any

from embedstore.errors import SourceError, one_line
from embedstore.sources.files import TIMEOUT, open_file

IS_TAR = re.compile(r"\.(tar|tgz|tar\.(gz|zst|bz2))$", re.IGNORECASE)

_CODECS = {"gz": "gzip", "tgz": "gzip", "zst": "zstd", "bz2": "bz2"}
_BLOCK = 1 << 20


def members(
    path: str, wanted: Callable[[str], bool], known: Callable[[str], bool], *, timeout: float = TIMEOUT
) -> Iterator[tuple[str, bytes | None]]:
    """(name, bytes) of the regular files in a tar; no bytes of those that are not `wanted` by name.

    Links whose name is `known` are refused, for what they point to may be long past; other links are skipped.

    Raises
    ------
    SourceError
        The tar is damaged or cut short, or holds such a link; says where.
    """
    import pyarrow as pa

    whole = skipped = ("", 0)  # the last member that is whole, and the one whose data was not looked at
    with open_file(path, timeout=timeout) as file:
        try:
            codec = _CODECS.get(path.lower().rpartition(".")[2])
            stream: Any = pa.CompressedInputStream(pa.PythonFile(file, "r"), codec) if codec else file
            with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Header, bufsize=_BLOCK) as tar:
                while (member := tar.next()) is not None:
                    tar.members = []  # type: ignore[attr-defined]  # it would keep them all
                    if not member.isreg():
                        _refuse_link(path, member, known)
                        continue
                    whole, skipped = skipped, (member.name, member.offset_data + member.size)
                    content = tar.extractfile(member) if wanted(member.name) else None
                    data = None if content is None else content.read()
                    whole = whole if data is None else skipped
                    yield member.name, data
        except (tarfile.TarError, OSError, EOFError, pa.ArrowException, _DamagedError) as error:
            name, at = skipped if isinstance(error, _DamagedError) else whole
            where = f"after {name!r}, byte {at:,}" if name else "at its start"
            raise SourceError(
                f"{path} is damaged {where}: {one_line(error, 120)}. Fetch it again, or leave it out; "
                "what was committed is kept."
            ) from error


def _refuse_link(path: str, member: tarfile.TarInfo, known: Callable[[str], bool]) -> None:
    if (member.islnk() or member.issym()) and known(member.name):
        kind = "hard link" if member.islnk() else "symbolic link"
        raise SourceError(
            f"{path}: {member.name!r} is a {kind} to {member.linkname!r}; tars are read once, from start to end, so links "
            "cannot be followed. Make it again without links: tar --dereference --hard-dereference."
        )


class _DamagedError(Exception):
    """A header that is no header. `TarFile.next` takes the errors of its own for the end of the archive."""


class _Header(tarfile.TarInfo):
    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):
                raise  # the end mark
            raise _DamagedError(one_line(error) if buf else "the file ends without the end mark of a tar") from error
