"""Greyscale pictures of more than eight bits a pixel, whole numbers or floats, as eight bits: scaled, never clipped to white.

Files of 16 bits and fewer say what white is. Of 32 bits and of floats it is known by the values alone: the usual ranges
end at 1 (floats), 255 and 65,535; a picture beyond them, or with values well below 0, is scaled from its own least value to
its own largest.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.errors import PayloadError

MODES = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")
"""Pillow's modes of such pictures."""

_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # TIFF tags
_UNSIGNED, _SIGNED = 1, 2
_SPARE = 0.1  # of a range: so far resampling overshoots it
_DIM = 16.0  # floats up to here, above 1: brighter than white rather than a black picture of 0 to 255


def eight_bit(image: Any) -> Any:
    """A Pillow image in mode L; a value that the file declares transparent is white.

    Raises
    ------
    PayloadError
        Values that are not finite.
    """
    from PIL import Image

    tags = getattr(image, "tag_v2", {})
    bits, kind = _first(tags.get(_BITS)), _first(tags.get(_SAMPLE_FORMAT)) or _UNSIGNED
    raw = np.asarray(image)
    if image.mode == "I" and bits == 32 and kind == _UNSIGNED:
        raw = raw.view(np.uint32)  # Pillow reads them as signed
    values: npt.NDArray[Any] = raw.astype(np.float64 if image.mode in ("I", "F") else np.float32)
    if not np.isfinite(values).all():
        raise PayloadError("decode", "the image holds values that are not finite")
    if image.mode not in ("I", "F"):
        low, high = 0.0, float((1 << (bits or 16)) - 1)
    elif image.format == "PPM" and image.mode == "I":
        low, high = 0.0, 65535.0  # Pillow has scaled them
    else:
        low, high = _range(values, image.mode == "F", signed=bits == 16 and kind == _SIGNED)
    scaled = np.clip(np.rint((values - low) * (255.0 / (high - low))), 0, 255).astype(np.uint8)
    if tags.get(_PHOTOMETRIC) == 0:  # white is zero
        scaled = 255 - scaled
    if isinstance(clear := image.info.get("transparency"), int):
        scaled[raw == clear] = 255
    return Image.fromarray(scaled)


def _range(values: npt.NDArray[Any], floats: bool, *, signed: bool) -> tuple[float, float]:
    """What is black and what is white, by the values."""
    least, largest = float(values.min(initial=0)), float(values.max(initial=0))
    for top in ((1.0,) if floats else ()) + (255.0, 32767.0 if signed else 65535.0):
        if largest <= top * (1 + (_SPARE if floats else 0)) and least >= -_SPARE * top * floats:
            return 0.0, largest if top == 255 and floats and largest < _DIM else top
    return least, max(largest, least + 1e-300)


def _first(tag: Any) -> int | None:
    return int(tag[0]) if isinstance(tag, tuple) else tag
