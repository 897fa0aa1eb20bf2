"""Which files are decoded on the GPU: told by their headers, without torch."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest
from jpeg_files import jpeg, photo
from PIL import Image

from embedstore.encoders.payloads import jpegs
from embedstore.encoders.payloads.images import ImageTransform
from embedstore.encoders.payloads.jpegs import ALL_SAMPLINGS, UNSAMPLED, Jpeg, taken

TRANSFORM = ImageTransform((224, 224), "shortest", 256, "bicubic", (0.5,) * 3, (0.5,) * 3)
LIMIT = 1_000_000


def is_taken(payload: bytes | memoryview, samplings: tuple[int, ...] = ALL_SAMPLINGS) -> bool:
    return taken(payload, TRANSFORM, LIMIT, samplings=samplings) is not None


@pytest.mark.parametrize("sampling", ALL_SAMPLINGS)
def test_files_are_taken_by_their_sampling_of_chroma(sampling: int) -> None:
    file = jpeg(photo(0, (301, 203)), subsampling=sampling)
    assert is_taken(file)
    assert is_taken(file, UNSAMPLED) == (sampling == 0)


def test_grey_files_have_no_chroma_to_sample() -> None:
    assert is_taken(jpeg(photo(0, (301, 203)).convert("L")), UNSAMPLED)


def test_other_samplings_go_through_pillow() -> None:
    file = bytearray(jpeg(photo(0, (64, 64)), subsampling=2))
    at = file.index(b"\xff\xc0") + 11
    assert file[at] == 0x22
    file[at] = 0x41  # 4:1:1
    assert not is_taken(bytes(file))


def test_progressive_files_go_through_pillow() -> None:
    assert not is_taken(jpeg(photo(0, (300, 200)), progressive=True))
    assert not is_taken(jpeg(photo(0, (300, 200)), progressive=True, subsampling=0), UNSAMPLED)


def test_what_a_decoder_might_read_otherwise_goes_through_pillow() -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    png = io.BytesIO()
    photo(0, (60, 50)).save(png, "PNG")
    assert not is_taken(png.getvalue())
    assert not is_taken(jpeg(photo(1, (60, 50)).convert("CMYK")))
    assert not is_taken(jpeg(photo(2, (60, 50)), exif=turned))
    assert not is_taken(jpeg(photo(2, (60, 50)), keep_rgb=True))


def test_what_is_cut_off_too_large_or_very_thin_goes_through_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    file = jpeg(photo(0, (300, 200)))
    assert is_taken(file)
    assert not is_taken(file[: len(file) // 2])
    assert not is_taken(file[:20] + file[-2:])
    assert taken(file, TRANSFORM, 300 * 200 - 1) is None
    assert not is_taken(jpeg(Image.new("RGB", (6, 16_000))))
    monkeypatch.setattr(jpegs, "MOST_BYTES", len(file) - 1)
    assert not is_taken(file)


def test_a_view_of_shared_memory_is_taken_as_it_is() -> None:
    view = memoryview(jpeg(photo(0, (300, 200))))
    found = taken(view, TRANSFORM, LIMIT)
    assert found == Jpeg(view, 384 * 256)
    assert found.payload is view


def test_no_torch_is_loaded_to_look_at_a_header() -> None:
    code = (
        "import sys; from embedstore.encoders.payloads.images import ImageTransform;"
        "from embedstore.encoders.payloads.jpegs import taken;"
        "t = ImageTransform((8, 8), 'squash', 8, 'bicubic', (0,) * 3, (1,) * 3);"
        "print(taken(sys.stdin.buffer.read(), t, 10**6) is not None, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], input=jpeg(photo(0, (30, 20))), capture_output=True, check=True)
    assert done.stdout.split() == [b"True", b"False"]
