"""From a sound file's bytes to samples at one rate, and to windows of one length: one path for every format, on libsndfile.

What libsndfile does not read, such as AAC and the sound tracks of films, PyAV decodes where it is installed. Channels are
averaged, then the mean is resampled once, by soxr at its high quality. What a file says of itself, such as its name, counts for
nothing: its bytes do. Windows follow one another from the first sample on; nothing is drawn at random.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import pairwise
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from embedstore.encoders.payloads.sound_tracks import sound_track
from embedstore.errors import PayloadError, one_line
from embedstore.registry import require, version

Samples = npt.NDArray[np.float32]

EXTRA = "audio"
BLOCK = 1 << 18
"""Frames that are decoded at once."""
STEP = 64
"""Samples of which `peaks` keeps the largest while it reads."""
LEAST_RATE = 1000
"""Samples a second: what says that it has fewer is no sound that a model knows, and a few bytes of it would fill the memory."""
MOST_SECONDS = 2 * 3600
"""Longer sounds are failures: their samples would be held in memory whole."""


def decode_sound(payload: bytes, rate: int) -> Samples:
    """Samples (n,) float32 at `rate` a second, n > 0: the mean of all channels.

    Raises
    ------
    PayloadError
        It is no sound that libsndfile or PyAV reads, is longer than `MOST_SECONDS`, has fewer than `LEAST_RATE` samples a
        second, or holds none or some that are not finite.
    """
    library = require("soundfile", extra=EXTRA)
    try:
        with library.SoundFile(io.BytesIO(payload)) as file:
            samples = _joined(_resampled(_bounded(_mono(file), file.samplerate), file.samplerate, rate))
    except library.LibsndfileError as error:
        with sound_track(io.BytesIO(payload), _refusal(error)) as (given, found):
            samples = _joined(_resampled(_bounded(found, given), given, rate))
    if not len(samples):
        raise PayloadError("decode", "is a sound without samples")
    if not np.isfinite(samples).all():
        raise PayloadError("decode", "is a sound with samples that are not finite")
    return samples


def peaks(file: IO[bytes], count: int) -> Samples:
    """How loud a sound is in `count` equal parts: the largest magnitude in each (count,), 1 in the loudest; 0 in silence.

    Nothing is resampled, and no more than a block of samples is held.

    Raises
    ------
    PayloadError
        As `decode_sound`.
    """
    library = require("soundfile", extra=EXTRA)
    try:
        with library.SoundFile(file) as sound:
            steps = _steps(_mono(sound))
    except library.LibsndfileError as error:
        with sound_track(file, _refusal(error)) as (_, found):
            steps = _steps(found)
    every = np.concatenate(steps) if steps else np.zeros(0, np.float32)
    if not len(every):
        raise PayloadError("decode", "is a sound without samples")
    edges = np.linspace(0, len(every), count + 1).astype(int).tolist()
    parts = [every[lo : max(lo + 1, hi)].max() for lo, hi in pairwise(edges)]
    return np.asarray(parts, np.float32) / max(float(every.max()), 1e-9)


def _steps(blocks: Iterator[Samples]) -> list[Samples]:
    """The largest magnitude of each `STEP` samples, block by block."""
    return [_loudest(np.nan_to_num(np.abs(block), posinf=0.0)) for block in blocks]


def _loudest(magnitudes: Samples) -> Samples:
    """The largest of each `STEP` values."""
    return np.maximum.reduceat(magnitudes, np.arange(0, len(magnitudes), STEP)) if len(magnitudes) else magnitudes


def windows(samples: Samples, length: int, least: int) -> list[Samples]:
    """`samples` in consecutive windows of `length`, the last one shorter.

    A last window of fewer than `least` samples is left out; samples that are fewer than that in all are padded with zeros.
    """
    if len(samples) < least:
        return [np.pad(samples, (0, least - len(samples)))]
    return [samples[at : at + length] for at in range(0, len(samples) - least + 1, length)]


def provenance() -> dict[str, str]:
    """Versions of what decodes and resamples."""
    return {name: version(name) for name in ("soundfile", "soxr", "av")}


def _refusal(error: Any) -> str:
    """What libsndfile says against a file."""
    return f"is no sound that libsndfile reads: {one_line(error.error_string, 80)} (WAV, FLAC, Ogg, Opus, MP3, AIFF, …)"


def _mono(file: Any) -> Iterator[Samples]:
    """The mean of all channels, block by block."""
    for block in file.blocks(BLOCK, dtype="float32", always_2d=True):
        if block.shape[1] > 2:
            yield block.mean(axis=1, dtype=np.float32)
        else:  # the same numbers, in a tenth of the time
            yield block[:, 0] if block.shape[1] == 1 else (block[:, 0] + block[:, 1]) / np.float32(2)


def _bounded(blocks: Iterator[Samples], rate: int) -> Iterator[Samples]:
    if rate < LEAST_RATE:
        raise PayloadError("decode", f"has {rate:,} samples a second; a sound has at least {LEAST_RATE:,}")
    seconds = 0.0
    for block in blocks:
        seconds += len(block) / rate
        if seconds > MOST_SECONDS:
            raise PayloadError("decode", f"is longer than {MOST_SECONDS // 3600} hours; cut it into shorter sounds")
        yield block


def _joined(blocks: Iterator[Samples]) -> Samples:
    """All samples, without holding them twice: the array grows by a quarter where it is."""
    joined, made = np.zeros(BLOCK, np.float32), 0
    for block in blocks:
        end = made + len(block)
        if end > len(joined):
            joined.resize(max(end, len(joined) * 5 // 4), refcheck=False)
        joined[made:end], made = block, end
    joined.resize(made, refcheck=False)
    return joined


def _resampled(blocks: Iterator[Samples], given: int, rate: int) -> Iterator[Samples]:
    if given == rate:
        yield from blocks
        return
    stream = require("soxr", extra=EXTRA).ResampleStream(given, rate, 1, dtype="float32", quality="HQ")
    taken = made = 0
    for block in blocks:
        found = stream.resample_chunk(block)
        taken, made = taken + len(block), made + len(found)
        yield found
    rest = stream.resample_chunk(np.zeros(0, np.float32), last=True)
    yield rest if made + len(rest) or not taken else np.zeros(1, np.float32)  # a sample or two may come to none
