"""Pictures by their pixels: thumbnails of the files that they were embedded from."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from embedstore.duplicates.content import Content, Say
from embedstore.duplicates.pairs import Pairs
from embedstore.duplicates.pixels import Thumbnails, alike_pairs
from embedstore.encoders.payloads.thumbnail import SIDE, Thumbnail, thumbnail


class Pictures(Content):
    """Thumbnails; of copies the picture with the most pixels is kept."""

    noun, by = "pictures", "pixels"
    up_to = 1_000_000
    """A thumbnail takes 768 bytes, and reading so many files takes a core 15 minutes."""

    def __init__(self, n: int) -> None:
        super().__init__(n)
        self._thumbnails = Thumbnails(np.zeros((n, SIDE, SIDE, 3), np.uint8), np.zeros(n, np.float32))

    def read(self, payload: bytes) -> Thumbnail:
        return thumbnail(payload)

    def keep(self, at: int, found: Thumbnail) -> None:
        self._thumbnails.pixels[at], self._thumbnails.aspect[at], self.sizes[at] = found

    def pairs(self, positions: npt.NDArray[np.int64], on_progress: Say) -> Pairs:
        found = alike_pairs(self._thumbnails.take(positions), on_progress=on_progress)
        return Pairs(positions[found.left], positions[found.right], 1 - found.differences)
