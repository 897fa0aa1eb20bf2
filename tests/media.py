"""Sounds and films for tests, made when they are asked for."""

from __future__ import annotations

import io
from fractions import Fraction
from typing import Any

import numpy as np
import pytest


def wave(seconds: float, rate: int = 16_000, hertz: float = 440.0) -> Any:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def sound(samples: Any, rate: int = 16_000, kind: str = "WAV", subtype: str | None = None) -> bytes:
    soundfile = pytest.importorskip("soundfile")
    out = io.BytesIO()
    soundfile.write(out, samples, rate, format=kind, subtype=subtype)
    return out.getvalue()


def track(
    samples: Any, kind: str, *, codec: str = "aac", layout: str = "mono", film: bool = False, rate: int = 44_100
) -> bytes:
    """A file that libsndfile does not read, with a sound track and maybe a picture."""
    av = pytest.importorskip("av")
    out = io.BytesIO()
    with av.open(out, "w", format=kind) as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        if film:
            shown = container.add_stream("mpeg4", rate=25)
            shown.width = shown.height = 32
            shown.pix_fmt = "yuv420p"
            container.mux(shown.encode(av.VideoFrame(32, 32, "yuv420p")))
            container.mux(shown.encode())
        planes = np.asarray(np.atleast_2d(samples), np.float32)
        frame = av.AudioFrame.from_ndarray(planes, format="fltp", layout=layout)
        frame.rate = rate
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return out.getvalue()


def film(times: list[int], *, size: tuple[int, int] = (64, 48), kind: str = "mp4", gap: int = 12, first: int = 0) -> bytes:
    """A grey film whose frame at time t (in 1/25 s) has the level 10 · its number, from `first`; a key frame every `gap`."""
    av = pytest.importorskip("av")
    out = io.BytesIO()
    with av.open(out, "w", format=kind) as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = *size, "yuv420p", gap
        stream.codec_context.time_base = Fraction(1, 25)
        for number, time in enumerate(times, first):
            pixels = np.full((size[1], size[0], 3), min(255, 10 * number), np.uint8)
            pixels[: size[1] // 4] = 255 - pixels[: size[1] // 4]  # the top is told from the bottom
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return out.getvalue()
