"""The choice of a network's runtime: OpenVINO on a CPU where it is installed, else torch."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from embedstore.encoders.base import RUNTIMES, EncoderRequest
from embedstore.encoders.runtimes.base import Model, Network
from embedstore.encoders.runtimes.pytorch import TorchRuntime, open_network
from embedstore.encoders.runtimes.several import SeveralModels, loading_copies
from embedstore.errors import MissingDependencyError, UsageError

CPU_BATCH, CUDA_BATCH = 128, 256
DEVICE_FILES = ("/dev/nvidiactl", "/dev/dxg", "/dev/nvmap", "/dev/kfd")
"""Of NVIDIA's driver, Windows' below Linux, Jetson boards, and ROCm."""


def open_model(network: Network, request: EncoderRequest) -> Model:
    """`network` on the runtime that `request` asks for.

    Raises
    ------
    UsageError
        A device, precision or runtime that is not there, or does not agree with torch.
    EncoderError
        The network cannot be compiled, or its vectors are not finite in the precision that was asked for.
    """
    if runtime_of(request) == "openvino":
        from embedstore.encoders.runtimes import openvino

        if (model := openvino.open_network(network, request.precision, required=request.runtime == "openvino")) is not None:
            return model
    several, compiled = len(request.devices) > 1, request.runtime == "compile"
    network = loading_copies(network) if several else network
    models = [open_network(network, TorchRuntime(device, request.precision), compiled=compiled) for device in request.devices]
    return SeveralModels(models) if several else models[0]


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


def gpu_of(request: EncoderRequest) -> str:
    """The first of the GPUs that `on_gpu` puts a network on."""
    return "cuda" if request.device == "auto" else request.devices[0]


def has_cuda() -> bool:
    """Whether torch sees a CUDA device (ROCm's have that name too); it is asked only where there is a device file of one."""
    if not any(Path(file).exists() for file in DEVICE_FILES):
        return False
    import torch

    return torch.cuda.is_available()
