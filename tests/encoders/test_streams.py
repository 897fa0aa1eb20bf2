"""The order in which a CUDA device is asked for copies, kernels and events, recorded by fakes of torch's streams."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

from embedstore.encoders.runtimes.pytorch import TorchModel, TorchRuntime
from embedstore.errors import EncoderError

ORDER: list[str] = []


class FakeStream:
    """Records what is asked of it, with its name."""

    made = 0

    def __init__(self, device: Any = None) -> None:
        FakeStream.made += 1
        self.name = f"inputs{FakeStream.made}" if FakeStream.made > 1 else "computing"

    def record_event(self) -> FakeEvent:
        event = FakeEvent()
        event.record(self)
        return event

    def wait_event(self, event: FakeEvent) -> None:
        ORDER.append(f"{self.name} waits for event {event.number}")


class FakeEvent:
    made = 0

    def __init__(self, blocking: bool = False) -> None:
        FakeEvent.made += 1
        self.number = FakeEvent.made
        self.blocking = blocking

    def record(self, stream: FakeStream) -> None:
        ORDER.append(f"event {self.number} on {stream.name}")

    def synchronize(self) -> None:
        assert self.blocking, "a thread that spins takes a core"
        ORDER.append(f"the host waits for event {self.number}")


@pytest.fixture
def computing(monkeypatch: pytest.MonkeyPatch) -> FakeStream:
    """A CUDA device whose work is done on the CPU."""
    FakeStream.made = FakeEvent.made = 0
    ORDER.clear()
    current = [FakeStream()]

    @contextmanager
    def stream(entered: FakeStream) -> Iterator[None]:
        current.append(entered)
        yield
        current.pop()

    @contextmanager
    def device(which: Any) -> Iterator[None]:
        yield

    def to(self: torch.Tensor, device: Any, non_blocking: bool = False) -> torch.Tensor:
        assert non_blocking
        ORDER.append(f"copy to the device on {current[-1].name}")
        return self.clone()

    def pin(self: torch.Tensor) -> torch.Tensor:
        ORDER.append("page-locked")
        return self.clone()

    def copy_(self: torch.Tensor, output: torch.Tensor, non_blocking: bool = False) -> None:
        assert non_blocking
        ORDER.append(f"copy to the host on {current[-1].name}")
        self.numpy()[:] = output.numpy()

    def empty_like(output: torch.Tensor, device: str, pin_memory: bool) -> torch.Tensor:
        assert (device, pin_memory) == ("cpu", True)
        return torch.empty(output.shape)

    def record_stream(self: torch.Tensor, used: FakeStream) -> None:
        ORDER.append(f"its memory is used by {used.name}")

    for name, fake in {"Stream": FakeStream, "Event": FakeEvent, "stream": stream, "device": device}.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: current[-1])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.Tensor, "to", to)
    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    monkeypatch.setattr(torch.Tensor, "copy_", copy_)
    monkeypatch.setattr(torch.Tensor, "record_stream", record_stream)
    monkeypatch.setattr(torch, "empty_like", empty_like)
    monkeypatch.setattr(TorchRuntime, "place", lambda self, module: module)
    return current[0]


class Kernel(torch.nn.Module):
    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        ORDER.append("kernels on computing")
        return batch * 2


COPY_IN = ["copy to the device on inputs2", "event {0} on inputs2", "computing waits for event {0}"]
COMPUTE = ["its memory is used by computing", "kernels on computing", "copy to the host on computing", "event {0} on computing"]


def lines(pattern: list[str], number: int) -> list[str]:
    return [line.format(number) for line in pattern]


@pytest.mark.usefixtures("computing")
def test_waiting_for_a_batch_does_not_wait_for_the_next() -> None:
    model = TorchModel(TorchRuntime("cuda", "float32"), Kernel())
    batches = [np.full((3, 2), i, np.float32) for i in (1, 2)]
    first, second = model.start(batches[0]), model.start(batches[1])
    begun = ["page-locked", *lines(COPY_IN, 1), *lines(COMPUTE, 2), "page-locked", *lines(COPY_IN, 3), *lines(COMPUTE, 4)]
    assert begun == ORDER
    ORDER.clear()
    np.testing.assert_array_equal(first(), batches[0] * 2)
    assert ORDER == ["the host waits for event 2"]
    np.testing.assert_array_equal(second(), batches[1] * 2)
    assert ORDER[1:] == ["the host waits for event 4"]


@pytest.mark.usefixtures("computing")
def test_memory_that_is_page_locked_is_not_copied_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda self: True)
    model = TorchModel(TorchRuntime("cuda", "float32"), Kernel())
    slab = np.ones((3, 2), np.float32)
    np.testing.assert_array_equal(model(slab), slab * 2)
    assert "page-locked" not in ORDER


@pytest.mark.usefixtures("computing")
@pytest.mark.parametrize("stacked", [False, True])
def test_read_only_inputs_reach_the_device_without_a_warning(stacked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from_numpy = torch.from_numpy

    def checked(array: Any) -> torch.Tensor:  # torch warns once a process alone
        assert array.flags.writeable
        return from_numpy(array)

    monkeypatch.setattr(torch, "from_numpy", checked)
    whole = np.ones((3, 2), np.float32)
    whole.flags.writeable = False
    model = TorchModel(TorchRuntime("cuda", "float32"), Kernel())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = model([whole[0], whole[1], whole[2].copy()] if stacked else whole)
    np.testing.assert_array_equal(found, whole * 2)


@pytest.mark.usefixtures("computing")
def test_vectors_do_not_hold_page_locked_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[torch.Tensor] = []
    fake: Callable[..., torch.Tensor] = torch.empty_like
    monkeypatch.setattr(torch, "empty_like", lambda *a, **k: given.append(fake(*a, **k)) or given[-1])
    vectors = TorchModel(TorchRuntime("cuda", "float32"), Kernel())(np.ones((3, 2), np.float32))
    assert not np.shares_memory(vectors, given[0].numpy())


@pytest.mark.usefixtures("computing")
def test_an_error_that_a_kernel_left_is_the_device_s(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: FakeEvent) -> None:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be…")

    monkeypatch.setattr(FakeEvent, "synchronize", fails)
    begun = TorchModel(TorchRuntime("cuda", "float32"), Kernel()).start(np.ones((3, 2), np.float32))
    with pytest.raises(EncoderError, match=r"^cuda failed \(CUDA error: an illegal memory access was encountered\)\. What"):
        begun()
