"""What a source is: a stream of Arrow record batches of items.

A batch has a column ``id`` (string, unique in the dataset), a column for each payload modality (``text``: the text itself;
``image``, ``audio``, ``video``: the path or URL of a file), and metadata columns; null: missing. Payloads that are no files
of their own come with the batch: ``image.bytes`` (binary) holds them, and ``image`` says where they are from
(``shard.tar#dog.jpg``); where it is null ``image`` is a path after all. A column ``image`` may also be binary itself. A batch
holds about `BATCH_BYTES` of such payloads at most, for batches are held in memory. Where texts come from files, ``text.failed``
(a struct of ``stage`` and ``reason``) says why there is none. All batches of a source have one schema.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from embedstore._core.arguments import TIMEOUT
from embedstore.errors import SourceError
from embedstore.sources.confined import Root
from embedstore.sources.files import exists, is_url
from embedstore.spec import MODALITIES

if TYPE_CHECKING:
    import pyarrow as pa

ID = "id"
BYTES = ".bytes"
TEXT_FAILED = "text.failed"
BATCH_ROWS = 4096
BATCH_BYTES = 16 << 20

EXTENSIONS: dict[str, tuple[str, ...]] = {
    "image": (
        ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".avif", ".mpo",
        ".apng", ".dib", ".pbm", ".pnm", ".pfm", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".ico", ".icns", ".tga",
        ".dds", ".qoi", ".pcx", ".psd",
    ),
    "video": (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg"),
    "audio": (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a", ".aac"),
    "text": (".txt",),
}  # fmt: skip
"""File name endings (lower case) of each modality, in the order in which a modality names an item."""

UNDECODED = frozenset({
    ".heic", ".heif", ".hif", ".heics", ".heifs", ".avci", ".avcs", ".jxl", ".jxr", ".wdp", ".hdp", ".svg", ".svgz", ".eps",
    ".ai", ".wmf", ".emf", ".xcf", ".psb", ".kra", ".cur", ".exr", ".hdr", ".bpg", ".flif", ".ktx", ".ktx2", ".jng", ".jls",
    ".jpm", ".cgm", ".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".orf", ".rw2", ".raf", ".pef",
    ".srw", ".x3f", ".raw", ".rwl", ".3fr", ".fff", ".iiq", ".erf", ".mef", ".mrw", ".mos", ".kdc", ".dcr", ".gpr",
})  # fmt: skip
"""Endings of pictures that Pillow does not decode as one still picture, camera raw among them."""

_OF_FILES = (f"{m}{s}" for m in MODALITIES for s in (".size", ".mtime_ns", BYTES))
_CONTROL = re.compile(r"\s*[\x00-\x1f\x7f-\x9f\u2028\u2029]+\s*")
RESERVED = frozenset({"row", ID, TEXT_FAILED, *MODALITIES, *_OF_FILES})


def free_name(column: str) -> str:
    """The name under which a metadata column is kept.

    Blanks around it are left out, line breaks and other control characters become one space, and names that the store keeps
    for itself get an underscore.
    """
    plain = _CONTROL.sub(" ", column).strip() or "unnamed"
    return f"{plain}_" if plain in RESERVED else plain


def kept_names(columns: Iterable[str], where: str) -> dict[str, str]:
    """Metadata column → the name under which it is kept.

    Raises
    ------
    SourceError
        Two would have one name, or names that differ in case only.
    """
    kept: dict[str, str] = {}
    by_lower: dict[str, str] = {}
    for column in columns:
        kept[column] = name = free_name(column)
        if by_lower.setdefault(name.lower(), column) != column:
            raise SourceError(
                f"{where}: columns {by_lower[name.lower()]!r} and {column!r} would both be kept as {name!r} (case does not "
                "count). Rename one."
            )
    return kept


def renamed(kept: Mapping[str, str]) -> list[str]:
    """What to tell of the columns that have another name in the store."""
    return [f"Column {old!r} is kept as {new!r}." for old, new in kept.items() if old != new]


def glob_escape(path: str) -> str:
    """`path` for DuckDB's readers, which would take ``*``, ``?`` and ``[`` for patterns."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in path)


MODALITY_OF = {extension: modality for modality, extensions in EXTENSIONS.items() for extension in extensions}


@dataclass(frozen=True)
class SourceRequest:
    """What each kind of dataset, a function of the entry-point group ``embedstore.sources``, is asked.

    Parameters
    ----------
    dataset : path, or any object
        As given.
    columns : mapping, optional
        ``"id"`` or modality → column name.
    timeout : float
        Seconds that a read from a URL may take.
    root : Root, optional
        The folder that texts in files of their own may come from.
    bare : bool
        A table without a column of payloads will do: other columns of it are embedded as texts.
    """

    dataset: Any
    columns: Mapping[str, str] | None = None
    timeout: float = TIMEOUT
    root: Root | None = None
    bare: bool = False

    @cached_property
    def text(self) -> str:
        """The path, URL or name; empty where the dataset is an object."""
        return os.fspath(self.dataset) if isinstance(self.dataset, str | os.PathLike) else ""

    @property
    def ending(self) -> str:
        """Of the file, in lower case, with its dot."""
        return os.path.splitext(self.text)[1].lower()

    @property
    def is_url(self) -> bool:
        return is_url(self.text)

    @cached_property
    def is_folder(self) -> bool:
        """Whether it is a folder of this machine."""
        return not self.is_url and os.path.isdir(self.text)

    @cached_property
    def exists(self) -> bool:
        """Whether there is such a file or folder, or something at that URL, which is asked once."""
        return exists(self.text, timeout=self.timeout)


@runtime_checkable
class Source(Protocol):
    """A dataset that can be read as a stream, once per call of `batches`.

    A source may also have ``leave_text(names)``: metadata columns that are to come as the text that they are written as,
    where the format has no types, because theirs are known; ``notes``: what it left out or renamed, in sentences, complete
    once `batches` is through; ``manifests``: tables (`embedstore.sources.manifests.Manifest`) that it holds and does not
    read; ``unread``: what it could not look into, in a sentence, likewise complete; ``duplicate_hint(first, second)``: what
    to do, in one sentence, about an id that the items at these positions share; and ``unique_ids``: true where `batches`
    raises before its first batch if two items share one.
    """

    @property
    def name(self) -> str:
        """What messages call it, such as its path."""

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that it has a column for."""

    def count(self) -> int | None:
        """How many items there are, where that is known without reading them all."""

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The items in a fixed order.

        Raises
        ------
        SourceError, DuplicateIdError
        """
