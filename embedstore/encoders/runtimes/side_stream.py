"""Work beside the network on the same device: in a thread of its own, and on CUDA in a stream of its own."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING

from embedstore.encoders.base import Vectors
from embedstore.encoders.runtimes.base import Pending

if TYPE_CHECKING:
    import torch


class SideStream:
    """Makes a network's inputs on its device while the network computes on earlier ones.

    Parameters
    ----------
    device : torch.device
    name : str
        Of the thread.
    """

    def __init__(self, device: torch.device, name: str) -> None:
        self._device = device
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)

    def start(self, make: Callable[[], torch.Tensor], forward: Callable[[torch.Tensor], Pending]) -> Pending:
        """Begin what `make` returns, then `forward` of it, one after another in the order of calls.

        What either raises is raised when the vectors are waited for.
        """
        begun = [self._thread.submit(self._run, make, forward)]

        def wait() -> Vectors:
            return begun.pop().result()()  # an error takes the tensors that it refers to along: nothing here keeps it

        return wait

    def _run(self, make: Callable[[], torch.Tensor], forward: Callable[[torch.Tensor], Pending]) -> Pending:
        if self._device.type != "cuda":
            return forward(make())
        import torch

        with torch.cuda.stream(self._stream):
            made = make()
            ready = self._stream.record_event()
        network = torch.cuda.current_stream(self._device)
        network.wait_event(ready)
        made.record_stream(network)  # its memory is not used again before the network has read it
        return forward(made)

    @cached_property
    def _stream(self) -> torch.cuda.Stream:
        import torch

        return torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
