"""How busy the device is: the time between events around every forward, and NVML's figures beside it."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import Any

from benchmarks._gpu.models import Forward

EVERY = 0.05
"""Seconds between looks."""


class Forwards:
    """Seconds that the device spends in the forwards that `wrap` has seen; on a CPU, those of the thread that runs them."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._gpu = device.startswith("cuda")
        self._events: list[tuple[Any, Any]] = []
        self._seconds = 0.0

    def clear(self) -> None:
        self._events.clear()
        self._seconds = 0.0

    def wrap(self, forward: Forward) -> Forward:
        import torch

        def timed(tower: Any, images: torch.Tensor) -> torch.Tensor:
            if not self._gpu:
                start = time.perf_counter()
                output = forward(tower, images)
                self._seconds += time.perf_counter() - start
                return output
            first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            first.record()
            output = forward(tower, images)
            last.record()
            self._events.append((first, last))
            return output

        return timed

    @property
    def seconds(self) -> float:
        """Of all forwards, which are waited for."""
        if self._gpu:
            import torch

            torch.cuda.synchronize(self._device)
        return self._seconds + float(sum(first.elapsed_time(last) for first, last in self._events)) / 1000


class Looks:
    """NVML's utilisation of the first GPU and of its JPEG engine while a `with` block runs; nothing where there is no NVML."""

    def __init__(self, *, gpu: bool) -> None:
        self.gpu: list[float] = []
        self.jpeg: list[float] = []
        self._wanted = gpu
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Looks:
        try:
            import pynvml  # type: ignore[import-not-found,import-untyped,unused-ignore]

            if self._wanted:
                pynvml.nvmlInit()
                self._thread = threading.Thread(target=self._look, args=(pynvml,), daemon=True)
                self._thread.start()
        except Exception:  # it is a figure beside another one
            self._thread = None
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _look(self, nvml: Any) -> None:
        handle = nvml.nvmlDeviceGetHandleByIndex(0)
        while not self._stop.wait(EVERY):
            with suppress(Exception):  # a driver that does not say
                self.gpu.append(float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu))
            with suppress(Exception):
                self.jpeg.append(float(nvml.nvmlDeviceGetJpgUtilization(handle)[0]))

    @property
    def means(self) -> dict[str, float]:
        """By what was looked at, in per cent."""
        found = {"NVML": self.gpu, "JPEG engine": self.jpeg}
        return {name: sum(values) / len(values) for name, values in found.items() if values}
