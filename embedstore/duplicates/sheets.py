"""Films by their frames: thumbnails of some frames of the files that they were embedded from, as one picture."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from embedstore.duplicates.content import Content, Say
from embedstore.duplicates.pairs import Pairs
from embedstore.duplicates.pixels import Thumbnails, alike_pairs
from embedstore.encoders.payloads.films import frames
from embedstore.encoders.payloads.images import Pixels
from embedstore.encoders.payloads.thumbnail import SIDE

ACROSS = 3
"""Frames across and down the picture: nine, at the middle of equal parts of the film."""
COUNT = ACROSS**2
LARGEST = math.inf
"""A frame may be the one beside it in a copy of another rate: no limit for one pixel."""


class Sheet(NamedTuple):
    """A film in small.

    Parameters
    ----------
    pixels : (ACROSS · side, ACROSS · side, 3) uint8
        Its frames, in rows.
    shape : (float, float)
        Logarithms of a frame's width / height, and of a second and when the last of the frames is shown: copies are as long.
    area : int
        Pixels of a frame.
    """

    pixels: Pixels
    shape: tuple[float, float]
    area: int


def sheet(payload: bytes) -> Sheet:
    """The frames of a video file's bytes in small; a film of fewer shows some more than once.

    Raises
    ------
    PayloadError
    """
    from PIL import Image

    sizes: list[tuple[int, int]] = []

    def shrunk(image: Any) -> Pixels:
        sizes.append(image.size)
        return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC))

    found = frames(payload, COUNT, each=shrunk)
    small = [frame.image for frame in found]
    every = np.stack([small[(2 * i + 1) * len(small) // (2 * COUNT)] for i in range(COUNT)])
    rows = every.reshape(ACROSS, ACROSS, SIDE, SIDE, 3).swapaxes(1, 2)
    width, height = sizes[0]
    shape = math.log(width / height), math.log1p(max(0.0, found[-1].seconds))
    return Sheet(rows.reshape(ACROSS * SIDE, ACROSS * SIDE, 3), shape, width * height)


class Films(Content):
    """Sheets of frames; of copies the film with the most pixels is kept."""

    noun, by = "films", "frames"
    up_to = 200_000
    """A sheet takes 7 kB, and reading so many films takes hours."""

    def __init__(self, n: int) -> None:
        super().__init__(n)
        side = ACROSS * SIDE
        self._sheets = Thumbnails(np.zeros((n, side, side, 3), np.uint8), np.zeros((n, 2), np.float32))

    def read(self, payload: bytes) -> Sheet:
        return sheet(payload)

    def keep(self, at: int, found: Sheet) -> None:
        self._sheets.pixels[at], self._sheets.aspect[at], self.sizes[at] = found

    def pairs(self, positions: npt.NDArray[np.int64], on_progress: Say) -> Pairs:
        found = alike_pairs(self._sheets.take(positions), largest=LARGEST, on_progress=on_progress)
        return Pairs(positions[found.left], positions[found.right], 1 - found.differences)
