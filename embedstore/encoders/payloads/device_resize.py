"""What `ImageTransform` does to pixels, on a torch device and for many images of one size at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedstore.encoders.payloads.images import ImageTransform, shortest, vertical_first

if TYPE_CHECKING:
    import torch


def can_resize(transform: ImageTransform) -> bool:
    """Whether `resized` knows how: images are squashed, or scaled until a crop fits, by a filter that torch has too."""
    crops = transform.resize == "shortest" and transform.resize_to >= max(transform.size)
    return (crops or transform.resize == "squash") and transform.interpolation in ("bicubic", "bilinear")


def resized(images: torch.Tensor, transform: ImageTransform) -> torch.Tensor:
    """Pixels (n, 3, height, width) uint8 as `transform` wants them, of images (n, 3, h, w) uint8; computed in float32."""
    import torch
    from torch.nn.functional import interpolate

    height, width = transform.size
    size = (images.shape[3], images.shape[2])
    across, down = (width, height) if transform.resize == "squash" else shortest(*size, transform.resize_to)
    left, top = round((across - width) / 2.0), round((down - height) / 2.0)
    between = (down, size[0]) if vertical_first(size, (across, down)) else (size[1], across)
    for to in (between, (down, across)):  # one way, then the other, each rounded, as Pillow does
        pixels = images.to(torch.float32, memory_format=torch.contiguous_format)
        scaled = interpolate(pixels, to, mode=transform.interpolation, antialias=True)
        images = scaled.clamp_(0, 255).round_().byte()
    return images[:, :, top : top + height, left : left + width]
