"""Pictures of items in small, of the files that they were embedded from; the last ones are kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import NamedTuple

from embedstore._core.keys import hash_file
from embedstore.encoders.payloads.faces import is_svg, small_picture
from embedstore.errors import MissingDependencyError, PayloadError
from embedstore.serving.own_files import SEEN, OwnFile, own_file
from embedstore.serving.session import Session
from embedstore.sources.files import readable

SIZES = (64, 128, 256, 512, 1024)
QUALITY = 82
KEPT_BYTES = 64 << 20
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
    """Threads share it; `of` takes a few milliseconds where the picture is not kept."""

    def __init__(self, limit: int = KEPT_BYTES) -> None:
        self._limit, self._bytes = limit, 0
        self._kept: OrderedDict[tuple[bytes, int], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, session: Session, item: str, size: int, space: str | None = None) -> Picture | None:
        """The picture of an item, a sound's waveform or a film's frame; None where it has none that can be read.

        Raises
        ------
        UsageError
            No item has this id.
        """
        file = own_file(session, item, SEEN, space)
        if file is None:
            return None
        side = 0 if file.modality == "audio" else next((one for one in SIZES if one >= size), SIZES[-1])
        key = (file.digest, side)  # a waveform has one size
        with self._lock:
            data = self._kept.get(key)
            if data is not None:
                self._kept.move_to_end(key)
        if data is None:
            data = _drawn(file, side)
            if data is None:
                return None
            self._keep(key, data)
        return Picture(data, f'"{file.digest.hex()}-{file.modality}-{side}"')

    def _keep(self, key: tuple[bytes, int], data: bytes) -> None:
        with self._lock:
            if key not in self._kept:
                self._kept[key] = data
                self._bytes += len(data)
            while self._bytes > self._limit:
                self._bytes -= len(self._kept.popitem(last=False)[1])


def _drawn(file: OwnFile, side: int) -> bytes | None:
    """The picture of a file whose content is still what was embedded."""
    try:
        with readable(file.path) as opened:
            if hash_file(opened) != file.digest:
                return None
            opened.seek(0)
            return small_picture(opened, file.modality, side, quality=QUALITY, max_pixels=MAX_PIXELS)
    except (PayloadError, OSError, MissingDependencyError):
        return None
