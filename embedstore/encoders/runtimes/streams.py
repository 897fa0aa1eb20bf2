"""Copies to and from a CUDA device that run beside its computing."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from embedstore.encoders.base import Vectors
from embedstore.encoders.runtimes.base import Array, Pending

if TYPE_CHECKING:
    import torch


class Copies:
    """Between the host and `device`, so that one batch travels while another is computed.

    Inputs have a stream of their own. Outputs are copied on the stream that computes them, right behind it, and waiting for
    one asks for its event alone: work that was queued later is not waited for.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    @cached_property
    def _inputs(self) -> torch.cuda.Stream:
        import torch

        return torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]

    def to_device(self, array: Array) -> torch.Tensor:
        """`array` on the device for the current stream; memory that is not page-locked is copied to some that is first.

        Page-locked memory of the caller is not to change, nor to be freed, until the vectors made of it are there.
        """
        import torch

        with torch.cuda.device(self._device):  # page-locked memory would else open a context on the first GPU
            tensor = torch.from_numpy(array)
            source = tensor if tensor.is_pinned() else tensor.pin_memory()
            computing = torch.cuda.current_stream(self._device)
            with torch.cuda.stream(self._inputs):
                there = source.to(self._device, non_blocking=True)
                arrived = self._inputs.record_event()
            computing.wait_event(arrived)
            there.record_stream(computing)  # else its memory would be given to the next input while it is read
            return there

    def to_host(self, output: torch.Tensor) -> Pending:
        """Begin to copy `output` (n, dim) of the current stream; what is returned waits for it."""
        import torch

        host = torch.empty_like(output, device="cpu", pin_memory=True)
        host.copy_(output, non_blocking=True)
        # Blocking, as a thread that spins takes a core from those that decode.
        done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        done.record(torch.cuda.current_stream(self._device))

        def wait() -> Vectors:
            done.synchronize()
            vectors: Vectors = host.numpy().copy()  # page-locked memory is scarce and goes back at once
            return vectors

        return wait
