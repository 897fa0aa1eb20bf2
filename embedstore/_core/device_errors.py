"""What torch says when a device fails or is full, told apart from what a payload did; knows messages, imports no torch."""

from __future__ import annotations

import re
import sys
import traceback
from typing import TypeVar

from embedstore.errors import EncoderError, EncoderOutOfMemoryError, one_line

Raised = TypeVar("Raised", bound=BaseException)

_CPU_FULL = ("can't allocate memory", "not enough memory")
_FULL = re.compile(r"(CUDA|HIP)\b.*\bout of memory|(CUBLAS|CUDNN|CUFFT|CUSOLVER|CUSPARSE|HIPBLAS|MIOPEN)_\w*ALLOC\w*FAILED")
_FAILED = re.compile(
    r"\b(CUDA|HIP)( driver| runtime)? error|Triton Error \[(CUDA|HIP)\]|cuDNN error|"
    r"\b(CUBLAS|CUDNN|CUFFT|CUSOLVER|CUSPARSE|HIPBLAS|MIOPEN|NVJPEG)_"
)


def device_failure(error: BaseException, device: object = "The GPU") -> EncoderError | None:
    """The `EncoderError` that `error` amounts to where the device is at fault; None where it may be the payload.

    A context that has failed once fails at every later call, so a run that went on would put a failure on every payload left.

    Returns
    -------
    EncoderOutOfMemoryError
        A smaller batch may fit.
    """
    said = str(error)
    if not isinstance(error, RuntimeError):
        return None
    if any(words in said for words in _CPU_FULL):
        return EncoderOutOfMemoryError("The CPU ran out of memory.")
    if isinstance(error, _of_torch("OutOfMemoryError")) or _FULL.search(said):
        return EncoderOutOfMemoryError(
            f"{device} ran out of memory. End what else uses it (nvidia-smi lists that), or use --device cpu."
        )
    if isinstance(error, _of_torch("AcceleratorError")) or _FAILED.search(said):
        reason = one_line(said.splitlines()[0] if said else type(error).__name__, 200)
        return EncoderError(
            f"{device} failed ({reason}). What was committed is kept: run the same command again, or with --device cpu; "
            "nvidia-smi tells whether the GPU is well."
        )
    return None


def without_frames(error: Raised) -> Raised:
    """`error`, having let go of the frames that it and its causes came through: they hold a failed batch's activations."""
    links: list[BaseException | None] = [error]
    for link in links:  # which grows meanwhile
        if link is not None and link.__traceback__ is not None:
            traceback.clear_frames(link.__traceback__)
            link.__traceback__ = None
            links += [link.__cause__, link.__context__]
    return error


def _of_torch(name: str) -> tuple[type[BaseException], ...]:
    """An exception type of torch, if torch is loaded and has it."""
    found = getattr(sys.modules.get("torch"), name, None)
    return (found,) if isinstance(found, type) else ()
