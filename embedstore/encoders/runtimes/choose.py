"""A network that any runtime can take, and the choice of the runtime: OpenVINO on a CPU where it is installed, else torch."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from embedstore.encoders.base import RUNTIMES, EncoderRequest, Vectors
from embedstore.errors import MissingDependencyError, UsageError

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[Any]

CPU_BATCH, CUDA_BATCH = 128, 256
CPU_PADDING = 256


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
        """Begin on arrays, or tensors that are on the device; they are not to change before the vectors are there.

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


def open_model(network: Network, request: EncoderRequest) -> Model:
    """`network` on the runtime that `request` asks for.

    Raises
    ------
    UsageError
        A device, precision or runtime that is not there, or does not agree with torch.
    """
    if runtime_of(request) == "openvino":
        from embedstore.encoders.runtimes import openvino

        if (model := openvino.open_network(network, request.precision, required=request.runtime == "openvino")) is not None:
            return model
    from embedstore.encoders.runtimes.pytorch import TorchModel, TorchRuntime, compiled_model

    eager = TorchModel(TorchRuntime(request.device, request.precision), network.load())
    return compiled_model(network, eager) if request.runtime == "compile" else eager


def runtime_of(request: EncoderRequest) -> str:
    """``"torch"`` or ``"openvino"``; torch is not imported to find out where there is no GPU."""
    if request.runtime not in RUNTIMES:
        raise UsageError(f"runtime must be one of {', '.join(RUNTIMES)}. Got {request.runtime!r} instead.")
    fits = request.device in ("auto", "cpu") and request.precision in ("auto", "float32")
    there = importlib.util.find_spec("openvino") is not None
    if request.runtime == "openvino":
        if not there:
            raise MissingDependencyError("'openvino' is not installed. Run: pip install 'embedstore[cpu]'")
        if not fits:
            raise UsageError(
                f"--runtime openvino computes in float32 on the CPU, not with --device {request.device} "
                f"--precision {request.precision}. Use --runtime torch."
            )
        return "openvino"
    wanted = request.runtime == "auto" and fits and there and not (request.device == "auto" and has_cuda())
    return "openvino" if wanted else "torch"


def batch_size_of(request: EncoderRequest) -> int:
    """A good number of payloads at once on the device of `request`."""
    return CUDA_BATCH if on_gpu(request) else CPU_BATCH


def on_gpu(request: EncoderRequest) -> bool:
    """Whether `request` puts a network on a GPU."""
    return request.device.startswith("cuda") or (request.device == "auto" and request.runtime != "openvino" and has_cuda())


def has_cuda() -> bool:
    """Whether torch sees a CUDA device; it is asked only where there is a device file of one."""
    if not (Path("/dev/nvidiactl").exists() or Path("/dev/dxg").exists() or Path("/dev/nvmap").exists()):
        return False
    import torch

    return torch.cuda.is_available()


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
