"""JPEG files decoded where the model runs, here on a CPU: the same vectors, or Pillow's."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import nvimgcodec
import pytest
import torch
from jpeg_files import jpeg, photo
from PIL import Image

import embedstore as es
from embedstore.encoders import image_encoder, load_encoder
from embedstore.encoders.payloads import device_jpegs, jpeg_decoders, jpegs
from embedstore.encoders.payloads.images import ImageTransform
from embedstore.encoders.payloads.jpeg_decoders import NvImageCodec, TorchCodec
from embedstore.encoders.payloads.jpegs import Jpeg
from embedstore.encoders.payloads.preparation import preparation
from embedstore.encoders.runtimes.base import agreement
from embedstore.encoders.runtimes.pytorch import TorchModel, TorchRuntime, open_network
from embedstore.encoders.runtimes.several import SeveralModels, loading_copies
from embedstore.errors import EncoderOutOfMemoryError, PayloadError
from embedstore.sources import MemorySource

pytestmark = pytest.mark.offline_models


def on_torch() -> Any:
    return load_encoder("effnet-lite0", "image", device="cpu", runtime="torch")


@pytest.fixture(params=["nvimgcodec", "torchcodec"])
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type:
    """The only decoder that is installed."""
    if request.param == "torchcodec":
        pytest.importorskip("torchcodec")
    nvimgcodec.install(monkeypatch)
    kind = {"nvimgcodec": NvImageCodec, "torchcodec": TorchCodec}[request.param]
    monkeypatch.setattr(jpeg_decoders, "DECODERS", (kind,))
    monkeypatch.setattr(image_encoder, "on_gpu", lambda request: True)
    return kind


@pytest.fixture
def encoder(decoder: type) -> Any:
    return on_torch()


@pytest.fixture
def sampling(decoder: Any) -> int:
    """The coarsest chroma that the decoder is given."""
    return int(decoder.samplings[-1])


def test_vectors_are_those_of_pillow(encoder: Any, decoder: Any, sampling: int) -> None:
    sizes = [(640, 480), (300, 900), (256, 256), (120, 90), (1200, 1000), (256, 256)]
    files = [jpeg(photo(i, size), subsampling=sampling) for i, size in enumerate(sizes)]
    files += [jpeg(photo(i, (301, 203)), subsampling=s) for i, s in enumerate(decoder.samplings)]
    files += [jpeg(photo(5, (500, 400)).convert("L"))]
    prepared = [encoder.prepare(file) for file in files]
    assert all(isinstance(given, Jpeg) for given in prepared)
    plain = on_torch()
    plain.__dict__["_on_gpu"] = False
    expected = plain.encode([plain.prepare(file) for file in files])
    assert agreement(encoder.encode(prepared), expected) >= 0.9999
    mixed = [prepared[0], plain.prepare(files[1]), prepared[2]]
    assert agreement(encoder.encode(mixed), expected[:3]) >= 0.9999
    shared = [given._replace(payload=memoryview(given.payload)) for given in prepared]
    assert agreement(encoder.encode(shared), expected) >= 0.9999
    assert encoder.provenance()["jpeg"] == "nvjpeg"
    assert decoder.package in encoder.provenance()
    assert encoder.spec.fingerprint == plain.spec.fingerprint


def test_what_the_device_might_read_otherwise_goes_through_pillow(encoder: Any, sampling: int) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    buffer = io.BytesIO()
    photo(0, (60, 50)).save(buffer, "PNG")
    others = [buffer.getvalue(), jpeg(photo(1, (60, 50)).convert("CMYK")), jpeg(photo(2, (60, 50)), exif=turned)]
    others += [jpeg(photo(6, (500, 400)), progressive=True, subsampling=sampling)]
    if sampling == 0:
        others += [jpeg(photo(6, (500, 400)), subsampling=2)]
    assert [encoder.prepare(file).shape for file in others] == [(224, 224, 4)] * len(others)


def test_what_is_cut_off_or_very_thin_goes_through_pillow(encoder: Any, sampling: int) -> None:
    file = jpeg(photo(0, (300, 200)), subsampling=sampling)
    with pytest.raises(PayloadError, match="the image is damaged"):
        encoder.prepare(file[: len(file) // 2])
    with pytest.raises(PayloadError, match="too long and thin"):
        encoder.prepare(jpeg(Image.new("RGB", (6, 16_000)), subsampling=sampling))


def test_a_damaged_file_costs_itself_alone(
    encoder: Any, sampling: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [jpeg(photo(i, (300, 200 + i)), subsampling=sampling) for i in range(5)]
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


def test_what_the_decoder_alone_refuses_is_decoded_by_pillow(
    encoder: Any, decoder: Any, sampling: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [jpeg(photo(i, (300, 200)), subsampling=sampling) for i in range(4)]
    prepared = [encoder.prepare(file) for file in files]
    expected = encoder.encode(prepared)
    decode = decoder.decode
    refuse = lambda self, some: [RuntimeError("no") if i == 2 else one for i, one in enumerate(decode(self, some))]  # noqa: E731
    monkeypatch.setattr(decoder, "decode", refuse)
    assert agreement(encoder.encode(prepared), expected) >= 0.9999


def test_example_files_are_small_enough_to_be_decoded(
    encoder: Any, decoder: Any, sampling: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model of large pictures is compared with as many files as any: at a lower quality, where a file would be too large."""
    compared: list[tuple[int, int]] = []
    agree = device_jpegs.agreement
    monkeypatch.setattr(device_jpegs, "agreement", lambda a, b: compared.append((len(a), len(b))) or agree(a, b))
    monkeypatch.setattr(jpegs, "MOST_BYTES", 50_000)  # at quality 90 they have up to 80,000
    assert isinstance(encoder.prepare(jpeg(photo(0, (120, 90)), subsampling=sampling)), Jpeg)
    assert compared == [(image_encoder.EXAMPLES, image_encoder.EXAMPLES)]


def test_the_same_files_are_compared_both_ways(
    encoder: Any, decoder: Any, sampling: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where some of them are too large at any quality."""
    compared: list[tuple[int, int]] = []
    agree = device_jpegs.agreement
    monkeypatch.setattr(device_jpegs, "agreement", lambda a, b: compared.append((len(a), len(b))) or agree(a, b))
    monkeypatch.setattr(device_jpegs, "QUALITIES", (90,))
    monkeypatch.setattr(jpegs, "MOST_BYTES", 50_000)
    assert isinstance(encoder.prepare(jpeg(photo(0, (120, 90)), subsampling=sampling)), Jpeg)
    ((ours, theirs),) = compared
    assert 0 < ours == theirs < image_encoder.EXAMPLES


def test_a_decoder_that_no_example_can_be_shown_to_is_not_taken(
    encoder: Any, decoder: Any, sampling: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(jpegs, "MOST_BYTES", 1000)
    assert isinstance(encoder.prepare(jpeg(photo(0, (120, 90)), subsampling=sampling)), np.ndarray)
    (record,) = caplog.records
    assert record.message == (
        f"JPEGs are decoded on the CPU, although a GPU is there: {decoder.package} cannot be tried (example files for "
        "images of 224 x 224 are too large)."
    )


def test_a_decoder_that_never_works_is_not_taken(
    encoder: Any, decoder: Any, sampling: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(decoder, "decode", lambda self, files: [RuntimeError("no nvJPEG here") for _ in files])
    assert isinstance(encoder.prepare(jpeg(photo(0, (300, 200)), subsampling=sampling)), np.ndarray)
    assert "jpeg" not in encoder.provenance()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.message == f"JPEGs are decoded on the CPU, although a GPU is there: {decoder.package} fails (no nvJPEG here)."


def test_other_vectors_are_not_taken(
    encoder: Any, decoder: Any, sampling: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    resized = device_jpegs.resized
    monkeypatch.setattr(device_jpegs, "resized", lambda images, transform: resized(images, transform).flip(2))
    assert isinstance(encoder.prepare(jpeg(photo(0, (300, 200)), subsampling=sampling)), np.ndarray)
    assert "jpeg" not in encoder.provenance()
    assert f"{decoder.package} gives other vectors than Pillow (cosine 0." in caplog.text
    assert caplog.records[0].levelno == logging.WARNING


def test_pixels_are_compared_in_float32(encoder: Any, sampling: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounding of another arithmetic would be taken for a difference of pixels."""
    asked: list[TorchModel] = []
    exact = TorchModel.in_float32
    monkeypatch.setattr(TorchModel, "in_float32", lambda model: asked.append(model) or exact(model))
    encoder.prepare(jpeg(photo(0, (300, 200)), subsampling=sampling))
    assert asked == [encoder.model]


@pytest.mark.parametrize("decoder", ["nvimgcodec"], indirect=True)
def test_repeated_chroma_would_be_refused(
    decoder: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As nvJPEG decodes by default, and torchcodec with it."""
    made = nvimgcodec.Decoder.__init__
    monkeypatch.setattr(nvimgcodec.Decoder, "__init__", lambda self, device_id, options: made(self, device_id))
    encoder = on_torch()
    assert isinstance(encoder.prepare(jpeg(photo(0, (300, 200)))), np.ndarray)
    assert "gives other vectors than Pillow (cosine 0.99" in caplog.text


def test_the_next_decoder_is_tried_and_what_it_cannot_do_is_said(
    encoder: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("torchcodec")
    monkeypatch.setattr(jpeg_decoders, "DECODERS", (NvImageCodec, TorchCodec))
    monkeypatch.setattr(NvImageCodec, "decode", lambda self, files: [RuntimeError("no nvJPEG here") for _ in files])
    assert isinstance(encoder.prepare(jpeg(photo(0, (300, 200)), subsampling=0)), Jpeg)
    assert isinstance(encoder.prepare(jpeg(photo(0, (300, 200)), subsampling=2)), np.ndarray)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.message == (
        "JPEGs are decoded on the CPU unless they are 4:4:4 or grey, which torchcodec decodes on the GPU: "
        "nvidia-nvimgcodec-cu13 fails (no nvJPEG here)."
    )


def test_a_small_limit_of_pixels_refuses_no_decoder(decoder: Any, sampling: int) -> None:
    encoder = load_encoder("effnet-lite0", "image", device="cpu", runtime="torch", max_pixels=10_000)
    assert isinstance(encoder.prepare(jpeg(photo(0, (90, 100)), subsampling=sampling)), Jpeg)
    with pytest.raises(PayloadError, match="over the limit of 10,000"):
        encoder.prepare(jpeg(photo(0, (110, 100)), subsampling=sampling))


def test_large_files_are_decoded_in_groups(encoder: Any, decoder: Any, sampling: int, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [jpeg(photo(i, (300, 200)), subsampling=sampling) for i in range(5)]
    expected = encoder.encode([encoder.prepare(file) for file in files])
    seen: list[int] = []
    decode = decoder.decode
    monkeypatch.setattr(decoder, "decode", lambda self, some: seen.append(len(some)) or decode(self, some))
    monkeypatch.setattr(device_jpegs, "GROUP_PIXELS", 200_000)
    np.testing.assert_allclose(encoder.encode([encoder.prepare(file) for file in files]), expected, atol=1e-5)
    assert seen == [2, 2, 1]


def test_images_of_one_size_are_resized_at_once(encoder: Any, sampling: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = [(300, 200), (200, 300), (300, 200), (64, 64), (300, 200), (200, 300)]
    prepared = [encoder.prepare(jpeg(photo(i, size), subsampling=sampling)) for i, size in enumerate(sizes)]
    expected = encoder.encode(prepared)
    seen: list[int] = []
    resized = device_jpegs.resized
    monkeypatch.setattr(device_jpegs, "resized", lambda some, how: seen.append(len(some)) or resized(some, how))
    np.testing.assert_allclose(encoder.encode(prepared), expected, atol=1e-5)
    assert sorted(seen) == [1, 2, 3]
    seen.clear()
    monkeypatch.setattr(device_jpegs, "RESIZED_PIXELS", 2 * prepared[0].area)
    np.testing.assert_allclose(encoder.encode(prepared), expected, atol=1e-5)
    assert sorted(seen) == [1, 1, 2, 2]


def test_a_batch_is_decoded_beside_the_caller(encoder: Any, sampling: int) -> None:
    """`start` returns before the files are decoded; batches keep their order."""
    batches = [[encoder.prepare(jpeg(photo(i, (300, 200)), subsampling=sampling))] for i in range(3)]
    expected = [encoder.encode(batch) for batch in batches]
    begun = [encoder.start(batch) for batch in batches]
    for wait, vectors in zip(begun, expected, strict=True):
        np.testing.assert_allclose(wait(), vectors, atol=1e-5)


def test_other_processes_leave_the_same_files_to_the_device(encoder: Any, decoder: Any, sampling: int) -> None:
    made = encoder.outside
    prepare = preparation(**json.loads(json.dumps(made.arguments)))
    files = [jpeg(photo(0, (300, 200)), subsampling=sampling), jpeg(photo(1, (60, 50)).convert("CMYK"))]
    if sampling == 0:
        files.append(jpeg(photo(0, (300, 200)), subsampling=2))
    for file in files:
        here, there = encoder.prepare(file), prepare(file)
        assert isinstance(here, Jpeg) == isinstance(there, list) == (file is files[0])
        if isinstance(here, Jpeg):
            assert made.kept(file, there) == here
        else:
            np.testing.assert_array_equal(here[..., :3], there[..., :3])


def test_several_devices_decode_what_they_embed_in_turn(decoder: Any, sampling: int, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = on_torch()
    models = [open_network(loading_copies(encoder.network), TorchRuntime("cpu", "float32"), compiled=False) for _ in range(2)]
    encoder.__dict__["model"] = SeveralModels(models)
    batches = [[encoder.prepare(jpeg(photo(i, (300, 200)), subsampling=sampling))] for i in range(4)]
    used: list[int] = []
    for i, model in enumerate(models):
        start = model.start
        monkeypatch.setattr(model, "start", lambda *given, i=i, start=start: used.append(i) or start(*given))
    waits = [encoder.start(batch) for batch in batches]
    ours = np.concatenate([wait() for wait in waits])
    assert sorted(used) == [0, 0, 1, 1]
    assert agreement(ours, on_torch().encode([given for batch in batches for given in batch])) >= 0.9999
    assert encoder.provenance()["jpeg"] == "nvjpeg"


def test_memory_that_runs_out_on_the_way_is_an_error_of_memory(
    encoder: Any, decoder: Any, sampling: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Any, files: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    prepared = [encoder.prepare(jpeg(photo(0, (300, 200)), subsampling=sampling))]
    monkeypatch.setattr(decoder, "decode", fail)
    with pytest.raises(EncoderOutOfMemoryError):
        encoder.encode(prepared)


def test_the_jpegs_of_a_model_that_pads_go_through_pillow(decoder: Any, caplog: pytest.LogCaptureFixture) -> None:
    encoder = on_torch()
    encoder.transform = ImageTransform((224, 224), "longest", 224, "bicubic", (0.5,) * 3, (0.5,) * 3)
    with caplog.at_level(logging.INFO, "embedstore"):
        assert isinstance(encoder.prepare(jpeg(photo(0, (300, 200)), subsampling=0)), np.ndarray)
    assert "this model pads" in caplog.text


def test_a_gpu_without_any_decoder_says_what_to_install(
    decoder: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(jpeg_decoders, "DECODERS", ())
    with caplog.at_level(logging.INFO, "embedstore"):
        assert isinstance(on_torch().prepare(jpeg(photo(0, (300, 200)))), np.ndarray)
    assert "pip install 'embedstore[gpu]'" in caplog.text
