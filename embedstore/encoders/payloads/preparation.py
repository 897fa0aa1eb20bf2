"""What `ImageEncoder.prepare` does, here and in the processes that do it for a GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from embedstore.encoders.payloads.images import ImageTransform, Pixels
from embedstore.encoders.payloads.jpegs import Jpeg, taken


@dataclass(frozen=True)
class Preparation:
    """From an image file's bytes to pixels (height, width, 4) uint8, or to a file that is decoded on the device.

    Parameters
    ----------
    transform : ImageTransform
    max_pixels : int
    samplings : tuple of int
        Plain JPEGs with these samplings of chroma are left to the device, as `taken` says; none where this is empty.
    """

    transform: ImageTransform
    max_pixels: int
    samplings: tuple[int, ...] = ()

    def __call__(self, payload: bytes) -> Pixels | Jpeg:
        file = taken(payload, self.transform, self.max_pixels, samplings=self.samplings) if self.samplings else None
        return self.transform(payload, max_pixels=self.max_pixels) if file is None else file

    def arguments(self) -> dict[str, Any]:
        """What `preparation` makes it of in another process."""
        transform = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self.transform).items()}
        return {"transform": transform, "max_pixels": self.max_pixels, "samplings": list(self.samplings)}


def preparation(
    transform: Mapping[str, Any], max_pixels: int, samplings: Sequence[int]
) -> Callable[[bytes], Pixels | list[int]]:
    """A `Preparation` that gives of a file for the device what `Jpeg` has besides its bytes."""
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in transform.items()}
    prepare = Preparation(ImageTransform(**fields), max_pixels, tuple(samplings))

    def said(payload: bytes) -> Pixels | list[int]:
        found = prepare(payload)
        return list(found[1:]) if isinstance(found, Jpeg) else found

    return said
