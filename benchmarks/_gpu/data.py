"""Generated JPEG files and texts: as large as a camera's and a caption's, all different, made in seconds."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

DISTINCT = 64
"""Pictures of a size; files beyond them differ in a comment."""
FULL_CHROMA = 4
"""Every fourth picture keeps all of its chroma samples."""
KINDS = {1: "progressive", 2: "grey", 3: "CMYK", 5: "4:2:2"}
"""Pictures by number that are not 4:2:0 or 4:4:4."""
WORDS = 4000


class Sample(NamedTuple):
    """A picture and what is particular about its file: its subsampling, or one of `KINDS`."""

    kind: str
    payload: bytes


def picture(seed: int, pixels: int) -> npt.NDArray[np.uint8]:
    """(pixels, pixels, 3) uint8: fields of colour with soft and hard edges, detail and noise."""
    from PIL import Image

    rng = np.random.default_rng(seed)

    def field(cells: int) -> npt.NDArray[np.int16]:
        coarse = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        return np.asarray(coarse.resize((pixels, pixels), Image.Resampling.BICUBIC)).astype(np.int16)

    soft, hard = field(5), (field(9)[..., :1] > 140) * np.int16(70)
    detail = (field(max(8, pixels // 6)) - 128) // 4
    noise = rng.integers(-5, 6, (pixels, pixels, 3), dtype=np.int16)
    return np.asarray(np.clip(soft + detail + noise - hard, 0, 255), np.uint8)


def sample(pixels: int, number: int) -> Sample:
    """The picture `number` of a size, as a file."""
    from PIL import Image

    image = Image.fromarray(picture(number, pixels))
    kind = KINDS.get(number, "4:4:4" if number % FULL_CHROMA == 0 else "4:2:0")
    options: dict[str, Any] = {"quality": 90}
    if kind in ("4:4:4", "4:2:2", "4:2:0"):
        options["subsampling"] = kind
    elif kind == "progressive":
        options["progressive"] = True
    else:
        image = image.convert("L" if kind == "grey" else "CMYK")
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return Sample(kind, file.getvalue())


def samples(pixels: int, count: int = DISTINCT) -> list[Sample]:
    """The first `count` pictures of a size, drawn by as many threads as there are cores."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(partial(sample, pixels), range(count)))


def unique(payload: bytes, number: int) -> bytes:
    """A JPEG file with a comment that no other number has, behind its first segment."""
    text = f"{number:012d}".encode()
    at = 2
    if payload[2:4] in (b"\xff\xe0", b"\xff\xee"):  # JFIF's segment comes first
        at = 4 + struct.unpack(">H", payload[4:6])[0]
    return payload[:at] + b"\xff\xfe" + struct.pack(">H", 2 + len(text)) + text + payload[at:]


def cut_off(payload: bytes) -> bytes:
    """A file that ends in the middle of its pixels."""
    return payload[: len(payload) // 2]


def beheaded(payload: bytes) -> bytes:
    """A file that has both of its ends, and nothing between its first tables and its last mark."""
    return payload[:400] + payload[-2:]


def write_files(folder: Path, given: Sequence[Sample], count: int) -> list[str]:
    """Paths of `count` files that all differ; the last one is cut off."""
    folder.mkdir(parents=True, exist_ok=True)

    def write(number: int) -> str:
        payload = unique(given[number % len(given)].payload, number)
        path = folder / f"{number:06d}.jpg"
        path.write_bytes(payload if number < count - 1 else cut_off(payload))
        return str(path)

    with ThreadPoolExecutor() as pool:
        return list(pool.map(write, range(count)))


def words() -> list[str]:
    """Words of two to four syllables, always the same."""
    syllables = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]
    rng = np.random.default_rng(0)
    return ["".join(rng.choice(syllables, rng.integers(2, 5))) for _ in range(WORDS)]


def texts(count: int, least: int, most: int) -> list[str]:
    """`count` texts that all differ, of `least` to `most` words."""
    rng = np.random.default_rng(1)
    known = np.array(words(), object)
    lengths = rng.integers(least, most + 1, count)
    picked = rng.integers(0, len(known), int(lengths.sum()))
    ends = np.cumsum(lengths)
    return [" ".join(known[picked[end - n : end]]) + f" {i}" for i, (end, n) in enumerate(zip(ends, lengths, strict=True))]
