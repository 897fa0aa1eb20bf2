"""What a network computes in: compared with float32 before it is taken, on any device; here a CPU that is tried like a GPU."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from embedstore.encoders import load_encoder
from embedstore.encoders.runtimes import choose, precision, pytorch
from embedstore.encoders.runtimes.base import Network
from embedstore.encoders.runtimes.precision import FLOAT32, Arithmetic, Chosen, candidates, converted
from embedstore.encoders.runtimes.pytorch import TorchModel, TorchRuntime, open_network
from embedstore.encoders.runtimes.wrapped import Images
from embedstore.errors import EncoderError, EncoderOutOfMemoryError

EXACT = np.eye(4, 8, dtype=np.float32) + 0.1
CONVERTED, CAST = candidates("auto", "cuda")


def giving(**found: Any) -> Callable[[Arithmetic], Sequence[Any]]:
    """Vectors of examples by the arithmetic's name, those of converted weights by name and ``"_converted"``."""

    def vectors(arithmetic: Arithmetic) -> Sequence[Any]:
        given = EXACT if arithmetic == FLOAT32 else found[arithmetic.name + "_converted" * arithmetic.converted]
        if isinstance(given, Exception):
            raise given
        return [given, given[:1]]

    return vectors


def turned(cosine: float) -> Any:
    """`EXACT` with one vector at this cosine to what it was."""
    unit = EXACT[2] / np.linalg.norm(EXACT[2])
    away = np.zeros(8)
    away[7] = 1
    away -= (away @ unit) * unit
    out = EXACT.copy()
    out[2] = cosine * unit + np.sqrt(1 - cosine**2) * away / np.linalg.norm(away)
    return out


def test_what_is_tried_on_which_device() -> None:
    assert candidates("auto", "cuda") == (Arithmetic("float16", converted=True), Arithmetic("float16"))
    assert candidates("bfloat16", "cuda") == (Arithmetic("bfloat16", converted=True), Arithmetic("bfloat16"))
    assert candidates("auto", "cpu") == candidates("float32", "cuda") == ()
    assert candidates("bfloat16", "cpu") == (Arithmetic("bfloat16"),)


@pytest.mark.parametrize(
    ("converted", "cast", "expected"),
    [
        (EXACT, EXACT, CONVERTED),
        (turned(0.99995), EXACT, CONVERTED),
        (turned(0.9998), turned(0.99991), CAST),
        (turned(0.9945), turned(0.9998), FLOAT32),
        (EXACT * np.inf, EXACT * np.nan, FLOAT32),
        (RuntimeError("expected Float, got Half"), EXACT, CAST),
        (EncoderOutOfMemoryError("cuda ran out of memory."), EXACT, CAST),
    ],
)
def test_the_first_that_gives_float32s_vectors_is_taken(converted: Any, cast: Any, expected: Arithmetic) -> None:
    vectors = giving(float16_converted=converted, float16=cast)
    assert precision.choose("a network", (CONVERTED, CAST), vectors, asked=False).arithmetic == expected


def test_what_is_asked_for_is_taken_unless_it_is_not_finite(caplog: pytest.LogCaptureFixture) -> None:
    tried = candidates("bfloat16", "cuda")
    vectors = giving(bfloat16_converted=turned(0.98), bfloat16=turned(0.9945))
    chosen = precision.choose("a network", tried, vectors, asked=True)
    assert (chosen.arithmetic, chosen.cosine) == (tried[-1], pytest.approx(0.9945, abs=1e-6))
    assert "computes in bfloat16 as asked: its vectors differ from float32 (least cosine 0.9945" in caplog.text
    with pytest.raises(EncoderError, match=r"cannot be computed in bfloat16.*Use --precision auto"):
        precision.choose("a network", tried, giving(bfloat16_converted=EXACT * np.nan, bfloat16=EXACT * np.inf), asked=True)


def test_a_device_that_fails_meanwhile_is_no_reason_for_float32() -> None:
    vectors = giving(float16_converted=EncoderError("cuda:0 failed (CUDA error: unspecified launch failure)."))
    with pytest.raises(EncoderError, match="cuda:0 failed"):
        precision.choose("a network", (CONVERTED, CAST), vectors, asked=False)


class Convolutional(nn.Module):
    """A network of a convolution, batch norm, layer norm and two layers that share weights."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(3, 8, 4, 4)
        self.norm = nn.BatchNorm2d(8)
        self.first = nn.Linear(8, 8)
        self.second = nn.Linear(8, 8)
        self.second.weight = self.first.weight
        self.last = nn.LayerNorm(8)
        self.norm.running_var.fill_(1e-9)  # type: ignore[operator, union-attr]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.norm(self.convolution(images) * 1e-5).mean((2, 3))
        return self.last(self.second(torch.relu(self.first(features))))  # type: ignore[no-any-return]


def images() -> Any:
    return np.random.default_rng(0).integers(0, 256, (5, 16, 16, 4), dtype=np.uint8)


def network(module: Callable[[], nn.Module] = Convolutional, fingerprint: str = "f") -> Network:
    def load() -> nn.Module:
        return Images(module(), (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))

    return Network("a network", fingerprint, load, ((-1, 16, 16, 4),), lambda: [(images(),), (images()[:1],)])


def test_converted_weights_keep_what_float16_would_lose() -> None:
    wrapper = Images(Convolutional(), (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    half: Any = converted(wrapper, torch.float16)
    model = half.model
    assert {p.dtype for p in (model.convolution.weight, model.first.weight, model.last.weight)} == {torch.float16}
    assert {model.norm.running_var.dtype, model.norm.weight.dtype, half.scale.dtype} == {torch.float32}
    assert model.second.weight is model.first.weight
    assert {p.dtype for p in wrapper.parameters()} == {torch.float32}, "the network itself is left alone"


@pytest.fixture
def tried_like_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processor is asked for what a GPU is asked for."""
    monkeypatch.setattr(pytorch, "candidates", lambda wanted, device: candidates(wanted, "cuda"))
    monkeypatch.setattr(pytorch, "MEASURED", {"cpu"})
    monkeypatch.setattr(pytorch, "_CHOSEN", {})


@pytest.mark.usefixtures("tried_like_a_gpu")
def test_a_network_is_converted_where_it_agrees_and_compared_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    runtime = TorchRuntime("cpu", "auto")
    model = open_network(network(), runtime)
    assert model.chosen.arithmetic == Arithmetic("float16", converted=True)
    assert (model.chosen.cosine or 0) >= 0.9999
    exact = TorchModel(TorchRuntime("cpu", "float32"), network().load())
    np.testing.assert_allclose(model(images()), exact(images()), atol=2e-2)
    told = dict(model.provenance())
    assert (told["precision"], told["cosine_to_float32"]) == ("float16", f"{model.chosen.cosine:.7f}")
    open_network(network(), TorchRuntime("cpu", "auto"))
    assert caplog.text.count("computes in float16") == 1
    assert "precision" in exact.provenance()
    assert "cosine_to_float32" not in exact.provenance()


class Overflowing(Convolutional):
    """Its features are beyond float16's largest number on the way."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.last(self.second(self.first(self.convolution(images).mean((2, 3)) * 1e6) * 1e3) * 1e-9)  # type: ignore[no-any-return]


@pytest.mark.usefixtures("tried_like_a_gpu")
def test_a_network_that_half_precision_breaks_stays_in_float32() -> None:
    model = open_network(network(Overflowing, "another"), TorchRuntime("cpu", "auto"))
    exact = TorchModel(TorchRuntime("cpu", "float32"), network(Overflowing).load())
    assert model.provenance()["precision"] == "float32"
    np.testing.assert_array_equal(model(images()), exact(images()))


@pytest.mark.usefixtures("tried_like_a_gpu")
def test_what_a_network_is_given_is_compared_in_float32() -> None:
    model = open_network(network(), TorchRuntime("cpu", "auto"))
    exact = TorchModel(TorchRuntime("cpu", "float32"), network().load())
    assert model.in_float32().chosen.arithmetic == FLOAT32
    np.testing.assert_allclose(model.in_float32()(images()), exact(images()), atol=2e-2)
    assert not np.array_equal(model.in_float32()(images()), model(images()))
    np.testing.assert_array_equal(exact.in_float32()(images()), exact(images()))


@pytest.mark.usefixtures("tried_like_a_gpu")
def test_a_compiled_network_is_compared_with_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pytorch, "BACKEND", "eager")
    compared: list[Any] = []
    agreement = pytorch.agreement
    monkeypatch.setattr(pytorch, "agreement", lambda ours, theirs: compared.append(theirs) or agreement(ours, theirs))
    model = open_network(network(), TorchRuntime("cpu", "auto"), compiled=True)
    exact = TorchModel(TorchRuntime("cpu", "float32"), network().load())
    assert model.provenance()["precision"] == "float16"
    np.testing.assert_array_equal(compared[0], exact(images()))


def test_what_is_compiled_may_be_as_far_from_float32_as_what_is_not() -> None:
    assert pytorch._bearable([turned(0.9945)], [EXACT]) == pytest.approx(0.989, abs=1e-5)
    assert pytorch._bearable([turned(0.99999)], [EXACT]) == 0.9999


def test_two_graphs_are_enough_for_batches_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._dynamo.utils import counters

    monkeypatch.setattr(pytorch, "BACKEND", "eager")
    torch._dynamo.reset()
    counters.clear()
    model = open_network(network(), TorchRuntime("cpu", "float32"), compiled=True)
    for n in (8, 1, 256, 77):
        model(np.zeros((n, 16, 16, 4), np.uint8))
    assert counters["stats"]["unique_graphs"] <= 2


class Counting(nn.Module):
    """Texts of any length: ids and mask."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(50, 8)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return (self.tokens(ids) * mask[..., None]).sum(1)  # type: ignore[no-any-return]


def test_two_graphs_are_enough_for_texts_of_any_length(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._dynamo.utils import counters

    def texts(n: int, length: int) -> tuple[Any, Any]:
        return np.ones((n, length), np.int64), np.ones((n, length), np.int64)

    monkeypatch.setattr(pytorch, "BACKEND", "eager")
    torch._dynamo.reset()
    counters.clear()
    of_texts = Network("texts", "t", Counting, ((-1, -1), (-1, -1)), lambda: [texts(9, 40), texts(1, 12)])
    model = open_network(of_texts, TorchRuntime("cpu", "float32"), compiled=True)
    for n, length in ((256, 16), (1, 30), (77, 128), (2, 2)):
        model(*texts(n, length))
    assert counters["stats"]["unique_graphs"] <= 2


def test_float32_is_not_rounded_to_tf32_and_switches_are_put_back() -> None:
    conv, matmul = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    before = (matmul.fp32_precision, conv.fp32_precision)
    within: list[tuple[str, str]] = []
    both = threading.Barrier(2)

    def compute() -> None:
        with precision._EXACT:
            both.wait()
            within.append((matmul.fp32_precision, conv.fp32_precision))
            both.wait()

    threads = [threading.Thread(target=compute) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert within == [("ieee", "ieee")] * 2
    assert (matmul.fp32_precision, conv.fp32_precision) == before
    with pytest.raises(RuntimeError, match="forward failed"), FLOAT32.computing(torch.device("cuda")):
        raise RuntimeError("forward failed")
    assert (matmul.fp32_precision, conv.fp32_precision) == before


def test_a_processor_needs_no_comparing() -> None:
    def none(arithmetic: Arithmetic) -> Any:
        raise AssertionError("computed for nothing")

    assert TorchRuntime("cpu", "auto").chosen("a network", "f", none) == Chosen(FLOAT32)


@pytest.mark.offline_models
@pytest.mark.usefixtures("tried_like_a_gpu")
@pytest.mark.parametrize(
    ("name", "modality"), [("minilm", "text"), pytest.param("effnet-lite0", "image", marks=pytest.mark.slow)]
)
def test_trained_networks_agree_in_float16(name: str, modality: str) -> None:
    encoder: Any = load_encoder(name, modality, device="cpu", runtime="torch")
    assert encoder.model.chosen.arithmetic == Arithmetic("float16", converted=True)
    assert encoder.provenance()["precision"] == "float16"


def test_rocm_s_device_file_is_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    assert "/dev/kfd" in choose.DEVICE_FILES
    monkeypatch.setattr(choose, "DEVICE_FILES", (str(tmp_path / "kfd"),))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert not choose.has_cuda()
    (tmp_path / "kfd").touch()
    assert choose.has_cuda()
