"""JPEG files decoded where the model runs, here on a CPU: the same vectors, or Pillow's."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import embedstore as es
from embedstore.encoders import image_encoder, load_encoder
from embedstore.encoders.image_encoder import pictures
from embedstore.encoders.payloads.images import ImageTransform
from embedstore.encoders.payloads.jpegs import DeviceJpegs, Jpeg
from embedstore.encoders.runtimes.base import agreement
from embedstore.errors import PayloadError
from embedstore.sources import MemorySource

pytest.importorskip("torchcodec")
pytestmark = pytest.mark.offline_models


def jpeg(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=92, **options)
    return file.getvalue()


def photo(seed: int, size: tuple[int, int]) -> Image.Image:
    return Image.fromarray(pictures(224, 224)[seed % 8]).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(image_encoder, "on_gpu", lambda request: True)
    return load_encoder("effnet-lite0", "image", device="cpu", runtime="torch")


def test_vectors_are_those_of_pillow(encoder: Any) -> None:
    files = [jpeg(photo(i, size)) for i, size in enumerate([(640, 480), (300, 900), (256, 256), (120, 90), (1200, 1000)])]
    files += [jpeg(photo(5, (500, 400)).convert("L")), jpeg(photo(6, (500, 400)), progressive=True)]
    prepared = [encoder.prepare(file) for file in files]
    assert all(isinstance(given, Jpeg) for given in prepared)
    plain = load_encoder("effnet-lite0", "image", device="cpu", runtime="torch")
    plain.__dict__["_on_gpu"] = False
    expected = plain.encode([plain.prepare(file) for file in files])
    assert agreement(encoder.encode(prepared), expected) >= 0.9999
    mixed = [prepared[0], plain.prepare(files[1]), prepared[2]]
    assert agreement(encoder.encode(mixed), expected[:3]) >= 0.9999
    assert encoder.provenance()["jpeg"] == "nvjpeg"
    assert encoder.spec.fingerprint == plain.spec.fingerprint


def test_what_the_device_might_read_otherwise_goes_through_pillow(encoder: Any) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    buffer = io.BytesIO()
    photo(0, (60, 50)).save(buffer, "PNG")
    others = [buffer.getvalue(), jpeg(photo(1, (60, 50)).convert("CMYK")), jpeg(photo(2, (60, 50)), exif=turned)]
    assert [encoder.prepare(file).shape for file in others] == [(224, 224, 4)] * 3


def test_what_is_cut_off_or_very_thin_goes_through_pillow(encoder: Any) -> None:
    file = jpeg(photo(0, (300, 200)))
    with pytest.raises(PayloadError, match="the image is damaged"):
        encoder.prepare(file[: len(file) // 2])
    with pytest.raises(PayloadError, match="too long and thin"):
        encoder.prepare(jpeg(Image.new("RGB", (6, 16_000))))


def test_a_damaged_file_costs_itself_alone(encoder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [jpeg(photo(i, (300, 200 + i))) for i in range(5)]
    files[3] = files[3][:400] + files[3][-2:]
    paths = [tmp_path / f"{i}.jpg" for i in range(5)]
    for path, file in zip(paths, files, strict=True):
        path.write_bytes(file)
    seen: list[int] = []
    monkeypatch.setattr(image_encoder.ImageEncoder, "outside", None)  # or what Pillow looks at would not be seen here
    transform = ImageTransform.__call__
    monkeypatch.setattr(
        ImageTransform, "__call__", lambda self, file, **options: seen.append(len(file)) or transform(self, file, **options)
    )
    source = MemorySource({"id": list("abcde"), "image": list(map(str, paths))})
    report = es.embed(source, tmp_path / "s", image=encoder)
    assert (report.spaces["image"].embedded, report.spaces["image"].failed) == (4, 1)
    ((_, item, stage, reason),) = report.failures
    assert (item, stage) == ("d", "decode")
    assert reason.startswith("the image is damaged")
    assert set(seen[8:]) == {402}  # Pillow looks at that one alone, after the eight examples


def test_a_decoder_that_never_works_is_not_taken(encoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> Any:
        raise RuntimeError("no nvJPEG here")

    monkeypatch.setattr("torchcodec.decoders.decode_jpeg", refuse)
    assert isinstance(encoder.prepare(jpeg(photo(0, (300, 200)))), np.ndarray)
    assert "jpeg" not in encoder.provenance()


def test_other_vectors_are_not_taken(encoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    resized = DeviceJpegs._resized
    monkeypatch.setattr(DeviceJpegs, "_resized", lambda self, image: resized(self, image).flip(0))
    assert isinstance(encoder.prepare(jpeg(photo(0, (300, 200)))), np.ndarray)
    assert "jpeg" not in encoder.provenance()


def test_large_files_are_decoded_in_groups(encoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from embedstore.encoders.payloads import jpegs

    files = [jpeg(photo(i, (300, 200))) for i in range(5)]
    expected = encoder.encode([encoder.prepare(file) for file in files])
    seen: list[int] = []
    pixels = DeviceJpegs._pixels
    monkeypatch.setattr(DeviceJpegs, "_pixels", lambda self, some: seen.append(len(some)) or pixels(self, some))
    monkeypatch.setattr(jpegs, "GROUP_PIXELS", 200_000)
    np.testing.assert_allclose(encoder.encode([encoder.prepare(file) for file in files]), expected, atol=1e-5)
    assert seen == [2, 2, 1]
