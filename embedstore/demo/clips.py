"""The demo's sounds: 120 short clips in 8 classes, computed from formulas, with a few words on each."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedstore.registry import require

Float = npt.NDArray[np.float64]
Made = tuple[Float, str]

RATE = 16_000
SECONDS = 1.5
EACH = 15
"""Clips of a class."""


def write_sounds(folder: Path) -> Path:
    """Write the clips into `folder` (files that are there stay as they are) and return their table.

    The table has columns ``id``, ``audio``, ``text`` and ``label``. The same clips every time.

    Raises
    ------
    MissingDependencyError
        The extra ``audio`` is not installed.
    """
    soundfile = require("soundfile", extra="audio")
    (folder / "sounds").mkdir(parents=True, exist_ok=True)
    table = folder / "manifest.csv"
    rows = []
    for label, make in CLASSES.items():
        for number in range(EACH):
            rng = np.random.default_rng([number, *label.encode()])
            samples, words = make(rng)
            name = f"{label}-{number:02d}"
            path = folder / "sounds" / f"{name}.flac"
            if not path.exists():
                loudness = rng.uniform(0.3, 0.9) / np.abs(samples).max()
                soundfile.write(path, samples * loudness, RATE, format="FLAC", subtype="PCM_16")
            rows.append((name, f"sounds/{name}.flac", words, label))
    with open(table, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("id", "audio", "text", "label"), *rows])
    return table


def _time() -> Float:
    return np.arange(int(SECONDS * RATE)) / RATE


def _word(value: float, least: float, most: float, words: tuple[str, ...]) -> str:
    """The one of `words` that stands for `value` between `least` and `most`."""
    return words[min(len(words) - 1, int((value - least) / (most - least) * len(words)))]


def _bell(rng: np.random.Generator) -> Made:
    pitch, decay = rng.uniform(300, 1200), rng.uniform(2, 6)
    partials = [(1, 1.0), (2.76, 0.6), (5.4, 0.3), (8.93, 0.1)]
    ring = sum(
        level * np.sin(2 * np.pi * pitch * ratio * _time()) * np.exp(-decay * ratio**0.5 * _time()) for ratio, level in partials
    )
    return np.asarray(ring), f"a {_word(pitch, 300, 1200, ('big', 'small'))} bell is struck once"


def _siren(rng: np.random.Generator) -> Made:
    low, speed = rng.uniform(500, 700), rng.uniform(0.7, 3)
    pitch = low * (1.5 + 0.5 * np.sin(2 * np.pi * speed * _time()))
    wail = np.sin(2 * np.pi * np.cumsum(pitch) / RATE)
    return np.tanh(3 * wail), f"a siren wails {_word(speed, 0.7, 3, ('slowly', 'fast'))}"


def _rain(rng: np.random.Generator) -> Made:
    strength = rng.uniform(50, 400)
    drops = (rng.random(len(_time())) < strength / RATE) * rng.normal(0, 3, len(_time()))
    hiss = np.diff(rng.normal(0, 0.3, len(_time()) + 1))
    return drops + hiss, f"{_word(strength, 50, 400, ('light', 'heavy'))} rain falls on leaves"


def _engine(rng: np.random.Generator) -> Made:
    turns = rng.uniform(25, 90)
    phase = np.cumsum(turns * (1 + 0.02 * rng.normal(size=len(_time())))) / RATE
    hum = sum(np.sin(2 * np.pi * k * phase) / k for k in range(1, 12))
    return np.asarray(hum) + rng.normal(
        0, 0.1, len(_time())
    ), f"an engine runs {_word(turns, 25, 90, ('idle', 'at full speed'))}"


def _bird(rng: np.random.Generator) -> Made:
    calls, pitch = int(rng.integers(2, 8)), rng.uniform(2500, 5000)
    song = np.zeros(len(_time()))
    for at in np.linspace(0.05, SECONDS - 0.2, calls):
        near = np.clip((_time() - at) / 0.12, 0, 1)
        song += np.sin(np.pi * near) ** 2 * np.sin(2 * np.pi * (pitch + 900 * near) * _time())
    return song, f"a bird chirps {_word(calls, 2, 8, ('a few times', 'many times'))}"


def _drum(rng: np.random.Generator) -> Made:
    beats, pitch = int(rng.integers(2, 7)), rng.uniform(50, 130)
    sound = np.zeros(len(_time()))
    for at in np.arange(beats) * SECONDS / beats:
        since = np.maximum(_time() - at, 0)
        hit = np.exp(-18 * since) * (np.sin(2 * np.pi * pitch * since) + 0.2 * rng.normal(size=len(since)))
        sound += np.where(_time() >= at, hit, 0)
    return sound, f"{_word(pitch, 50, 130, ('a deep', 'a high'))} drum is beaten"


def _whistle(rng: np.random.Generator) -> Made:
    pitch, trill = rng.uniform(1200, 2400), rng.uniform(4, 9)
    phase = np.cumsum(pitch * (1 + 0.02 * np.sin(2 * np.pi * trill * _time()))) / RATE
    return np.sin(2 * np.pi * phase) + rng.normal(0, 0.02, len(_time())), "somebody whistles a long note"


def _waves(rng: np.random.Generator) -> Made:
    period = rng.uniform(0.5, 1.5)
    rumble = np.cumsum(rng.normal(size=len(_time())))
    rumble -= np.convolve(rumble, np.ones(400) / 400, mode="same")
    return rumble * (
        1.2 + np.sin(2 * np.pi * _time() / period)
    ), f"{_word(period, 0.5, 1.5, ('short', 'long'))} waves break on a beach"


CLASSES: dict[str, Callable[[np.random.Generator], Made]] = {
    "bell": _bell,
    "bird": _bird,
    "drum": _drum,
    "engine": _engine,
    "rain": _rain,
    "siren": _siren,
    "waves": _waves,
    "whistle": _whistle,
}
