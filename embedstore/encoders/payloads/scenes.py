"""Where the scenes of a film begin: at frames that differ from the one before much more than their neighbours do.

A change is the mean absolute difference of two successive frames in small. It is a cut where it is at least `LEAST` and
`RATIO` times the mean of the changes around it, as in the adaptive detector of PySceneDetect (scenedetect.com): a moving
camera changes every frame, a cut one. Knows no file.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.float64]

SIDE = 32
"""Of a frame in small."""
LEAST = 15.0
"""Levels of 255."""
RATIO = 3.0
AROUND = 2
"""Changes on each side that a change is compared with."""
SHORTEST = 0.5
"""Seconds of a scene: of two cuts that are nearer to one another the weaker one is none."""

RULES = {"side": SIDE, "least": LEAST, "ratio": RATIO, "around": AROUND, "shortest": SHORTEST}
"""What scenes depend on."""


class Changes:
    """Frame after frame, how much it differs from the one before."""

    def __init__(self) -> None:
        self._last: npt.NDArray[np.int16] | None = None

    def to(self, pixels: npt.NDArray[Any]) -> float:
        """Mean absolute difference from the last frame to this one (side, side, 3) uint8; 0 for the first one."""
        now, last = pixels.astype(np.int16), self._last
        self._last = now
        return 0.0 if last is None else float(np.abs(now - last).mean())


def scene_middles(times: Times, changes: Times, count: int) -> list[float]:
    """The middle of each of at most `count` scenes, in seconds.

    Parameters
    ----------
    times : (n,) float64
        When each frame begins to be shown, ascending.
    changes : (n,) float64
        Of each frame from the one before.
    count : int
        The strongest ``count - 1`` cuts count.
    """
    if not len(times):
        return []
    begins = [times[0], *sorted(times[cut] for cut in _cuts(times, changes, count - 1))]
    ends = [*begins[1:], times[-1]]
    return [float(begin + end) / 2 for begin, end in zip(begins, ends, strict=True)]


def _cuts(times: Times, changes: Times, most: int) -> list[int]:
    """Positions of the strongest cuts."""
    offsets = [o for o in range(-AROUND, AROUND + 1) if o]
    beside = np.pad(changes, AROUND, constant_values=np.nan)
    around = np.stack([beside[AROUND + o : AROUND + o + len(changes)] for o in offsets])
    known = np.isfinite(around)
    usual = np.where(known, around, 0).sum(axis=0) / np.maximum(1, known.sum(axis=0))
    candidates = np.flatnonzero((changes >= LEAST) & (changes >= RATIO * usual))
    found: list[int] = []
    for at in candidates[np.argsort(-changes[candidates], kind="stable")].tolist():
        if len(found) == most:
            break
        borders = [times[0], times[-1], *times[found]]
        if min(abs(times[at] - border) for border in borders) >= SHORTEST:
            found.append(at)
    return found
