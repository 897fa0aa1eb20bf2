"""What only a GPU can show of networks on torch; elsewhere fakes stand in for it (test_streams.py, test_precision.py)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from embedstore.encoders import load_encoder
from embedstore.encoders.runtimes.base import agreement
from embedstore.encoders.runtimes.precision import Chosen, candidates
from embedstore.encoders.runtimes.pytorch import TorchModel, TorchRuntime
from embedstore.errors import EncoderOutOfMemoryError

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


class Long(torch.nn.Module):
    """As many products as the first number of the batch says."""

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        out, times = batch, torch.arange(400)
        for _ in times[: batch.shape[0] // 8]:
            out = (out @ out.T @ out).clamp(-1, 1)
        return out


def test_the_first_batch_is_there_while_the_second_is_computed() -> None:
    model = TorchModel(TorchRuntime("cuda", "float32"), Long())
    short, long = (np.full((n, 4096), 0.01, np.float32) for n in (8, 2048))
    model(short)
    first, second = model.start(short), model.start(long)
    end = torch.cuda.Event()  # type: ignore[no-untyped-call]
    end.record()  # type: ignore[no-untyped-call]
    assert np.isfinite(first()).all()
    assert not end.query(), "waiting for the first batch waited for the second"
    assert np.isfinite(second()).all()


def test_vectors_of_batches_that_overlap_are_right() -> None:
    model = TorchModel(TorchRuntime("cuda", "float32"), torch.nn.Identity())
    batches = [np.random.default_rng(i).standard_normal((256, 512)).astype(np.float32) for i in range(40)]
    pending = [model.start(batch) for batch in batches]
    for batch, wait in zip(batches, pending, strict=True):
        np.testing.assert_array_equal(wait(), batch)


def test_float32_convolutions_are_not_rounded_to_tf32() -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(64, 64, 3), torch.nn.Flatten())
    batch = np.random.default_rng(0).standard_normal((4, 64, 16, 16)).astype(np.float32)
    expected = TorchModel(TorchRuntime("cpu", "float32"), module)(batch)
    found = TorchModel(TorchRuntime("cuda", "float32"), module)(batch)
    assert np.abs(found - expected).max() < 1e-5  # TF32 is off by 1e-3
    assert torch.backends.cudnn.allow_tf32


@pytest.mark.offline_models
@pytest.mark.parametrize(("name", "modality"), [("effnet-lite0", "image"), ("minilm", "text")])
def test_vectors_are_those_of_the_cpu(name: str, modality: str) -> None:
    on_cpu: Any = load_encoder(name, modality, device="cpu", runtime="torch")
    on_gpu: Any = load_encoder(name, modality, device="cuda")
    for batch in on_cpu.network.examples():
        assert agreement(on_gpu.model(*batch), on_cpu.model(*batch)) >= 0.9999
    told = on_gpu.provenance()
    assert (told["precision"], float(told["cosine_to_float32"]) >= 0.9999) == ("float16", True)


def test_memory_of_what_did_not_fit_is_free_again() -> None:
    runtime = TorchRuntime("cuda", "float32")
    room = torch.cuda.mem_get_info()[0] // 3

    def forward() -> torch.Tensor:
        held = [torch.empty(room, dtype=torch.uint8, device="cuda") for _ in range(4)]
        return held[0]

    before = torch.cuda.memory_reserved()
    with pytest.raises(EncoderOutOfMemoryError):
        runtime.run(forward)
    assert torch.cuda.memory_reserved() <= before


def test_every_way_to_compute_runs() -> None:
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.Flatten(), torch.nn.LazyLinear(16), torch.nn.LayerNorm(16)
    )
    batch = torch.randn(4, 3, 8, 8)
    module(batch)
    exact = TorchModel(TorchRuntime("cuda", "float32"), module)(batch.cuda())
    for precision in ("float16", "bfloat16"):
        cast = candidates(precision, "cuda")[1]
        found = TorchModel(TorchRuntime("cuda", precision), module, Chosen(cast))(batch.cuda())
        assert agreement(found, exact) >= 0.999
