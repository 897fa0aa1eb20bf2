"""A picture in small: at 16 × 16 pixels, which tell copies of it from pictures that are like it, or for people to look at.

The whole picture is squashed, nothing is cropped. Bytes in, pixels out; what two thumbnails have in common is judged by
`embedstore.duplicates.pixels`.
"""

from __future__ import annotations

import io
import math
from typing import Any, NamedTuple

import numpy as np

from embedstore.encoders.base import EncoderRequest
from embedstore.encoders.payloads.images import Pixels, decode_rgb

SIDE = 16
"""8 to 32 were compared: at 8 more look-alikes pass, from 24 on fewer copies of small pictures (benchmarks/dedup.py)."""
DRAFT = 8
"""Times the side that a JPEG is decoded to at least; at 4, 2 % of shrunken copies are lost."""
MAX_PIXELS = EncoderRequest.max_pixels


class Thumbnail(NamedTuple):
    """A picture in small.

    Parameters
    ----------
    pixels : (side, side, 3) uint8
    aspect : float
        Logarithm of the picture's width / height.
    area : int
        Pixels of the picture.
    """

    pixels: Pixels
    aspect: float
    area: int


def thumbnail(payload: bytes, *, side: int = SIDE, max_pixels: int = MAX_PIXELS) -> Thumbnail:
    """The thumbnail of an image file's bytes.

    Bicubic: with a box filter a shrunken copy is twice as far from its original.

    Raises
    ------
    PayloadError
    """
    from PIL import Image

    image = decode_rgb(payload, max_pixels=max_pixels, draft=DRAFT * side)
    small = np.asarray(image.resize((side, side), Image.Resampling.BICUBIC))
    width, height = Image.open(io.BytesIO(payload)).size  # the draft's is smaller; this reads the header alone
    return Thumbnail(small, math.log(image.width / image.height), width * height)


def small_jpeg(payload: bytes, side: int, *, quality: int, max_pixels: int = MAX_PIXELS) -> bytes:
    """A JPEG of at most `side` × `side` pixels that shows what an encoder sees: upright, transparency on white.

    Raises
    ------
    PayloadError
    """
    return as_jpeg(decode_rgb(payload, max_pixels=max_pixels, draft=side), side, quality=quality)


def as_jpeg(image: Any, side: int, *, quality: int) -> bytes:
    """A PIL image in RGB as a JPEG of at most `side` × `side` pixels; it is made that small itself."""
    image.thumbnail((side, side))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality, optimize=True)
    return out.getvalue()
