"""What every runtime is given and gives: `Network` in, `Model` out; and how vectors of two of them are compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from embedstore.encoders.base import Vectors

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[Any]

CPU_PADDING = 256
"""`Model.padding` of a network on a CPU."""


@dataclass(frozen=True)
class Network:
    """Arrays in, vectors out, in float32 arithmetic.

    Parameters
    ----------
    name : str
        For messages.
    fingerprint : str
        Of the encoder; networks converted for a runtime are kept under it.
    load : callable
        Makes the torch module, which takes tensors of `shapes` and gives (n, dim).
    shapes : tuple of tuple of int
        Of its inputs; -1 where the length varies.
    examples : callable
        Makes batches of inputs like real ones, of different shapes, on which runtimes have to agree.
    packed : callable, optional
        Of the loaded module of texts: one that takes `Rows` of `embedstore.encoders.runtimes.packing`, for runtimes that are
        faster so.
    """

    name: str
    fingerprint: str
    load: Callable[[], torch.nn.Module]
    shapes: tuple[tuple[int, ...], ...]
    examples: Callable[[], list[tuple[Array, ...]]]
    packed: Callable[[torch.nn.Module], torch.nn.Module] | None = None


Pending = Callable[[], Vectors]
"""Waits for vectors that are being computed."""


class Model(Protocol):
    """A network on a runtime.

    Parameters
    ----------
    padding : int
        Tokens of padding that cost as much as another call of a small network, with shapes that are new to it.
    row : int
        Texts of at most so many tokens share rows: none of them costs padding.
    """

    @property
    def padding(self) -> int: ...

    @property
    def row(self) -> int: ...

    def start(self, *inputs: Any) -> Pending:
        """Begin on arrays, lists of arrays to be stacked, or tensors on the device; they are not to change before the end.

        Raises, then or later, what calling it raises.
        """

    def __call__(self, *inputs: Any) -> Vectors:
        """Vectors (n, dim) float32.

        Raises
        ------
        EncoderOutOfMemoryError
            A smaller batch may fit.
        """

    def provenance(self) -> Mapping[str, str]:
        """Runtime, its version, device and arithmetic; for people."""


def cpu_has_bfloat16() -> bool:
    """Whether the processor computes in bfloat16; without that it is ten times slower than float32."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags


def agreement(first: Vectors, second: Vectors) -> float:
    """The least cosine between vectors (n, dim) of the same payloads."""
    a, b = first.astype(np.float64), second.astype(np.float64)
    cosine = (a * b).sum(axis=1) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-300)
    return float(cosine.min())
