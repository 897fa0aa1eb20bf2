"""A text file of paths as a source: one path or URL a line, relative to the file's folder."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from embedstore._core.arguments import TIMEOUT
from embedstore.errors import SourceError
from embedstore.sources.base import EXTENSIONS, ID, MODALITY_OF, UNDECODED
from embedstore.sources.confined import Root
from embedstore.sources.files import folder_of, is_url, open_file, relative_to
from embedstore.sources.left_out import LeftOut
from embedstore.sources.records import as_batches
from embedstore.sources.text_files import read_text, text_fields, text_values

if TYPE_CHECKING:
    import pyarrow as pa


LONGEST = 1 << 20
"""Bytes of a line."""


class PathListSource:
    """The files that a list names, in its order; the id of an item is its line as written.

    Blank lines are skipped, pictures of a known kind without a decoder are left out and counted. The file name's ending
    decides the modality; a ``.txt`` file is an item with its content as text.

    Parameters
    ----------
    path : str
        A text file in UTF-8, or its URL.
    timeout : float
        Seconds that reading from a URL may take.
    root : Root, optional
        The folder that texts may come from.
    """

    def __init__(self, path: str, *, timeout: float = TIMEOUT, root: Root | None = None) -> None:
        self._path = path
        self._root = root
        self._folder = folder_of(path)
        self._timeout = timeout
        self._count = 0
        self._left_out = LeftOut()
        found = set()
        for _, modality in self._lines():
            found.add(modality)
            self._count += 1
        self._modalities = tuple(m for m in EXTENSIONS if m in found)
        if not found:
            told = "".join(f" {note}" for note in self.notes)
            raise SourceError(f"{path} names no file of a known type; expected one path a line.{told}")

    @property
    def name(self) -> str:
        return self._path

    @property
    def modalities(self) -> tuple[str, ...]:
        return self._modalities

    @property
    def notes(self) -> list[str]:
        """What was left out."""
        return self._left_out.notes()

    def count(self) -> int | None:
        return self._count

    def batches(self) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        uris = [(name, pa.string()) for name in (ID, *self._modalities) if name != "text"]
        return as_batches(self._rows(), pa.schema([*uris, *(text_fields() if "text" in self._modalities else [])]))

    def _rows(self) -> Iterator[dict[str, Any]]:
        for line, modality in self._lines():
            path = relative_to(self._folder, line)
            if modality == "text":
                yield {ID: line, **text_values(partial(read_text, path, timeout=self._timeout, root=self._root))}
            else:
                yield {ID: line, modality: path}

    def _lines(self) -> Iterator[tuple[str, str]]:
        """Each path with its modality."""
        self._left_out = LeftOut()
        with open_file(self._path, timeout=self._timeout) as file:
            for n, raw in enumerate(_lines_of(file), start=1):
                try:
                    line = raw.decode("utf-8-sig" if n == 1 else "utf-8").strip()
                except UnicodeDecodeError as error:
                    raise SourceError(f"{self._path}: line {n} is not UTF-8 text; expected one path a line.") from error
                if line and (modality := self._modality(line, n)):
                    yield line, modality

    def _modality(self, line: str, n: int) -> str | None:
        """None for a picture without a decoder."""
        name = urlsplit(line).path if is_url(line) else line
        ending = posixpath.splitext(name)[1].lower()
        if modality := MODALITY_OF.get(ending):
            return modality
        if ending in UNDECODED:
            self._left_out.file(name)
            return None
        known = ", ".join(e for extensions in EXTENSIONS.values() for e in extensions[:2])
        raise SourceError(
            f"{self._path}: line {n} is {line[:200]!r}; expected the path of a file of a known type ({known}, …)."
        )


def _lines_of(file: object) -> Iterator[bytes]:
    """The lines of a file that can only be read in blocks."""
    rest = b""
    while block := file.read(1 << 20):  # type: ignore[attr-defined]
        *lines, rest = (rest + block).split(b"\n")
        yield from lines
        if len(rest) > LONGEST:
            raise SourceError(f"A line has more than {LONGEST:,} bytes; expected one path a line.")
    if rest:
        yield rest
