"""What people see of an item: its picture in small, a sound's waveform, or a film's frame."""

from __future__ import annotations

from typing import IO

from embedstore.encoders.payloads.films import cover
from embedstore.encoders.payloads.sounds import peaks
from embedstore.encoders.payloads.thumbnail import MAX_PIXELS, as_jpeg, small_jpeg

BARS, PITCH, HEIGHT = 60, 4, 120
"""Of a waveform: how many bars, how far they are from one another, and how high the highest is."""
COLOUR = "#6a7ce0"
"""Of the bars: at least 3 : 1 against white and against the page's and the report's dark ground."""


def waveform_svg(file: IO[bytes]) -> bytes:
    """A sound file's waveform as an SVG of about a kilobyte, made of numbers alone: nothing that the file says stands in it.

    Raises
    ------
    PayloadError

    Examples
    --------
    >>> waveform_svg(open("bell.flac", "rb"))[:4]  # doctest: +SKIP
    b'<svg'
    """
    width, middle = BARS * PITCH, HEIGHT // 2
    halves = [max(1, round(float(peak) * (middle - 2))) for peak in peaks(file, BARS)]
    path = "".join(f"M{PITCH * at + PITCH // 2} {middle - half}v{2 * half}" for at, half in enumerate(halves))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" width="{width}" height="{HEIGHT}">'
        f'<path d="{path}" stroke="{COLOUR}" stroke-width="{PITCH - 1.5}" stroke-linecap="round"/></svg>'
    ).encode()


def small_picture(file: IO[bytes], modality: str, side: int, *, quality: int, max_pixels: int = MAX_PIXELS) -> bytes:
    """What stands for a file of images, sounds or films: a JPEG of at most `side` × `side` pixels, or an SVG.

    Raises
    ------
    PayloadError
    MissingDependencyError
        The extra ``audio`` or ``video`` is not installed.
    """
    if modality == "audio":
        return waveform_svg(file)
    if modality == "video":
        return as_jpeg(cover(file), side, quality=quality)
    return small_jpeg(file.read(), side, quality=quality, max_pixels=max_pixels)


def is_svg(picture: bytes) -> bool:
    """Whether `small_picture` drew it as an SVG."""
    return picture.startswith(b"<svg")
