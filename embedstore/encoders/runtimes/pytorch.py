"""Networks on torch: device, precision, out-of-memory. The only module of the encoders that knows CUDA."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from embedstore.encoders.base import Vectors
from embedstore.encoders.runtimes.base import CPU_PADDING, Array, Network, Pending, agreement, cpu_has_bfloat16
from embedstore.errors import EncoderError, EncoderOutOfMemoryError, UsageError, one_line

if TYPE_CHECKING:
    import torch

LOG = logging.getLogger(__name__)
AGREEMENT = 0.9999
"""The least cosine of a compiled network's vectors to those of the network as it was."""
BACKEND = "inductor"
GPU_PADDING = 8192


class TorchRuntime:
    """A device and the arithmetic on it.

    Parameters
    ----------
    device : str
        ``"auto"`` (CUDA when there is one) or a torch device.
    precision : str
        ``"auto"`` (bfloat16 autocast on CUDA, float32 elsewhere), ``"float32"`` or ``"bfloat16"``. On a CPU bfloat16 is
        refused unless the processor computes it natively: without that it is ten times slower, and even with it the
        vectors drift (cosine 0.9996 to float32 on EfficientNet-Lite0), so it is never chosen there by itself.
    """

    def __init__(self, device: str, precision: str) -> None:
        import torch

        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self.device = torch.device(device)
        except RuntimeError as error:
            raise UsageError(f"--device {device!r} is not a torch device; expected auto, cpu, cuda or cuda:N.") from error
        if self.device.type == "cuda" and not torch.cuda.is_available():
            raise UsageError(f"--device {device}: torch sees no CUDA device here. Use --device cpu.")
        if precision not in ("auto", "float32", "bfloat16"):
            raise UsageError(f"precision must be auto, float32 or bfloat16. Got {precision!r} instead.")
        if precision == "bfloat16" and self.device.type == "cpu" and not cpu_has_bfloat16():
            raise UsageError("This processor has no fast bfloat16 (AVX512_BF16 or AMX). Use --precision float32.")
        self.bfloat16 = precision == "bfloat16" or (precision == "auto" and self.device.type == "cuda")

    def place(self, model: torch.nn.Module) -> torch.nn.Module:
        """`model` on the device, in evaluation mode, convolutions in channels_last."""
        import torch

        placed: torch.nn.Module = (
            model.eval()
            .requires_grad_(False)
            .to(  # type: ignore[call-overload]
                self.device, memory_format=torch.channels_last
            )
        )
        return placed

    def run(self, forward: Callable[[], torch.Tensor]) -> Vectors:
        """Vectors (n, dim) float32 of `forward`, without gradients, under the runtime's autocast.

        Raises
        ------
        EncoderOutOfMemoryError
        """
        return self.start(forward)()

    def start(self, forward: Callable[[], torch.Tensor]) -> Pending:
        """As `run`; on CUDA what is returned waits for the device, on a CPU all is done already."""
        import torch

        autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16)
        with self.memory_errors(), torch.inference_mode(), autocast:
            output = forward().float()

        def wait() -> Vectors:
            with self.memory_errors():
                return np.asarray(output.cpu().numpy())

        return wait

    @contextmanager
    def memory_errors(self) -> Iterator[None]:
        """What torch raises when it runs out of memory becomes `EncoderOutOfMemoryError`."""
        import torch

        try:
            yield
        except torch.cuda.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            raise EncoderOutOfMemoryError(f"{self.device} ran out of memory.") from error
        except RuntimeError as error:
            if "can't allocate memory" in str(error) or "not enough memory" in str(error):
                raise EncoderOutOfMemoryError("The CPU ran out of memory.") from error
            raise

    def tensor(self, array: Array | torch.Tensor) -> torch.Tensor:
        """`array` on the device; on CUDA through pinned memory, without waiting for the copy. A tensor is there already."""
        import torch

        if isinstance(array, torch.Tensor):
            return array
        tensor = torch.from_numpy(array)
        return tensor.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else tensor

    def provenance(self) -> Mapping[str, str]:
        import torch

        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"
        return {"torch": torch.__version__, "device": name, "precision": "bfloat16" if self.bfloat16 else "float32"}


class TorchModel:
    """A torch module that takes tensors and gives (n, dim), on a runtime's device; `compiled` with ``torch.compile``."""

    row = 0

    def __init__(self, runtime: TorchRuntime, module: torch.nn.Module, *, compiled: bool = False) -> None:
        self.runtime = runtime
        self._unplaced = module
        self._compiled = compiled

    @cached_property
    def module(self) -> torch.nn.Module:
        import torch

        placed = self.runtime.place(self._unplaced)
        return cast("torch.nn.Module", torch.compile(placed, backend=BACKEND)) if self._compiled else placed

    @property
    def padding(self) -> int:
        return GPU_PADDING if self.runtime.device.type == "cuda" else CPU_PADDING

    def start(self, *inputs: Array | torch.Tensor) -> Pending:
        module = self.module
        return self.runtime.start(lambda: module(*[self.runtime.tensor(array) for array in inputs]))

    def __call__(self, *inputs: Array | torch.Tensor) -> Vectors:
        return self.start(*inputs)()

    def provenance(self) -> Mapping[str, str]:
        return {**self.runtime.provenance(), **({"compiled": BACKEND} if self._compiled else {})}


def compiled_model(network: Network, eager: TorchModel) -> TorchModel:
    """`eager`, the network on torch, through ``torch.compile``.

    Raises
    ------
    EncoderError
        It cannot be compiled, or gives other vectors (`AGREEMENT`, on the network's examples).
    """
    LOG.info("Compiling %s with torch.compile. This takes a while, in every process.", network.name)
    made = TorchModel(eager.runtime, eager.module, compiled=True)
    try:
        cosine = min(agreement(made(*batch), eager(*batch)) for batch in network.examples())
    except EncoderOutOfMemoryError:
        raise
    except Exception as error:  # compilers fail in many ways
        raise EncoderError(f"{network.name} cannot be compiled: {one_line(error, 200)} Use --runtime torch.") from error
    if not cosine >= AGREEMENT:
        raise EncoderError(f"{network.name} gives other vectors when compiled (cosine {cosine:.7f}). Use --runtime torch.")
    return made


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    """State dict from a local ``.safetensors``, ``.pt``, ``.pth`` or ``.bin`` file; never executes code.

    Raises
    ------
    EncoderError
    """
    import torch

    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise EncoderError(f"Weights {path} cannot be read: {error}".splitlines()[0]) from error
    for key in ("state_dict", "model"):
        state = state[key] if isinstance(state.get(key), dict) else state
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def fill(model: torch.nn.Module, path: Path, name: str) -> None:
    """Load a model's weights from a file, which may hold others besides.

    Raises
    ------
    EncoderError
        The file cannot be read, lacks some of them, or has them in another shape.
    """
    weights = load_weights(path)
    try:
        missing = model.load_state_dict(weights, strict=False).missing_keys
    except RuntimeError as error:
        raise EncoderError(f"Weights {path} do not fit {name}: {one_line(str(error).partition(':')[2], 200)}") from error
    if missing:
        raise EncoderError(f"Weights {path} do not fit {name}: they lack {missing[0]!r}.")


def state_digest(model: torch.nn.Module) -> str:
    """``"sha256:…"`` over names, dtypes, shapes and bytes of a model's state, whatever file it came from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        array = tensor.detach().cpu().contiguous()
        digest.update(f"{name}|{array.dtype}|{tuple(array.shape)}|".encode())
        digest.update(array.reshape(-1).view(_bytes_dtype()).numpy().tobytes() if array.numel() else b"")
    return f"sha256:{digest.hexdigest()}"


def _bytes_dtype() -> torch.dtype:
    import torch

    return torch.uint8
