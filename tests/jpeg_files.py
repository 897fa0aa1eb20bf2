"""JPEG files for tests."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image

from embedstore.encoders.image_encoder import pictures


def jpeg(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **{"quality": 92, **options})
    return file.getvalue()


def photo(seed: int, size: tuple[int, int]) -> Image.Image:
    return Image.fromarray(pictures(224, 224)[seed % 8]).resize(size, Image.Resampling.BICUBIC)
