"""From a video file's bytes to some of its frames, upright, without holding the film in memory: on PyAV (FFmpeg).

Frames are those shown at the middle of equal parts of the film. Each is looked for from the key frame before it; only where a
file does not say how long it is, or cannot be sought in, is it decoded from its beginning.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import IO, Any

from embedstore.errors import PayloadError, one_line
from embedstore.registry import require

EXTRA = "video"
MAX_PIXELS = 1 << 26
"""Of a frame."""
LATER, DARK = 8, 40
"""Frames that are looked at for one that is not black, and the brightness (of 255) of which a black one has no pixel."""


def frames(payload: bytes, count: int) -> list[Any]:
    """At most `count` different frames, PIL images in RGB, in the order in which they are shown; at least one.

    Raises
    ------
    PayloadError
        It is no video that FFmpeg reads, has no video stream, or no frame that can be decoded.
    """
    return _frames(io.BytesIO(payload), count)


def _frames(file: IO[bytes], count: int) -> list[Any]:
    av = require("av", extra=EXTRA)
    av.logging.set_level(av.logging.PANIC)
    file.seek(0)
    try:
        with av.open(file, metadata_errors="ignore") as film:
            if not film.streams.video:
                raise PayloadError("decode", "is a file without a video stream")
            stream = film.streams.video[0]
            stream.codec_context.thread_count = 1  # films are decoded side by side
            if stream.codec_context.width * stream.codec_context.height > MAX_PIXELS:
                raise PayloadError("decode", f"has frames of more than {MAX_PIXELS:,} pixels")
            found = _sought(film, stream, count) or _walked(file, count)
    except (av.FFmpegError, ValueError) as error:
        raise PayloadError("decode", f"is no video that FFmpeg reads ({one_line(error, 100)})") from error
    if not found:
        raise PayloadError("decode", "is a video without a frame that can be decoded")
    return found


def cover(file: IO[bytes]) -> Any:
    """The frame that stands for a film, a PIL image in RGB: the first, unless it is black and a later one is not.

    The file is read where it has to be, and never whole.

    Raises
    ------
    PayloadError
        As `frames`.
    """
    first = next((_upright(frame) for frame in _opened(file)), None)
    if first is not None and not _black(first):
        return first
    later = _frames(file, LATER)
    return next((image for image in later if not _black(image)), first or later[0])


def _opened(file: IO[bytes]) -> Iterator[Any]:
    """All frames of what may be no film at all: then there are none."""
    av = require("av", extra=EXTRA)
    av.logging.set_level(av.logging.PANIC)
    file.seek(0)
    try:
        with av.open(file, metadata_errors="ignore") as film:
            for stream in film.streams.video[:1]:
                if stream.codec_context.width * stream.codec_context.height <= MAX_PIXELS:
                    yield from film.decode(stream)
    except (av.FFmpegError, ValueError):
        return


def _black(image: Any) -> bool:
    return bool(image.convert("L").getextrema()[1] < DARK)


def _sought(film: Any, stream: Any, count: int) -> list[Any]:
    """The frames at the middle of `count` parts; none where the file says too little for that, or seeking fails."""
    av = require("av", extra=EXTRA)
    length = _length(film, stream)
    if not length:
        return []
    start, found, last = stream.start_time or 0, [], None
    for number in range(count):
        wanted = start + int((number + 0.5) * length / count)
        try:
            film.seek(wanted, stream=stream)
            frame = _shown(film.decode(stream), wanted)
        except av.FFmpegError:
            break  # cut off here: what came before counts
        if frame is not None and frame.pts != last:
            last = frame.pts
            found.append(_upright(frame))
    return found


def _length(film: Any, stream: Any) -> int:
    """Of the video, in units of the stream's time base; 0 where nothing says it."""
    if stream.duration:
        return int(stream.duration)
    return int(film.duration / 1_000_000 / stream.time_base) if film.duration else 0


def _shown(decoded: Iterator[Any], wanted: int) -> Any:
    """The last frame that begins by `wanted`, or the first one after it; None where there is none."""
    shown = None
    for frame in decoded:
        if frame.pts is None:
            continue
        if frame.pts > wanted:
            return frame if shown is None else shown
        shown = frame
    return shown


def _walked(file: IO[bytes], count: int) -> list[Any]:
    """The frames at the middle of `count` parts by number, of a film that is decoded twice from its beginning."""
    total = sum(1 for _ in _decoded(file))
    wanted = sorted({int((number + 0.5) * total / count) for number in range(min(count, total))})
    found: list[Any] = []
    for number, frame in enumerate(_decoded(file)):
        if len(found) < len(wanted) and number == wanted[len(found)]:
            found.append(_upright(frame))
    return found


def _decoded(file: IO[bytes]) -> Iterator[Any]:
    """All frames up to one that cannot be decoded."""
    av = require("av", extra=EXTRA)
    file.seek(0)
    with av.open(file, metadata_errors="ignore") as film:
        try:
            yield from film.decode(film.streams.video[0])
        except av.FFmpegError:
            return


def _upright(frame: Any) -> Any:
    image = frame.to_image()
    return image.rotate(frame.rotation, expand=True) if frame.rotation else image
