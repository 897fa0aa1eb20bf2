"""Pictures of items in small, of the files that they were embedded from; the last ones are kept."""

from __future__ import annotations

import io
from typing import NamedTuple

from embedstore.encoders.payloads.faces import is_svg, small_picture
from embedstore.errors import MissingDependencyError, PayloadError
from embedstore.serving.known_files import Identity, KnownFiles
from embedstore.serving.once import Once
from embedstore.serving.own_files import SEEN, own_file
from embedstore.serving.session import Session

SIZES = (64, 128, 256, 512, 1024)
QUALITY = 82
KEPT_BYTES = 64 << 20
NOTHING_BYTES = 512
"""Of memory that it takes to know that a file has no picture."""
MAX_PIXELS = 100_000_000
"""Of a picture that is decoded for a request."""


class Picture(NamedTuple):
    """A JPEG or an SVG, and what tells it from another one."""

    data: bytes
    etag: str

    @property
    def media_type(self) -> str:
        return "image/svg+xml" if is_svg(self.data) else "image/jpeg"


class Thumbnails:
    """Threads share it; `of` takes a few milliseconds where the picture is not kept.

    A picture is drawn once for whoever asks meanwhile, and that a file has none is kept, too.
    """

    def __init__(self, files: KnownFiles, limit: int = KEPT_BYTES) -> None:
        self._files = files
        self._drawn: Once[tuple[Identity, str, int], bytes | None] = Once(limit, lambda data: len(data or b"") + NOTHING_BYTES)

    def of(self, session: Session, item: str, size: int, space: str | None = None) -> Picture | None:
        """The picture of an item, a sound's waveform or a film's frame; None where it has none that can be read.

        Raises
        ------
        UsageError
            No item has this id.
        """
        own = own_file(session, item, SEEN, space)
        if own is None:
            return None
        modality = own.modality
        side = 0 if modality == "audio" else next((one for one in SIZES if one >= size), SIZES[-1])  # a waveform has one size
        try:
            with self._files.opened(own) as known:
                data = self._drawn.get((known.identity, modality, side), lambda: _drawn(known.file, modality, side))
        except PayloadError:
            return None
        return None if data is None else Picture(data, f'"{own.digest.hex()}-{modality}-{side}"')


def _drawn(file: io.FileIO, modality: str, side: int) -> bytes | None:
    """The picture of a file; None where it has none, whoever asks how often. What the disk says against it is raised."""
    try:
        return small_picture(file, modality, side, quality=QUALITY, max_pixels=MAX_PIXELS)
    except (PayloadError, MissingDependencyError, ValueError):
        return None
