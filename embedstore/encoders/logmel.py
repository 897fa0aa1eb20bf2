"""`logmel`: statistics of a sound's log-mel spectrogram, 384-d, without weights.

The spectrogram is the front end of VGGish (Hershey et al., "CNN architectures for large-scale audio classification", ICASSP
2017): 16 kHz, periodic Hann windows of 25 ms every 10 ms, magnitudes in 64 mel bands (HTK's scale) from 125 to 7,500 Hz,
log(x + 0.01). Of each band over time: mean, standard deviation, standard deviation of the difference from frame to frame, and
the 10th, 50th and 90th percentile. It tells voices, languages, music and noises apart, and is the baseline that a network has
to beat; what a sound means it does not know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.encoders.base import EncoderRequest, Vectors, refuse_modality
from embedstore.encoders.payloads.sounds import Samples, decode_sound, provenance, windows
from embedstore.errors import UsageError
from embedstore.spec import EncoderSpec

Float = npt.NDArray[np.float32]

RATE = 16_000
FRAME, HOP, FFT = 400, 160, 512
BANDS, LOWEST, HIGHEST = 64, 125.0, 7500.0
OFFSET = 0.01
PERCENTILES = (10, 50, 90)
STATISTICS = 3 + len(PERCENTILES)
AT_ONCE = 4096
"""Frames that are transformed at once."""


class LogMelEncoder:
    """Statistics over time of a log-mel spectrogram (384,), see the module.

    A sound that is shorter than one frame is padded with zeros; silence has a vector like any other sound.
    """

    batch_size = 256
    truncated = 0
    license: str | None = None

    def __init__(self, name: str = "logmel") -> None:
        self.spec = EncoderSpec(
            name=name,
            family="logmel",
            model="vggish-frontend",
            weights="none",
            modality="audio",
            dim=BANDS * STATISTICS,
            preprocessing={
                "rate": RATE,
                "mix": "mean",
                "frame": FRAME,
                "hop": HOP,
                "fft": FFT,
                "mel": {"bands": BANDS, "lowest": LOWEST, "highest": HIGHEST, "scale": "htk", "power": 1, "offset": OFFSET},
            },
            pooling="mean,std,delta-std,p10,p50,p90",
        )

    def prepare(self, payload: bytes) -> Float:
        return statistics(log_mel(decode_sound(payload, RATE)))

    def encode(self, batch: Sequence[Float]) -> Vectors:
        return np.stack(batch)

    def provenance(self) -> Mapping[str, str]:
        return provenance()


def load(request: EncoderRequest) -> LogMelEncoder:
    """logmel: statistics of a log-mel spectrogram, 384-d; sounds; no weights (extra audio)."""
    refuse_modality(request, ["audio"])
    if request.argument:
        raise UsageError(f"logmel takes no model. Got {request.name!r}; type logmel.")
    return LogMelEncoder(request.name)


def log_mel(samples: Samples) -> Float:
    """Log-mel spectrogram (frames, 64) float32 of samples (n,) at 16 kHz."""
    padded = windows(samples, len(samples), FRAME)[0]
    frames = np.lib.stride_tricks.sliding_window_view(padded, FRAME)[::HOP]
    parts = (frames[lo : lo + AT_ONCE] * _hann() for lo in range(0, len(frames), AT_ONCE))
    return np.concatenate([np.log(np.abs(np.fft.rfft(part, FFT)) @ _filters() + np.float32(OFFSET)) for part in parts])


def statistics(spectrogram: Float) -> Float:
    """(64 · 6,) float32: of each band, what the module says; computed in float64, so that sums do not depend on their order."""
    exact = spectrogram.astype(np.float64)
    change = np.diff(exact, axis=0).std(axis=0) if len(exact) > 1 else np.zeros(exact.shape[1])
    shares = np.percentile(exact, PERCENTILES, axis=0)
    return np.concatenate([exact.mean(axis=0), exact.std(axis=0), change, *shares]).astype(np.float32)


@lru_cache(maxsize=1)
def _hann() -> Float:
    return np.asarray(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FRAME) / FRAME), np.float32)


@lru_cache(maxsize=1)
def _filters() -> Float:
    """Triangles on the mel scale (257, 64) float32, each with its top at 1."""

    def mel(hertz: Any) -> Any:
        return 1127.0 * np.log1p(hertz / 700.0)

    bins = mel(np.linspace(0, RATE / 2, FFT // 2 + 1))[:, None]
    edges = np.linspace(mel(LOWEST), mel(HIGHEST), BANDS + 2)
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return np.asarray(np.clip(np.minimum(rising, falling), 0, None), np.float32)
