"""A sound in small: an outline of its spectrum, and bits that stay what they are when it is saved again.

The bits are those of Haitsma & Kalker, "A highly robust audio fingerprinting system" (ISMIR 2002): for each moment and each of
32 pairs of neighbouring bands, whether the difference of their energies grows. Frames are shorter and bands reach higher than
theirs, since a sound may be one word or a bird. Loudness does not count, nor does silence before and after. Bytes in, arrays
out; what two fingerprints have in common is judged by `embedstore.duplicates.spectra`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from embedstore.encoders.payloads.sounds import Samples, decode_sound

Float = npt.NDArray[np.float32]

RATE = 16_000
FRAME, HOP = 2048, 256
BANDS, LOWEST, HIGHEST = 33, 200.0, 6500.0
"""From a pair of bands comes a bit: 33 of them make 32."""
FLOOR = 1e-4
"""Of the loudest band's energy, added to all: what lies 40 dB below it is noise of an encoder as soon as not."""
PARTS = 16
"""Of equal length, whose mean spectra are the outline."""
SILENCE, STEP = 10**-4.5, RATE // 50
"""What is quieter than 45 dB below the loudest 20 ms is left out at both ends."""
AT_ONCE = 1024
"""Frames that are transformed at once."""


class Fingerprint(NamedTuple):
    """A sound in small.

    Parameters
    ----------
    outline : (528,) float32
        Log energies of 33 bands in 16 parts, less their mean; zeros of silence.
    bits : (m,) uint32
        One number each 16 ms.
    seconds : float
        Without the silence at both ends.
    """

    outline: Float
    bits: npt.NDArray[np.uint32]
    seconds: float


def fingerprint(payload: bytes) -> Fingerprint:
    """The fingerprint of a sound file's bytes.

    Raises
    ------
    PayloadError
    """
    samples = sounding(decode_sound(payload, RATE))
    energies = _energies(samples)
    levels = np.log(energies + np.float32(FLOOR) * energies.max() + np.float32(1e-30))
    slopes = levels[:, :-1] - levels[:, 1:]
    grows = np.diff(slopes, axis=0) > 0
    bits = np.packbits(grows, axis=1).view(">u4").ravel().astype(np.uint32)
    return Fingerprint(_outline(levels), bits, len(samples) / RATE)


def sounding(samples: Samples) -> Samples:
    """`samples` (n,) without the silence at both ends."""
    whole = len(samples) // STEP
    if whole < 2:
        return samples
    power = np.square(samples[: whole * STEP].reshape(whole, STEP)).mean(axis=1)
    loud = np.flatnonzero(power >= SILENCE * power.max())
    return samples[loud[0] * STEP : (loud[-1] + 1) * STEP]


def _energies(samples: Samples) -> Float:
    """Energies (frames, bands) float32 around every 256th sample, of samples whose loudest has the value 1."""
    loudest = max(samples.max(), -samples.min())
    window = _hann() / loudest if loudest else _hann()
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(samples, FRAME // 2), FRAME)[::HOP]
    parts = (frames[lo : lo + AT_ONCE] * window for lo in range(0, len(frames), AT_ONCE))
    return np.concatenate([np.square(np.abs(np.fft.rfft(part))) @ _filters() for part in parts]).astype(np.float32)


def _outline(levels: Float) -> Float:
    """Means over `PARTS` equal parts of the levels (frames, bands), less the mean of all."""
    sums = np.concatenate([np.zeros((1, BANDS)), np.cumsum(levels, axis=0, dtype=np.float64)])
    edges = np.linspace(0, len(levels), PARTS + 1)
    at = np.minimum(edges.astype(int), len(levels) - 1)
    means = np.diff(sums[at] + (edges - at)[:, None] * levels[at], axis=0) / np.diff(edges)[:, None]
    return np.asarray(means - means.mean(), np.float32).ravel()


@lru_cache(maxsize=1)
def _hann() -> Float:
    return np.hanning(FRAME).astype(np.float32)


@lru_cache(maxsize=1)
def _filters() -> Float:
    """Bands (1025, 33) float32 of equal width on a logarithmic scale, each the mean of its frequencies."""
    hertz: npt.NDArray[Any] = np.fft.rfftfreq(FRAME, 1 / RATE)[:, None]
    edges = np.geomspace(LOWEST, HIGHEST, BANDS + 1)
    inside = (hertz >= edges[:-1]) & (hertz < edges[1:])
    return np.asarray(inside / inside.sum(axis=0), np.float32)
