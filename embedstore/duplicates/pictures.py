"""Thumbnails of a store's pictures, from the files they were embedded from. Wiring of stores, files and thumbnails."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedstore._core.keys import hash_payload
from embedstore._core.ordered import ordered_map
from embedstore.duplicates.pixels import Thumbnails
from embedstore.encoders.payloads.thumbnail import SIDE, Thumbnail, thumbnail
from embedstore.errors import PayloadError
from embedstore.sources.files import read_file
from embedstore.store import Space, Store

__all__ = ["ReadThumbnails", "read_thumbnails"]

EVERY = 256


@dataclass(frozen=True)
class ReadThumbnails:
    """What could be read.

    Parameters
    ----------
    thumbnails : Thumbnails
        Of n items; black where nothing was read.
    areas : (n,) int64
        Pixels of each picture; 0 where it was not read.
    problem : str, optional
        Why the first unreadable picture could not be read.
    """

    thumbnails: Thumbnails
    areas: npt.NDArray[np.int64]
    problem: str | None

    @property
    def read(self) -> npt.NDArray[np.bool_]:
        """Mask (n,) of those that were read."""
        return self.areas > 0


def read_thumbnails(
    store: Store,
    space: Space,
    rows: npt.NDArray[np.int64],
    *,
    workers: int | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> ReadThumbnails:
    """Thumbnails of the items at `rows` (n,), whose pictures were embedded into `space`.

    A file that is gone, that cannot be decoded, or whose bytes are not those that were embedded has none.

    Parameters
    ----------
    workers : int, optional
        Threads that read and decode; default: one for each core.
    on_progress : callable, optional
        Is told the share that is done.
    """
    n, column = len(rows), space.spec.modality
    pixels, aspect, areas = np.zeros((n, SIDE, SIDE, 3), np.uint8), np.zeros(n, np.float32), np.zeros(n, np.int64)
    if column not in store.items.column_types():
        return ReadThumbnails(Thumbnails(pixels, aspect), areas, "the store does not know their files")
    table = store.items.take(rows, ["id", column])
    paths, ids = table.column(column).to_pylist(), table.column("id")
    keys = np.ascontiguousarray(space.hash_of(rows).astype("<u8")).view("V16").ravel()
    workers = workers or os.cpu_count() or 1
    problem = None
    with ThreadPoolExecutor(workers, thread_name_prefix="embedstore-pixels") as pool:
        work = zip(paths, (key.tobytes() for key in keys), strict=True)
        for i, found in enumerate(ordered_map(pool, _thumbnail, work, window=4 * workers)):
            if isinstance(found, PayloadError):
                problem = problem or f"{ids[i].as_py()}: {found.reason}"
            else:
                pixels[i], aspect[i], areas[i] = found
            if on_progress is not None and (i + 1) % EVERY == 0:
                on_progress((i + 1) / n)
    return ReadThumbnails(Thumbnails(pixels, aspect), areas, problem)


def _thumbnail(work: tuple[str | None, bytes]) -> Thumbnail | PayloadError:
    path, key = work
    try:
        if path is None:
            raise PayloadError("read", "the store does not know its file")
        payload = read_file(path)
        if hash_payload(payload) != key:
            raise PayloadError("read", f"{path} has changed since it was embedded")
        return thumbnail(payload)
    except PayloadError as error:
        return error
