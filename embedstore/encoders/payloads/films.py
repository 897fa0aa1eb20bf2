"""From a video file's bytes to some of its frames, upright, without holding the film in memory: on PyAV (FFmpeg).

Frames are those shown at the middle of equal parts of the film, or of its scenes. Each is looked for from the key frame before
it. Only to find scenes, and where a file does not say how long it is or cannot be sought in, is it decoded from its beginning.
"""

from __future__ import annotations

import io
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import IO, Any, NamedTuple

import numpy as np

from embedstore.encoders.payloads.scenes import SIDE, Changes, scene_middles
from embedstore.errors import PayloadError, one_line
from embedstore.registry import require

Each = Callable[[Any], Any]

EXTRA = "video"
MIDDLES, SCENES = "middles", "scenes"
SAMPLINGS = (MIDDLES, SCENES)
MAX_PIXELS = 1 << 26
"""Of a frame; each that is decoded is looked at, for a container's header may say less."""
MAX_KEPT = 1 << 28
"""Bytes of all pictures that are held at once; larger ones are made smaller."""
MAX_DECODED = 2 * 3600 * 60
"""Frames that are decoded of a file in all: those of two hours at 60 a second."""
LATER, DARK = 8, 40
"""Frames that are looked at for one that is not black, and the brightness (of 255) of which a black one has no pixel."""


class Frame(NamedTuple):
    """A picture of a film.

    Parameters
    ----------
    image : PIL.Image.Image
        In RGB, upright.
    seconds : float
        When it begins to be shown, from the beginning of the film.
    """

    image: Any
    seconds: float


def frames(payload: bytes, count: int, sampling: str = MIDDLES, *, each: Each | None = None) -> list[Frame]:
    """At most `count` different frames in the order in which they are shown; at least one.

    Parameters
    ----------
    sampling : str
        One of `SAMPLINGS`: the frames at the middle of `count` equal parts, or at the middle of each scene.
    each : callable, optional
        Is called with every picture, and what it returns is kept instead. Default: the pictures are kept, in a smaller size
        where all together would take more than `MAX_KEPT` bytes.

    Raises
    ------
    PayloadError
        It is no video that FFmpeg reads, has no video stream, no frame that can be decoded or one of more than `MAX_PIXELS`,
        or more than `MAX_DECODED` frames would have to be decoded.
    """
    return _frames(io.BytesIO(payload), count, sampling, each=each)


def _frames(file: IO[bytes], count: int, sampling: str = MIDDLES, *, each: Each | None = None) -> list[Frame]:
    av, work = require("av", extra=EXTRA), _Work(each or _Smaller(MAX_KEPT // (3 * count)))
    av.logging.set_level(av.logging.PANIC)
    file.seek(0)
    try:
        with av.open(file, metadata_errors="ignore") as film:
            if not film.streams.video:
                raise PayloadError("decode", "is a file without a video stream")
            stream = film.streams.video[0]
            stream.codec_context.thread_count = 1  # films are decoded side by side
            _guard(stream)
            if sampling == SCENES:
                found = _of_scenes(film, stream, file, count, work)
            else:
                found = _sought(film, stream, _middles(film, stream, count), work) or _walked(file, count, work)
    except (av.FFmpegError, ValueError) as error:
        if error is work.failed:
            raise
        raise PayloadError("decode", f"is no video that FFmpeg reads ({said(error)})") from error
    if not found:
        raise PayloadError("decode", "is a video without a frame that can be decoded")
    return found


class _Work:
    """What is done for one file: how many frames have been decoded, and what is kept of those that were looked for."""

    def __init__(self, each: Each) -> None:
        self._each = each
        self._decoded = 0
        self.failed: Exception | None = None

    def of(self, decoded: Iterator[Any]) -> Iterator[Any]:
        """The frames `decoded`, unless there are too many, or one is too large."""
        for frame in decoded:
            self._decoded += 1
            if self._decoded > MAX_DECODED:
                raise PayloadError("decode", f"takes more than {MAX_DECODED:,} frames to decode; cut it into shorter films")
            _refuse_large(frame)
            yield frame

    def kept(self, frame: Any, seconds: float) -> Frame:
        image = _upright(frame)
        try:
            return Frame(self._each(image), seconds)
        except Exception as error:
            self.failed = error  # it is not the film's
            raise


class _Smaller:
    """Makes pictures of more than `pixels` smaller, and leaves others as they are."""

    def __init__(self, pixels: int) -> None:
        self._pixels = pixels

    def __call__(self, image: Any) -> Any:
        width, height = image.size
        if width * height > self._pixels:
            share = (self._pixels / (width * height)) ** 0.5
            image = image.resize((max(1, int(width * share)), max(1, int(height * share))), reducing_gap=2.0)
        return image


def _guard(stream: Any) -> None:
    """Refuse a film that says itself that its frames are large, and have FFmpeg make no room for much larger ones."""
    _refuse_large(stream.codec_context)
    stream.codec_context.options = {"max_pixels": str(4 * MAX_PIXELS)}  # above it, the film ends


def _refuse_large(frame: Any) -> None:
    """`frame`, or what a header says of all, has so many pixels that to convert it would take too much memory."""
    if frame.width * frame.height > MAX_PIXELS:
        raise PayloadError("decode", f"has frames of more than {MAX_PIXELS:,} pixels")


def said(error: Exception) -> str:
    """What PyAV says against a file, in a few words."""
    return one_line(getattr(error, "strerror", None) or str(error), 100)


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
    later = [frame.image for frame in _frames(file, LATER)]
    return next((image for image in later if not _black(image)), first or later[0])


def _opened(file: IO[bytes]) -> Iterator[Any]:
    """All frames of what may be no film at all: then there are none."""
    av = require("av", extra=EXTRA)
    av.logging.set_level(av.logging.PANIC)
    file.seek(0)
    try:
        with av.open(file, metadata_errors="ignore") as film:
            for stream in film.streams.video[:1]:
                _guard(stream)
                for frame in film.decode(stream):
                    _refuse_large(frame)
                    yield frame
    except (av.FFmpegError, ValueError):
        return


def _black(image: Any) -> bool:
    return bool(image.convert("L").getextrema()[1] < DARK)


def _of_scenes(film: Any, stream: Any, file: IO[bytes], count: int, work: _Work) -> list[Frame]:
    """The frame at the middle of each of at most `count` scenes, of a film that is decoded from its beginning to its end."""
    times, small = array("d"), array("d")
    changes = Changes()
    for frame, seconds in _decoded(file, work):
        times.append(seconds)
        small.append(changes.to(frame.reformat(SIDE, SIDE, "rgb24", interpolation="AREA").to_ndarray()))
    at = np.frombuffer(times) if times else np.zeros(0)
    wanted = scene_middles(at, np.frombuffer(small) if small else at, count)
    ticks = [round(time / stream.time_base) for time in wanted] if _length(film, stream) else []
    return _sought(film, stream, ticks, work) or _numbered(file, (np.searchsorted(at, wanted, side="right") - 1).tolist(), work)


def _middles(film: Any, stream: Any, count: int) -> list[int]:
    """The middle of `count` parts, in units of the stream's time base; none where nothing says how long the film is."""
    length = _length(film, stream)
    return [int((number + 0.5) * length / count) for number in range(count)] if length else []


def _sought(film: Any, stream: Any, times: Sequence[int], work: _Work) -> list[Frame]:
    """The frames shown at `times` after the beginning, in units of the stream's time base; none where seeking fails."""
    av = require("av", extra=EXTRA)
    start, found, last = stream.start_time or 0, list[Frame](), None
    key: int | None = None
    running, in_vain = _Running(iter(())), False
    for time in times:
        try:
            before, key = key, _key_frame(stream, start + time)
            if key != before or (key is None and not in_vain):  # else the frame is further on from where the decoder is
                film.seek(start + time, stream=stream)
                at, running = running.first, _Running(work.of(film.decode(stream)))
                if running.first is None:
                    break  # nothing here says when it is shown
                in_vain = running.first == at  # this film can hardly be sought in
            frame = running.shown(start + time)
        except av.FFmpegError:
            break  # cut off here: what came before counts
        if frame is not None and frame.pts != last:
            last = frame.pts
            found.append(work.kept(frame, float((frame.pts - start) * stream.time_base)))
    return found


def _length(film: Any, stream: Any) -> int:
    """Of the video, in units of the stream's time base; 0 where nothing says it."""
    if stream.duration:
        return int(stream.duration)
    return int(film.duration / 1_000_000 / stream.time_base) if film.duration else 0


def _key_frame(stream: Any, wanted: int) -> int | None:
    """The number of the last key frame by `wanted` in the film's index; None where that does not reach so far."""
    entries = getattr(stream, "index_entries", None)  # older versions of PyAV do not show it
    if not entries or entries[len(entries) - 1].timestamp < wanted:
        return None
    number = entries.search_timestamp(wanted)
    return number if number >= 0 else None


class _Running:
    """A film that is being decoded, in the order in which its frames are shown."""

    def __init__(self, decoded: Iterator[Any]) -> None:
        self._decoded = (frame for frame in decoded if frame.pts is not None)
        self._now: Any = None
        self._next: Any = next(self._decoded, None)
        self.first: int | None = None if self._next is None else self._next.pts

    def shown(self, wanted: int) -> Any:
        """The last frame that begins by `wanted`, or the first one after it; None where there is none."""
        while self._next is not None and self._next.pts <= wanted:
            self._now, self._next = self._next, next(self._decoded, None)
        return self._next if self._now is None else self._now


def _walked(file: IO[bytes], count: int, work: _Work) -> list[Frame]:
    """The frames at the middle of `count` parts by number, of a film that is decoded twice from its beginning."""
    total = sum(1 for _ in _decoded(file, work))
    return _numbered(file, {int((number + 0.5) * total / count) for number in range(min(count, total))}, work)


def _numbered(file: IO[bytes], numbers: Iterable[int], work: _Work) -> list[Frame]:
    """The frames of these numbers, of a film that is decoded from its beginning to the last of them."""
    wanted, found = sorted(set(numbers)), list[Frame]()
    for number, (frame, seconds) in enumerate(_decoded(file, work) if wanted else ()):
        if number == wanted[len(found)]:
            found.append(work.kept(frame, seconds))
            if len(found) == len(wanted):
                break
    return found


def _decoded(file: IO[bytes], work: _Work) -> Iterator[tuple[Any, float]]:
    """All frames up to one that cannot be decoded, and when each begins to be shown, in seconds after the first."""
    av = require("av", extra=EXTRA)
    before = file.tell()  # another that reads the same file goes on from here
    file.seek(0)
    with av.open(file, metadata_errors="ignore") as film:
        stream = film.streams.video[0]
        _guard(stream)
        rate, first = float(stream.average_rate or stream.guessed_rate or 25), None
        try:
            for number, frame in enumerate(work.of(film.decode(stream))):
                time = number / rate if frame.time is None else frame.time
                first = time if first is None else first
                yield frame, time - first
        except av.FFmpegError:
            return
        finally:
            file.seek(before)


def _upright(frame: Any) -> Any:
    image = frame.to_image()
    return image.rotate(frame.rotation, expand=True) if frame.rotation else image
