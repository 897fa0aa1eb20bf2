"""Names of tars; their members, read once from start to end, compressed ones too. Damage is an error, never a silent end."""

from __future__ import annotations

import glob
import os
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from embedstore._core.arguments import TIMEOUT
from embedstore.errors import SourceError, one_line
from embedstore.sources.files import PAYLOAD_BYTES, is_url, matching, open_file
from embedstore.sources.left_out import LeftOut, shown

IS_TAR = re.compile(r"\.(tar|tgz|tar\.(gz|zst|bz2))$", re.IGNORECASE)

_BRACES = re.compile(r"\{([^{}]*)\}")
_SIDECAR = re.compile(r"(\.parquet|_stats\.json)$")
MOST_SHARDS, MOST_BRACES = 1_000_000, 16
_EXTENDED = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_EXTENDED_BYTES = 1 << 20  # of a header before a header, which is read whole
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
                    if not 0 <= member.size <= PAYLOAD_BYTES and (member.size < 0 or wanted(member.name)):
                        raise _DamagedError(f"{member.name[:80]!r} has {member.size:,} bytes, of at most {PAYLOAD_BYTES:,}")
                    if not member.isreg():
                        _refuse_link(path, member, known)
                        continue
                    whole, skipped = skipped, (member.name, member.offset_data + member.size)
                    content = tar.extractfile(member) if wanted(member.name) else None
                    data = None if content is None else content.read()
                    whole = whole if data is None else skipped
                    yield member.name, data
                _refuse_more(tar.fileobj)
        except (tarfile.TarError, OSError, EOFError, ValueError, LookupError, RecursionError, pa.ArrowException) as error:
            name, at = skipped if isinstance(error, _DamagedError) else whole
            where = f"after {name!r}, byte {at:,}" if name else "at its start"
            raise SourceError(
                f"{path} is damaged {where}: {one_line(error, 120)}. Fetch it again, or leave it out; "
                "what was committed is kept."
            ) from error


def shards_in(folder: str) -> list[str]:
    """The tars that lie in `folder`, sorted by name."""
    return [os.path.join(folder, name) for name in sorted(os.listdir(folder)) if IS_TAR.search(name)]


def beside_shards(folder: str) -> LeftOut:
    """What lies in a folder of tars and belongs to none of them: other files, and folders, which are not looked into."""
    left_out = LeftOut()
    stems = {IS_TAR.sub("", os.path.basename(shard)) for shard in shards_in(folder)}
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith("."):
            left_out.other("hidden file(s)", shown(entry.name))
        elif entry.is_dir():
            left_out.other("folder(s) beside the tars", shown(entry.name))
        elif not IS_TAR.search(entry.name) and _SIDECAR.sub("", entry.name) not in stems:
            left_out.file(entry.name)
    return left_out


def expand(pattern: str, *, timeout: float = TIMEOUT) -> list[str]:
    """The shards that ``data-{000..012}.tar``, ``{a,b}.tar``, a glob, or one name stands for; in order.

    Raises
    ------
    SourceError
        No file matches a glob.
    """
    shards: list[str] = []
    for one in _braces(pattern):
        if len(shards) > MOST_SHARDS:
            raise SourceError(f"{pattern[:80]} stands for more than {MOST_SHARDS:,} tars. Name fewer.")
        if glob.has_magic(one) and (is_url(one) or not os.path.exists(one)):
            if not (found := matching(one, timeout=timeout)):
                raise SourceError(f"{one} matches no file.")
            shards += found
        else:
            shards.append(one)
    return shards


def _refuse_more(stream: Any) -> None:
    """After its end mark, a tar is filled up with zeros."""
    while rest := stream.read(_BLOCK):
        if rest.count(0) < len(rest):
            raise _DamagedError("something follows its end mark, as where tars were joined with cat")


def _refuse_link(path: str, member: tarfile.TarInfo, known: Callable[[str], bool]) -> None:
    if (member.islnk() or member.issym()) and known(member.name):
        kind = "hard link" if member.islnk() else "symbolic link"
        raise SourceError(
            f"{path}: {member.name!r} is a {kind} to {member.linkname!r}; tars are read once, from start to end, so links "
            "cannot be followed. Make it again without links: tar --dereference --hard-dereference."
        )


def _braces(pattern: str, left: int = MOST_BRACES) -> Iterator[str]:
    if not (match := _BRACES.search(pattern)):
        yield pattern
        return
    if not left:
        raise SourceError(f"{pattern[:80]} has more than {MOST_BRACES} braces. Name the tars in another way.")
    head, inner, tail = pattern[: match.start()], match[1], pattern[match.end() :]
    choices: Iterable[str] = inner.split(",")
    if numbers := re.fullmatch(r"([0-9]{1,18})\.\.([0-9]{1,18})", inner):
        low, high = numbers[1], numbers[2]
        width = len(low) if low.startswith("0") or len(low) == len(high) else 0
        choices = (str(n).zfill(width) for n in range(int(low), int(high) + 1))
    for choice in choices:
        yield from _braces(head + choice + tail, left - 1)


class _DamagedError(ValueError):
    """A header that is no header. `TarFile.next` takes the errors of its own for the end of the archive."""


class _Header(tarfile.TarInfo):
    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):
                raise  # the end mark
            raise _DamagedError(one_line(error) if buf else "the file ends without the end mark of a tar") from error
        if header.size < 0 or (header.type in _EXTENDED and header.size > _EXTENDED_BYTES):
            raise _DamagedError(f"a header says that {header.size:,} bytes follow")
        return header
