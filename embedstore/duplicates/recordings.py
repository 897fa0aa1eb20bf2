"""Sounds by their spectra: fingerprints of the files that they were embedded from."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from embedstore.duplicates.content import Content, Say
from embedstore.duplicates.pairs import Pairs
from embedstore.duplicates.spectra import alike_sounds
from embedstore.encoders.payloads.fingerprint import BANDS, PARTS, Fingerprint, fingerprint


class Recordings(Content):
    """Fingerprints; of copies the largest file is kept."""

    noun, by = "sounds", "spectra"
    up_to = 200_000
    """An outline takes a kilobyte, and all pairs of so many some minutes; the bits of an hour take 900 kB."""

    def __init__(self, n: int) -> None:
        super().__init__(n)
        self._outlines = np.zeros((n, PARTS * BANDS), np.float16)
        self._seconds = np.zeros(n)
        self._bits: list[npt.NDArray[np.uint32]] = [np.zeros(0, np.uint32)] * n

    def read(self, payload: bytes) -> Fingerprint:
        return fingerprint(payload)

    def keep(self, at: int, found: Fingerprint) -> None:
        self._outlines[at], self._bits[at], self._seconds[at] = found
        self.sizes[at] = 1

    def pairs(self, positions: npt.NDArray[np.int64], on_progress: Say) -> Pairs:
        bits = [self._bits[at] for at in positions.tolist()]
        found = alike_sounds(self._outlines[positions], bits, self._seconds[positions], on_progress=on_progress)
        return Pairs(positions[found.left], positions[found.right], found.scores)
