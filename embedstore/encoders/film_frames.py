"""Frames of a film as a video processor of transformers makes them ready; the model's module normalises them."""

from __future__ import annotations

from typing import Any

import numpy as np

from embedstore.encoders.media import Films
from embedstore.encoders.piecewise import Prepared, lone
from embedstore.encoders.runtimes.base import Array


class FilmFrames:
    """Films as arrays (t, 3, h, w) uint8.

    Parameters
    ----------
    processor
        Of transformers.
    count : int
        Of frames, those at the middle of equal parts.
    always : bool
        Those of a shorter film are repeated.
    """

    def __init__(self, processor: Any, count: int, *, always: bool) -> None:
        self._processor = processor
        self._films = Films(count, always)

    @property
    def normal(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each colour, of pixels from 0 to 255."""
        given = self._processor
        one = given.rescale_factor if given.do_rescale else 1.0
        mean, std = (given.image_mean, given.image_std) if given.do_normalize else ([0.0] * 3, [1.0] * 3)
        return [float(value) / one for value in mean], [float(value) / one for value in std]

    def about(self) -> dict[str, Any]:
        sizes = {name: getattr(self._processor, name, None) for name in ("size", "crop_size", "resample", "do_center_crop")}
        told = {name: _plain(one) for name, one in sizes.items() if one is not None}
        mean, std = self.normal
        return {**self._films.about(), **told, "mean": mean, "std": std}

    def prepared(self, payload: bytes) -> Prepared:
        return lone(self._frames(self._films.piece(payload)))

    def examples(self) -> list[tuple[Array, ...]]:
        whole, short = self._films.example(), self._films.example(shorter=True)
        return [(self._frames(whole),), (self._frames(short),)]

    def _frames(self, film: dict[str, Any]) -> Array:
        as_they_are = {"do_sample_frames": False, "do_rescale": False, "do_normalize": False}
        found = self._processor([film["array"]], return_tensors="pt", **as_they_are)["pixel_values_videos"][0]
        return np.ascontiguousarray(found.round().clip(0, 255).byte().numpy())


def _plain(given: Any) -> Any:
    """As JSON has it."""
    if isinstance(given, bool | str):
        return given
    return int(given) if isinstance(given, int) else {name: int(one) for name, one in dict(given).items() if one is not None}
