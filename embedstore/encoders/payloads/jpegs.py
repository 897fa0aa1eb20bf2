"""Which files a GPU may decode: plain JPEGs, told by their headers alone.

Needs no torch, so that processes that only read files can ask. What is not taken goes through Pillow.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Collection
from typing import NamedTuple

from embedstore.encoders.payloads.images import ImageTransform, shortest

MOST_PIXELS = 1 << 26
"""Of a file, or of what it is scaled to."""
MOST_BYTES = 1 << 20
"""Of a file; hundreds wait for their batch at once."""
ORIENTATION = 0x0112

ALL_SAMPLINGS = (0, 1, 2)
"""Of chroma, as Pillow numbers them: 4:4:4, 4:2:2, 4:2:0."""
UNSAMPLED = (0,)
"""4:4:4 alone. Grey files have no chroma, and are taken with any of these."""


class Jpeg(NamedTuple):
    """A file that is decoded with its batch.

    Parameters
    ----------
    payload : bytes or memoryview
        The whole file; it must not change before the batch's vectors are there.
    area : int
        Pixels of the image, or of what it is scaled to where that is more.
    """

    payload: bytes | memoryview
    area: int


def taken(
    payload: bytes | memoryview, transform: ImageTransform, max_pixels: int, *, samplings: Collection[int] = ALL_SAMPLINGS
) -> Jpeg | None:
    """`payload` to be decoded with its batch; None where Pillow has to do it, or to say what is wrong.

    Taken are whole baseline files, RGB or grey, upright, within the limits of pixels and bytes, and of one of the
    `samplings`. Decoders on a GPU take a progressive file's passes one by one, which costs more than Pillow.
    """
    from PIL import Image
    from PIL.JpegImagePlugin import get_sampling

    whole = payload[:3] == b"\xff\xd8\xff" and payload[-2:] == b"\xff\xd9"
    if not whole or len(payload) > MOST_BYTES:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(payload), formats=["JPEG"])
        plain = image.mode in ("RGB", "L") and image.info.get("adobe_transform", 1) == 1 and not image.info.get("progressive")
        named = [component[0] for component in getattr(image, "layer", ())]
        upright = image.getexif().get(ORIENTATION, 1) == 1
        sampled = image.mode == "L" or get_sampling(image) in samplings
    except Exception:  # Pillow's readers raise many kinds; it will say what is wrong when it decodes
        return None
    across, down = shortest(image.width, image.height, transform.resize_to)
    area = max(image.width * image.height, across * down)
    fits = image.width * image.height <= max_pixels and area <= MOST_PIXELS
    return Jpeg(payload, area) if plain and sampled and upright and fits and named != list(b"RGB") else None
