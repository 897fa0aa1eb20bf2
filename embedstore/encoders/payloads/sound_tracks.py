"""The samples of sounds that libsndfile does not read, such as AAC, and of the sound track of a film: on PyAV (FFmpeg)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from embedstore.encoders.payloads.films import EXTRA, said
from embedstore.errors import MissingDependencyError, PayloadError, one_line
from embedstore.registry import require

Samples = npt.NDArray[np.float32]


@contextmanager
def sound_track(source: IO[bytes], refused: str) -> Iterator[tuple[int, Iterator[Samples]]]:
    """The rate of the first sound track of a file, and blocks of its samples (n,): the mean of all channels.

    A track that is cut off gives the samples before that.

    Parameters
    ----------
    refused : str
        Why libsndfile did not read it, which errors begin with.

    Raises
    ------
    PayloadError
        PyAV is not installed, FFmpeg does not read the file, it has no sound track, or none of it can be decoded.
    """
    try:
        av = require("av", extra=EXTRA)
    except MissingDependencyError as error:
        raise PayloadError("decode", f"{refused}; for AAC and films, {one_line(error, 100)}") from error
    av.logging.set_level(av.logging.PANIC)
    try:
        source.seek(0)
        with av.open(source, metadata_errors="ignore") as file:
            if not file.streams.audio:
                raise PayloadError("decode", f"{refused}, and has no sound track")
            stream = file.streams.audio[0]
            stream.codec_context.thread_count = 1  # sounds are decoded side by side
            decoded = _decoded(file, stream)
            first = next(decoded, None)
            if first is None:
                raise PayloadError("decode", f"{refused}, and its sound track cannot be decoded")
            planar = av.AudioResampler(format="fltp", layout=first.layout, rate=first.sample_rate)  # the codec may say another
            yield (
                first.sample_rate,
                (
                    one.to_ndarray().mean(axis=0, dtype=np.float32)
                    for frame in chain([first], decoded)
                    for one in planar.resample(frame)
                ),
            )
    except (av.FFmpegError, ValueError) as error:
        raise PayloadError("decode", f"{refused}, and FFmpeg does not read it ({said(error)})") from error


def _decoded(file: Any, stream: Any) -> Iterator[Any]:
    """All frames up to one that cannot be decoded."""
    av = require("av", extra=EXTRA)
    try:
        yield from file.decode(stream)
    except av.FFmpegError:
        return
