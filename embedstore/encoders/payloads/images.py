"""From an image file's bytes to the pixels a model sees: one path for every format, on Pillow.

EXIF orientation is applied, transparency is composited on white, 16-bit, CMYK, palette and greyscale images become 8-bit
RGB, an animation gives its first frame. Resizing follows torchvision's and timm's evaluation transforms on 8-bit pixels, but
computes only what the crop keeps; normalisation is left to the model, so that workers pass on a third of the bytes. Pixels have
four bytes, of which the last says nothing: Pillow holds them so, and packing three of them takes half as long as decoding.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.encoders.payloads.deep import MODES, eight_bit
from embedstore.errors import PayloadError, one_line

MAX_SCALED_PIXELS = 1 << 26
MOST_SUPPORT = 4
"""Pixels on each side of one that any filter takes into account, and one more."""

Pixels = npt.NDArray[np.uint8]

FORMATS = (
    "JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "AVIF", "ICO", "JPEG2000", "ICNS", "DDS", "QOI", "PSD",
    "PCX", "TGA",
)  # fmt: skip
"""What Pillow may open, formats without a mark of their own last; its EPS and PDF readers would start other programs."""


_HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


@dataclass(frozen=True)
class ImageTransform:
    """How a model wants its pixels.

    Parameters
    ----------
    size : (height, width)
    resize : str
        ``"shortest"`` (then centre crop), ``"longest"`` (then pad with `fill`), ``"squash"``, ``"squash-crop"`` (to more than
        `size`, then centre crop) or ``"border"`` (the longest side to `resize_to`, then pad with the mean colour or crop).
    resize_to : int
        Length of the shorter side of what is cropped; not for ``"longest"`` and ``"squash"``.
    interpolation : str
        ``"bicubic"``, ``"bilinear"``, ``"lanczos"`` or ``"nearest"``.
    mean, std : (3,) floats
        Of pixels in [0, 1]; applied by the model.
    fill : int
    """

    size: tuple[int, int]
    resize: str
    resize_to: int
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    fill: int = 0

    def to_dict(self) -> dict[str, Any]:
        """For the encoder's fingerprint; ``decoder`` names this module's own behaviour."""
        fields = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        return {"decoder": "pillow-rgb8-white-1", **fields}

    def __call__(self, payload: bytes, *, max_pixels: int) -> Pixels:
        """Pixels (height, width, 4) uint8 of an image file's bytes.

        Raises
        ------
        PayloadError
        """
        return self.pixels(decode_rgb(payload, max_pixels=max_pixels))

    def pixels(self, image: Any) -> Pixels:
        """Pixels (height, width, 4) uint8 of a Pillow image in mode RGB: red, green, blue, and one of no meaning."""
        return _four_bytes(self._resized(image))

    @property
    def _to_crop(self) -> tuple[int, int]:
        """(width, height) of the square or rectangle that is then cropped."""
        height, width = (self.resize_to * side // min(self.size) for side in self.size)
        return width, height

    def _resized(self, image: Any) -> Any:
        from PIL import Image

        filter_ = Image.Resampling[self.interpolation.upper()]
        height, width = self.size
        if self.resize == "squash":
            return image.resize((width, height), filter_)
        if self.resize == "longest":
            scale = min(width / image.width, height / image.height)
            inner = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
            canvas = Image.new("RGB", (width, height), (self.fill,) * 3)
            canvas.paste(image.resize(inner, filter_), ((width - inner[0]) // 2, (height - inner[1]) // 2))
            return canvas
        if self.resize == "squash-crop":
            return _centred(image.resize(self._to_crop, filter_), width, height)
        if self.resize == "border":
            scale = min(self._to_crop[0] / image.width, self._to_crop[1] / image.height)
            inner = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
            return _centred(image.resize(inner, filter_), width, height, tuple(round(255 * mean) for mean in self.mean))
        scaled = shortest(image.width, image.height, self.resize_to)
        if scaled[0] * scaled[1] > MAX_SCALED_PIXELS:  # from 1:1024 on at 256 pixels: a crop would show next to nothing of it
            raise PayloadError("decode", f"{image.width} × {image.height} pixels is too long and thin to be cropped")
        left, top = round((scaled[0] - width) / 2.0), round((scaled[1] - height) / 2.0)
        if left < 0 or top < 0 or image.size == scaled:
            return image.resize(scaled, filter_).crop((left, top, left + width, top + height))
        # Only what the crop keeps: half the time, within two levels of the whole.
        across, down = image.width / scaled[0], image.height / scaled[1]
        first, last = top * down, (top + height) * down
        if vertical_first(image.size, (width, height)) and not vertical_first(image.size, scaled):
            margin = MOST_SUPPORT * max(down, 1)
            above = max(0, math.floor(first - margin))
            image = image.crop((0, above, image.width, min(image.height, math.ceil(last + margin))))
            first, last = first - above, last - above
        return image.resize((width, height), filter_, box=(left * across, first, (left + width) * across, last))


def _centred(image: Any, width: int, height: int, fill: tuple[int, ...] = ()) -> Any:
    """The middle of a Pillow image, with a border where it is smaller; timm's rounding."""
    from PIL import Image

    canvas = Image.new("RGB", (width, height), fill or 0)
    spare = (width - image.width, height - image.height)
    canvas.paste(image, tuple(left // 2 if left > 0 else -round(-left / 2.0) for left in spare))
    return canvas


def vertical_first(size: tuple[int, int], to: tuple[int, int]) -> bool:
    """Whether Pillow resizes an image (width, height) along its columns before its rows, as version 13 does where that is less
    work. The order matters: it rounds in between.
    """
    import PIL

    return int(PIL.__version__.partition(".")[0]) >= 13 and 0 < size[1] - to[1] > 2 * (size[0] - to[0])


def _four_bytes(image: Any) -> Pixels:
    """The memory (height, width, 4) of a Pillow image in mode RGB, not copied, not to be written to."""
    import pyarrow as pa

    try:
        flat = pa.array(image).values.to_numpy()
    except ValueError:  # it lies in several blocks of memory
        return np.pad(np.asarray(image), ((0, 0), (0, 0), (0, 1)))
    return np.asarray(flat).reshape(image.height, image.width, 4)


def shortest(width: int, height: int, target: int) -> tuple[int, int]:
    """torchvision's rule: the shorter side becomes `target`, the longer is rounded down."""
    if width <= height:
        return target, int(target * height / width)
    return int(target * width / height), target


def decode_rgb(payload: bytes, *, max_pixels: int, draft: int | None = None) -> Any:
    """A Pillow image in mode RGB from an image file's bytes.

    Parameters
    ----------
    draft : int, optional
        A JPEG may be decoded to a half, a quarter or an eighth of its size, as long as both sides keep this many pixels.

    Raises
    ------
    PayloadError
        With a reason for people.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    if not payload:
        raise PayloadError("decode", "the file is empty (0 bytes)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(payload), formats=_formats())
            if not image.width * image.height:
                raise PayloadError("decode", f"the image has no pixels: it is {image.width} × {image.height}")
            if image.width * image.height > max_pixels:
                raise _too_large(f"{image.width} × {image.height} = {image.width * image.height:,} pixels", max_pixels)
            if draft is not None:
                image.draft(None, (draft, draft))
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return _to_rgb(image)
    except UnidentifiedImageError:
        raise PayloadError("decode", _unknown(payload)) from None
    except Image.DecompressionBombError as error:
        found = re.search(r"\((\d+) pixels\)", str(error))
        raise _too_large(f"{int(found[1]):,} pixels" if found else one_line(error), max_pixels) from None
    except PayloadError:
        raise
    except Exception as error:  # Pillow's readers raise OSError, ValueError, SyntaxError, struct.error and others
        raise PayloadError("decode", f"the image is damaged: {one_line(error)}") from error


def _unknown(payload: bytes) -> str:
    """Why bytes that Pillow does not know are no picture for us."""
    if payload[4:8] == b"ftyp" and payload[8:12] in _HEIF:
        what = "HEIF (.heic)"
    elif payload.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")):
        what = "JPEG XL (.jxl)"
    elif b"<svg" in payload[:1024]:
        what = "SVG"
    else:
        return f"not an image: starts with {payload[:12]!r}"
    return f"{what} has no decoder here; convert it to JPEG or PNG"


@lru_cache
def _formats() -> list[str]:
    """Those of `FORMATS` that this Pillow reads; its plugins are registered first."""
    from PIL import Image

    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _too_large(what: str, max_pixels: int) -> PayloadError:
    return PayloadError("decode", f"{what}, over the limit of {max_pixels:,}; --max-pixels raises it")


def _to_rgb(image: Any) -> Any:
    from PIL import Image

    if image.mode in MODES:
        image = eight_bit(image)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")
