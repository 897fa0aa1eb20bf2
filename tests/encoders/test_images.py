"""Pictures of every range of values, mode and shape: the pixels against computations of their own."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, TiffImagePlugin

from embedstore.encoders.payloads.images import ImageTransform, decode_rgb
from embedstore.errors import PayloadError

LIMIT = 10**7
RAMP = np.tile(np.arange(256), (4, 1))


def saved(image: Any, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def grey(data: bytes) -> npt.NDArray[Any]:
    pixels = np.asarray(decode_rgb(data, max_pixels=LIMIT))
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0].astype(int)


def tiff(values: npt.NDArray[Any], *, white_is_zero: bool = False) -> bytes:
    """A greyscale TIFF of any type, written by hand."""
    little = values.dtype.newbyteorder("<")
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    data = values.astype(little).tobytes()
    height, width = values.shape
    tags = [(256, width), (257, height), (258, values.dtype.itemsize * 8), (259, 1), (262, 0 if white_is_zero else 1)]
    tags += [(273, 8), (277, 1), (278, height), (279, len(data)), (339, kind)]
    entries = b"".join(struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.int32, np.uint32, np.float32])
def test_the_range_is_known_by_the_type_or_by_the_values(dtype: Any) -> None:
    full = {np.uint16: 65535, np.int16: 32767}.get(dtype, 65535)
    bright = (RAMP / 255 * full).astype(dtype)
    assert np.abs(grey(tiff(bright)) - RAMP).max() <= 1
    if dtype is not np.uint16:  # which says what white is
        np.testing.assert_array_equal(grey(tiff(RAMP.astype(dtype))), RAMP)
    if dtype in (np.int32, np.uint32, np.float32):
        beyond = (RAMP / 255 * 2e9).astype(dtype)
        assert np.abs(grey(tiff(beyond)) - RAMP).max() <= 1
    if dtype in (np.int32, np.int16, np.float32):
        below = ((RAMP / 255 - 0.5) * 20000).astype(dtype)
        assert np.abs(grey(tiff(below)) - RAMP).max() <= 1


def test_unsigned_32_bits_do_not_wrap() -> None:
    assert np.abs(grey(tiff((RAMP / 255 * 4.2e9).astype(np.uint32))) - RAMP).max() <= 1


@pytest.mark.parametrize("most", [1.0, 1.05, 3.5, 255.0, 260.0])
def test_floats(most: float) -> None:
    values = (RAMP / 255 * most).astype(np.float32)
    white = {1.05: 1.0, 260.0: 255.0}.get(most, most)
    expected = np.clip(np.rint(values.astype(float) / white * 255), 0, 255)
    np.testing.assert_array_equal(grey(saved(Image.fromarray(values), "TIFF")), expected)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_a_failure(value: float) -> None:
    with pytest.raises(PayloadError, match="values that are not finite"):
        grey(tiff(np.full((2, 2), value, np.float32)))


def test_black_pictures_stay_black() -> None:
    for dtype in (np.uint16, np.int32, np.float32):
        assert not grey(tiff(np.zeros((3, 3), dtype))).any()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM", "JPEG2000"])
def test_sixteen_bits_of_every_format(kind: str) -> None:
    values = np.array([[0, 100, 257, 32768, 65535]], np.uint16).repeat(4, 0)
    expected = np.rint(values / 65535 * 255)
    np.testing.assert_array_equal(grey(saved(Image.fromarray(values), kind)), expected)
    dark = np.full((4, 4), 200, np.uint16)  # of 65,535, whatever the largest is
    assert (grey(saved(Image.fromarray(dark), kind)) == 1).all()


def test_tiffs_of_sixteen_and_twelve_bits() -> None:
    values = np.array([[0, 1000, 65535]], np.uint16)
    assert grey(tiff(values)).tolist() == [[0, 4, 255]]
    ifd = TiffImagePlugin.ImageFileDirectory_v2(prefix=b"MM")
    image = Image.frombytes("I;16B", (3, 1), values.astype(">u2").tobytes())
    assert grey(saved(image, "TIFF", tiffinfo=ifd)).tolist() == [[0, 4, 255]]
    assert grey(tiff(values, white_is_zero=True)).tolist() == [[255, 251, 0]]
    packed = bytes([0x00, 0x0F, 0xFF, 0x80, 0x00, 0x00])  # 0, 4095, 2048, 0
    head = tiff(np.zeros((1, 3), np.uint16))
    twelve = (head[:8] + packed + head[14:]).replace(struct.pack("<HHII", 258, 3, 1, 16), struct.pack("<HHII", 258, 3, 1, 12))
    twelve = twelve.replace(struct.pack("<HHII", 256, 3, 1, 3), struct.pack("<HHII", 256, 3, 1, 4))
    assert grey(twelve).tolist() == [[0, 255, 128, 0]]


def test_a_transparent_grey_of_sixteen_bits_is_white() -> None:
    image = Image.fromarray(np.array([[0, 1000, 30000]], np.uint16))
    assert grey(saved(image, "PNG", transparency=1000)).tolist() == [[0, 255, 117]]


def test_transparency_of_every_mode_lies_on_white() -> None:
    bits = Image.fromarray(np.array([[False, True]]))
    assert grey(saved(bits, "PNG")).tolist() == [[0, 255]]
    assert grey(saved(bits, "PNG", transparency=0)).tolist() == [[255, 255]]
    rgb = np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8)
    found = np.asarray(decode_rgb(saved(Image.fromarray(rgb), "PNG", transparency=(1, 2, 3)), max_pixels=LIMIT))
    assert found.tolist() == [[[255, 255, 255], [4, 5, 6]]]
    palette = Image.new("P", (3, 1))
    palette.putpalette([0, 0, 0, 10, 20, 30, 100, 100, 100])
    palette.putdata([0, 1, 2])
    found = np.asarray(decode_rgb(saved(palette, "PNG", transparency=bytes([255, 0, 128])), max_pixels=LIMIT)).astype(int)
    assert found[0, :2].tolist() == [[0, 0, 0], [255, 255, 255]]
    assert np.abs(found[0, 2] - (100 * 128 + 255 * 127) / 255).max() <= 1
    la = Image.fromarray(np.array([[[50, 255], [50, 0], [50, 51]]], np.uint8))
    assert np.abs(grey(saved(la, "PNG")) - [[50, 255, 50 * 0.2 + 255 * 0.8]]).max() <= 1


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_ink(kind: str) -> None:
    ink = np.zeros((16, 64, 4), np.uint8)
    ink[:, 16:32, 0], ink[:, 32:48, 3], ink[:, 48:] = 255, 255, (0, 255, 255, 0)
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    data = saved(Image.frombytes("CMYK", (64, 16), ink.tobytes()), kind, **options)
    assert kind == "TIFF" or b"Adobe" in data  # which means that the inks are inverted
    found = np.asarray(decode_rgb(data, max_pixels=LIMIT))[8, 8::16].astype(int)
    assert np.abs(found - [[255, 255, 255], [0, 255, 255], [0, 0, 0], [255, 0, 0]]).max() <= 4


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP", "PNG", "AVIF"])
def test_the_first_of_several_frames(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "lime")]
    data = saved(frames[0], kind, save_all=True, append_images=frames[1:])
    found = np.asarray(decode_rgb(data, max_pixels=LIMIT)).astype(int)
    assert np.abs(found - (255, 0, 0)).max() <= 4


@pytest.mark.parametrize("size", [(2, 2048), (2048, 2), (1, 9000)])
def test_very_thin_pictures_give_their_middle(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    transform = ImageTransform((64, 64), "shortest", 72, "bicubic", (0.0,) * 3, (1.0,) * 3)
    found = transform(saved(Image.fromarray(pixels), "PNG"), max_pixels=LIMIT)[..., :3].astype(int)
    assert found.shape == (64, 64, 3)
    cut = [slice(max(0, (length - 60) // 2), max(0, (length - 60) // 2) + min(length, 60)) for length in (size[1], size[0])]
    middle = Image.fromarray(np.ascontiguousarray(pixels[cut[0], cut[1]]))
    scale = 72 / min(size)
    whole = middle.resize((round(middle.width * scale), round(middle.height * scale)), Image.Resampling.BICUBIC)
    left, top = (whole.width - 64) // 2, (whole.height - 64) // 2
    expected = np.asarray(whole.crop((left, top, left + 64, top + 64))).astype(int)
    assert np.abs(found - expected).max() <= 2


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)])
def test_a_picture_without_pixels_is_a_failure(size: tuple[int, int]) -> None:
    gif = b"GIF89a" + struct.pack("<HH", *size) + b"\0\0\0;"
    for data in (b"P5 %d %d 255\n" % size, gif, b"BM" + bytes(60)):
        with pytest.raises(PayloadError):
            decode_rgb(data, max_pixels=LIMIT)


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0", r"HEIF \(.heic\) has no decoder here; convert it to JPEG or PNG"),
        (b"\xff\x0a\xfa\x7f", r"JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", r"JPEG XL"),
        (b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>", "SVG has no decoder"),
    ],
)
def test_kinds_without_a_decoder_are_named(payload: bytes, words: str) -> None:
    with pytest.raises(PayloadError, match=words):
        decode_rgb(payload, max_pixels=LIMIT)
