"""Pictures of items in small, from the files that they were embedded from; the last ones are kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import NamedTuple

import numpy as np

from embedstore._core.keys import hash_payload
from embedstore.encoders.payloads.thumbnail import small_jpeg
from embedstore.errors import PayloadError
from embedstore.serving.session import Session
from embedstore.sources.files import is_url, read_file

SIZES = (64, 128, 256, 512, 1024)
QUALITY = 82
KEPT_BYTES = 64 << 20
MAX_PIXELS = 100_000_000
"""Of a picture that is decoded for a request."""


class Picture(NamedTuple):
    """A JPEG, and what tells it from another one."""

    data: bytes
    etag: str


class Thumbnails:
    """Threads share it; `of` takes a few milliseconds where the picture is not kept."""

    def __init__(self, limit: int = KEPT_BYTES) -> None:
        self._limit, self._bytes = limit, 0
        self._kept: OrderedDict[tuple[bytes, int], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, session: Session, item: str, size: int, space: str | None = None) -> Picture | None:
        """The picture of an item; None where it has none that can be read.

        Raises
        ------
        UsageError
            No item has this id.
        """
        row = session.store.items.rows_of([item])
        path, digest = _file(session, row, space)
        if path is None:
            return None
        side = next((one for one in SIZES if one >= size), SIZES[-1])
        with self._lock:
            data = self._kept.get((digest, side))
            if data is not None:
                self._kept.move_to_end((digest, side))
        if data is None:
            data = _drawn(path, digest, side)
            if data is None:
                return None
            self._keep((digest, side), data)
        return Picture(data, f'"{digest.hex()}-{side}"')

    def _keep(self, key: tuple[bytes, int], data: bytes) -> None:
        with self._lock:
            if key not in self._kept:
                self._kept[key] = data
                self._bytes += len(data)
            while self._bytes > self._limit:
                self._bytes -= len(self._kept.popitem(last=False)[1])


def _file(session: Session, row: np.ndarray[tuple[int], np.dtype[np.int64]], space: str | None) -> tuple[str | None, bytes]:
    """The file of an item's picture and the hash of its content; no file where no space was made of one."""
    spaces = [s for s in session.store.spaces.values() if s.spec.modality == "image" and s.has(row)[0]]
    spaces = [s for s in spaces if space in (None, s.name)]
    if not spaces or "image" not in session.types:
        return None, b""
    ((path,),) = session.store.items.lookup.values(row, ["image"])
    if path is not None and is_url(path):  # a request makes the server fetch nothing
        return None, b""
    return path, np.ascontiguousarray(spaces[0].hash_of(row).astype("<u8")).tobytes()


def _drawn(path: str, digest: bytes, side: int) -> bytes | None:
    """The JPEG of a file whose content is still what was embedded."""
    try:
        payload = read_file(path)
        if hash_payload(payload) != digest:
            return None
        return small_jpeg(payload, side, quality=QUALITY, max_pixels=MAX_PIXELS)
    except (PayloadError, OSError):
        return None
