"""Decoders of JPEG files, here on a CPU: Pillow's pixels, and a file that is refused costs itself."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import nvimgcodec
import pytest
import torch
from jpeg_files import jpeg, photo
from PIL import Image

from embedstore.encoders.payloads import jpeg_decoders
from embedstore.encoders.payloads.jpeg_decoders import NvImageCodec, TorchCodec, installed

CPU = torch.device("cpu")


def pillow_s(file: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))


def pixels(found: Any) -> Any:
    return found.permute(1, 2, 0).numpy()


class TestNvImageCodec:
    @pytest.fixture
    def decoder(self, monkeypatch: pytest.MonkeyPatch) -> NvImageCodec:
        nvimgcodec.install(monkeypatch)
        return NvImageCodec(CPU)

    def test_gives_the_pixels_of_pillow_for_every_sampling(self, decoder: NvImageCodec) -> None:
        files = [jpeg(photo(i, (101, 75)), subsampling=i) for i in decoder.samplings]
        files.append(jpeg(photo(3, (50, 40)).convert("L")))
        for file, found in zip(files, decoder.decode(files), strict=True):
            np.testing.assert_array_equal(pixels(found), pillow_s(file))

    def test_asks_for_interpolated_chroma(self, decoder: NvImageCodec) -> None:
        (made,) = nvimgcodec.MADE
        assert made.options == ":fancy_upsampling=1"
        file = jpeg(photo(7, (100, 80)))
        made.options = ""
        (found,) = decoder.decode([file])
        assert np.abs(pixels(found).astype(int) - pillow_s(file)).max() > 20

    def test_a_refused_file_costs_itself(self, decoder: NvImageCodec) -> None:
        good = jpeg(photo(0, (60, 50)))
        headless, cut = b"\xff\xd8\xff\xd9", good[:400] + good[-2:]
        found = decoder.decode([headless, good, cut, memoryview(good)])
        assert [isinstance(image, RuntimeError) for image in found] == [True, False, True, False]
        np.testing.assert_array_equal(pixels(found[1]), pixels(found[3]))
        assert isinstance(decoder.decode([headless])[0], RuntimeError)
        assert decoder.decode([]) == []

    @pytest.mark.parametrize(("device", "number"), [("cuda:3", 3), ("cuda", 1)])
    def test_decodes_on_the_model_s_device_in_the_current_stream(
        self, device: str, number: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Of which nothing may be queued any more: the engine writes without waiting for it."""
        nvimgcodec.install(monkeypatch)
        begun: list[int] = []

        class Stream:
            cuda_stream = 77

            def synchronize(self) -> None:
                (made,) = nvimgcodec.MADE
                begun.append(len(made.streams))

        monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream())
        decoder = NvImageCodec(torch.device(device))
        for _ in range(2):
            decoder.decode([jpeg(photo(0, (60, 50)))])
        (made,) = nvimgcodec.MADE
        assert (made.device_id, made.streams) == (number, [77, 77])
        assert begun == [0, 1]


class TestTorchCodec:
    @pytest.fixture
    def calls(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """The sizes of calls to a decoder that refuses them whole if b"bad" is among them."""
        pytest.importorskip("torchcodec")
        sizes: list[int] = []

        def decode_jpeg(files: list[bytes], **options: Any) -> list[torch.Tensor]:
            sizes.append(len(files))
            if b"bad" in files:
                raise RuntimeError("nvjpegDecode failed: 2")
            return [torch.tensor([int(file)]) for file in files]

        monkeypatch.setattr("torchcodec.decoders.decode_jpeg", decode_jpeg)
        return sizes

    def test_gives_the_pixels_of_pillow_without_subsampling(self) -> None:
        pytest.importorskip("torchcodec")
        files = [jpeg(photo(0, (101, 75)), subsampling=0), jpeg(photo(3, (50, 40)).convert("L"))]
        for file, found in zip(files, TorchCodec(CPU).decode([files[0], memoryview(files[1])]), strict=True):
            assert np.abs(pixels(found).astype(int) - pillow_s(file)).max() <= 1

    def test_a_refused_file_is_found_by_halving(self, calls: list[int]) -> None:
        files = [str(i).encode() for i in range(256)]
        files[100] = b"bad"
        found = TorchCodec(CPU).decode(files)
        assert [i for i, image in enumerate(found) if isinstance(image, RuntimeError)] == [100]
        assert [int(image) for image in found if isinstance(image, torch.Tensor)] == [i for i in range(256) if i != 100]
        assert len(calls) == 1 + 2 * 8

    @pytest.mark.parametrize(("version", "fits"), [("0.16.0", False), ("0.17.0+cu130", True), ("1.0", True), ("unknown", True)])
    def test_a_version_that_writes_into_memory_in_use_is_refused(
        self, version: str, fits: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(jpeg_decoders, "version", lambda package: version)
        if fits:
            TorchCodec(CPU)
            return
        with pytest.raises(RuntimeError, match=r"^0\.16\.0 may write into memory that the network reads; take 0\.17 or newer$"):
            TorchCodec(CPU)

    @pytest.mark.parametrize("kind", [torch.OutOfMemoryError, torch.AcceleratorError])
    def test_errors_of_the_device_are_not_of_a_file(self, kind: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("torchcodec")

        def fail(files: Any, **options: Any) -> Any:
            raise kind("CUDA error: an illegal memory access was encountered")

        monkeypatch.setattr("torchcodec.decoders.decode_jpeg", fail)
        with pytest.raises(kind):
            TorchCodec(CPU).decode([b"1", b"2"])


def test_what_is_installed_is_found_without_importing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    nvimgcodec.install(monkeypatch)
    assert NvImageCodec in installed()
    for name in ("module.that.is.nowhere", "json.nowhere"):
        monkeypatch.setattr(NvImageCodec, "module", name)
        assert NvImageCodec not in installed()
    monkeypatch.setattr(jpeg_decoders, "DECODERS", ())
    assert installed() == []
