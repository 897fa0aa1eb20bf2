"""Work beside the network: its order on CUDA, told by stand-ins for streams and events; its errors."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

from embedstore.encoders.runtimes.side_stream import SideStream


class Stream:
    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log = name, log

    def record_event(self) -> str:
        self.log.append(f"event on {self.name}")
        return f"event of {self.name}"

    def wait_event(self, event: str) -> None:
        self.log.append(f"{self.name} waits for {event}")


class Made:
    def __init__(self, log: list[str]) -> None:
        self.log = log

    def record_stream(self, stream: Stream) -> None:
        self.log.append(f"kept for {stream.name}")


def test_the_network_s_stream_waits_for_what_was_made_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    side, network = Stream("side", log), Stream("network", log)

    @contextmanager
    def entered(stream: Stream) -> Iterator[None]:
        log.append(f"into {stream.name}")
        yield
        log.append(f"out of {stream.name}")

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: side)
    monkeypatch.setattr(torch.cuda, "stream", entered)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: network)

    def make() -> Any:
        log.append("made")
        return Made(log)

    def forward(made: Any) -> Any:
        log.append("forward")
        return lambda: np.ones((1, 2), np.float32)

    beside = SideStream(torch.device("cuda:1"), "test")
    assert beside.start(make, forward)().shape == (1, 2)
    once = [
        "into side",
        "made",
        "event on side",
        "out of side",
        "network waits for event of side",
        "kept for network",
        "forward",
    ]
    assert log == once
    beside.start(make, forward)()
    assert log == 2 * once


def test_a_batch_is_begun_while_another_is_made_in_order() -> None:
    go, order = threading.Event(), []

    def make(number: int) -> Any:
        def made() -> Any:
            assert threading.current_thread() is not threading.main_thread()
            go.wait(20)
            order.append(number)
            return torch.full((1, 1), number)

        return made

    beside = SideStream(torch.device("cpu"), "test")
    begun = [beside.start(make(i), lambda made: lambda: made.numpy().astype(np.float32)) for i in range(3)]
    assert order == []
    go.set()
    assert [float(wait()[0, 0]) for wait in begun] == [0, 1, 2]
    assert order == [0, 1, 2]


def test_errors_come_when_waited_for_and_keep_no_memory() -> None:
    beside = SideStream(torch.device("cpu"), "test")
    refs: list[Any] = []

    def make() -> Any:
        large = torch.ones(8)
        refs.append(weakref.ref(large))
        raise ValueError("no such file")

    wait = beside.start(make, lambda made: lambda: np.ones((1, 1), np.float32))
    with pytest.raises(ValueError, match="no such file"):
        wait()
    gc.collect()
    assert refs[0]() is None  # though `wait` is still there
    fine = beside.start(lambda: torch.ones(1), lambda made: lambda: np.ones((1, 1), np.float32))
    assert fine().shape == (1, 1)
