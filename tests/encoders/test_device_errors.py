"""Errors of a device are told apart from those of payloads, and memory is free again before a smaller batch is tried."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch

from embedstore._core.device_errors import device_failure, without_frames
from embedstore.encoders.runtimes.pytorch import TorchRuntime
from embedstore.errors import EncoderError, EncoderOutOfMemoryError

FULL = [
    torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    torch.AcceleratorError("CUDA error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("Triton Error [CUDA]: out of memory"),
    RuntimeError("HIP out of memory. Tried to allocate 20.00 MiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory"),
]
FAILED = [
    torch.AcceleratorError("an error without a word about CUDA"),
    RuntimeError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be…"),
    RuntimeError("CUDA error: uncorrectable ECC error encountered"),
    RuntimeError("CUDA error: device-side assert triggered"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(…)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    RuntimeError("HIP error: the operation cannot be performed in the present state"),
    RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"),
]
OTHERS = [
    RuntimeError("mat1 and mat2 shapes cannot be multiplied (1x3 and 4x5)"),
    RuntimeError("Expected all tensors to be on the same device, but found cuda:0 and cpu"),
    ValueError("CUDA error: said by a payload's text"),
]


@pytest.mark.parametrize("error", FULL, ids=str)
def test_a_full_device(error: RuntimeError) -> None:
    assert isinstance(device_failure(error), EncoderOutOfMemoryError)


@pytest.mark.parametrize("error", FAILED, ids=str)
def test_a_device_that_failed(error: RuntimeError) -> None:
    failure = device_failure(error, torch.device("cuda:1"))
    assert type(failure) is EncoderError
    assert str(failure).startswith("cuda:1 failed (")
    assert "run the same command again" in str(failure)
    assert "\n" not in str(failure)


@pytest.mark.parametrize("error", OTHERS, ids=str)
def test_what_is_not_the_device_s(error: Exception) -> None:
    assert device_failure(error) is None


class Activations:
    """Stands for memory of a forward pass."""


def failing(alive: weakref.WeakSet[Activations], error: Exception) -> Any:
    """A forward pass that has activations when it raises."""

    def forward() -> torch.Tensor:
        held = Activations()
        alive.add(held)
        inner(held)
        return torch.zeros(1)

    def inner(held: Activations) -> None:
        try:
            innermost(held)
        except KeyError:
            raise error  # noqa: B904 - what it came from has frames too

    def innermost(held: Activations) -> None:
        raise KeyError("a cuDNN plan")

    return forward


def test_activations_are_gone_when_the_cache_is_emptied(monkeypatch: pytest.MonkeyPatch) -> None:
    alive: weakref.WeakSet[Activations] = weakref.WeakSet()
    seen: list[int] = []
    runtime = TorchRuntime("cpu", "float32")
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: seen.append(len(alive)))
    runtime.__dict__["_copies"] = object()  # as on a GPU
    with pytest.raises(EncoderOutOfMemoryError, match=r"ran out of memory\. End what else uses it"), runtime.device_errors():
        failing(alive, FULL[0])()
    assert seen == [0]


def test_an_error_without_frames_holds_nothing() -> None:
    alive: weakref.WeakSet[Activations] = weakref.WeakSet()
    kept = None
    try:
        failing(alive, RuntimeError("full"))()
    except RuntimeError as error:
        assert len(alive) == 1
        kept = without_frames(error)
    assert len(alive) == 0
    assert str(kept) == "full"


def test_errors_of_a_cpu_are_told_without_asking_cuda() -> None:
    def full() -> torch.Tensor:
        raise FULL[-1]

    with pytest.raises(EncoderOutOfMemoryError, match="The CPU ran out of memory"):
        TorchRuntime("cpu", "float32").run(full)
