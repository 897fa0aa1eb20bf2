"""Resizing in torch: many images at once as one by one, and as Pillow does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from jpeg_files import photo

from embedstore.encoders.payloads.device_resize import can_resize, resized
from embedstore.encoders.payloads.images import ImageTransform


def transform(resize: str, interpolation: str = "bicubic", resize_to: int = 72) -> ImageTransform:
    return ImageTransform((64, 64), resize, resize_to, interpolation, (0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize("size", [(300, 200), (90, 400), (70, 65), (40, 40)])
@pytest.mark.parametrize("resize", ["shortest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_equals_pillow_to_a_level(size: tuple[int, int], resize: str, interpolation: str) -> None:
    images = [photo(i, size) for i in range(3)]
    stacked = torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2)
    how = transform(resize, interpolation)
    together = resized(stacked, how)
    assert torch.equal(together, torch.cat([resized(stacked[i : i + 1], how) for i in range(3)]))
    expected = np.stack([how.pixels(image)[..., :3] for image in images])
    off = np.abs(together.permute(0, 2, 3, 1).numpy().astype(int) - expected)
    assert off.max() <= 2
    assert off.mean() < 0.1


def test_padding_and_other_filters_are_left_to_pillow() -> None:
    assert can_resize(transform("shortest"))
    assert can_resize(transform("squash", "bilinear"))
    assert not can_resize(transform("shortest", resize_to=60))
    assert not can_resize(transform("longest"))
    assert not can_resize(transform("squash", "lanczos"))
