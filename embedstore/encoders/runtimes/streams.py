"""Copies to and from a CUDA device that run beside its computing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from embedstore.encoders.base import Vectors
from embedstore.encoders.runtimes.base import Array, Pending

if TYPE_CHECKING:
    import torch

LOG = logging.getLogger(__name__)
PORTABLE = 1
"""Page-locked for every GPU (cudaHostRegisterPortable)."""


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

    def to_device(self, given: Array | Sequence[Array]) -> torch.Tensor:
        """An array on the device for the current stream, or arrays of one shape stacked there.

        Memory that is not page-locked is copied to some that is first. Page-locked memory of the caller is not to change, nor
        to be freed, until the vectors made of it are there. None of it is written to: it may be read-only.
        """
        import torch

        with torch.cuda.device(self._device):  # page-locked memory would else open a context on the first GPU
            pieces = [given] if isinstance(given, np.ndarray) else list(runs(given))
            tensors = [torch.from_numpy(writeable(piece)) for piece in pieces]
            sources = [tensor if tensor.is_pinned() else tensor.pin_memory() for tensor in tensors]
            computing = torch.cuda.current_stream(self._device)
            with torch.cuda.stream(self._inputs):
                found = [source.to(self._device, non_blocking=True) for source in sources]
                there = found[0] if len(found) == 1 else torch.cat(found)
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


def runs(arrays: Sequence[Array]) -> Iterator[Array]:
    """Arrays of one shape stacked (n, …), a piece at a time: those that lie one behind the other in memory are not copied."""
    lo = 0
    for i in range(1, len(arrays) + 1):
        if i < len(arrays) and _behind(arrays[i - 1], arrays[i]):
            continue
        first = arrays[lo]
        yield np.lib.stride_tricks.as_strided(first, (i - lo, *first.shape), (first.nbytes, *first.strides))
        lo = i


def _behind(first: Array, second: Array) -> bool:
    """Whether `second` begins where `first` ends, in the memory of one array."""
    one = first.base is not None and first.base is second.base and first.shape == second.shape
    whole = first.flags.c_contiguous and second.flags.c_contiguous
    return one and whole and second.ctypes.data == first.ctypes.data + first.nbytes


class _Writeable:
    """What NumPy takes for memory that may be written to; it holds `array`, whose memory it is."""

    def __init__(self, array: Array) -> None:
        self.array = array
        self.__array_interface__ = {**array.__array_interface__, "data": (array.ctypes.data, False)}


def writeable(array: Array) -> Array:
    """`array`, or a view of it that is not read-only, for a tensor that is only read: torch warns of memory that is."""
    return array if array.flags.writeable else np.asarray(_Writeable(array))


def page_locked(memory: Array, device: str) -> Callable[[], None]:
    """Lock memory (n,) uint8 that lies at a page's start, so that GPUs copy from it beside computing; returns what undoes it.

    Where the system allows no more of it, it stays as it is, and is copied to some that is locked when it is needed. CUDA is
    asked on `device`, on whichever thread this is called: it would else open a context on the first GPU.
    """
    import torch

    address = memory.ctypes.data
    with torch.cuda.device(device):
        runtime = torch.cuda.cudart()  # type: ignore[no-untyped-call]
        refused = runtime.cudaHostRegister(address, memory.nbytes, PORTABLE)
    if int(refused):
        LOG.info("Shared memory cannot be page-locked (%s); it is copied once more.", refused)
        return lambda: None

    def let_go() -> None:
        with torch.cuda.device(device):
            runtime.cudaHostUnregister(address)
        del kept[:]

    kept = [memory]  # not to be unmapped before
    return let_go
