"""Networks on torch: a device, its errors, a module on it, and the module compiled."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, cached_property
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np

from embedstore._core.device_errors import device_failure, without_frames
from embedstore.encoders.base import PRECISIONS, Vectors
from embedstore.encoders.runtimes.base import CPU_PADDING, Array, Network, Pending, agreement, cpu_has_bfloat16
from embedstore.encoders.runtimes.precision import AGREEMENT as AGREEMENT
from embedstore.encoders.runtimes.precision import FLOAT32, Arithmetic, Chosen, candidates, choose, converted
from embedstore.encoders.runtimes.streams import Copies
from embedstore.errors import EncoderError, EncoderOutOfMemoryError, UsageError, one_line

if TYPE_CHECKING:
    import torch

LOG = logging.getLogger(__name__)
BACKEND = "inductor"
GPU_PADDING = 8192
Input: TypeAlias = "Array | Sequence[Array] | torch.Tensor"
"""An array, arrays of one shape that are to be stacked, or a tensor on the device."""
MEASURED = {"cuda"}
"""Kinds of device on which a precision is compared with float32 before it is taken."""
_CHOSEN: dict[tuple[str, str, str], Chosen] = {}
"""What was chosen in this process, by network, device and the precision that was asked for."""


class TorchRuntime:
    """A device.

    Parameters
    ----------
    device : str
        ``"auto"`` (CUDA when there is one) or a torch device.
    precision : str
        One of `PRECISIONS`: what networks are to compute in. ``"auto"`` is float16 on CUDA for a network whose vectors stay
        those of float32, and float32 elsewhere. On a CPU bfloat16 is refused unless the processor computes it natively:
        without that it is ten times slower. Even with it EfficientNet-Lite0's vectors drift to a cosine of 0.9945 to
        float32's, so it is nowhere chosen by itself.
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
        if precision not in PRECISIONS:
            raise UsageError(f"precision must be one of {', '.join(PRECISIONS)}. Got {precision!r} instead.")
        if precision == "bfloat16" and self.device.type == "cpu" and not cpu_has_bfloat16():
            raise UsageError("This processor has no fast bfloat16 (AVX512_BF16 or AMX). Use --precision float32.")
        if precision == "float16" and self.device.type == "cpu":
            raise UsageError("float16 is for GPUs; a processor is slower in it. Use --precision float32.")
        self.precision = precision

    @cached_property
    def _copies(self) -> Copies | None:
        return Copies(self.device) if self.device.type == "cuda" else None

    def chosen(
        self, network: str, fingerprint: str, vectors: Callable[[Arithmetic], Sequence[Vectors]], *, converts: bool = True
    ) -> Chosen:
        """What a network computes in here; found out once a process, on a GPU by comparing vectors.

        Parameters
        ----------
        network, fingerprint : str
            Its name for messages, and what it is known by.
        vectors : callable
            Its vectors (n, dim) of each batch of examples in an arithmetic.
        converts : bool
            Whether its weights may be converted.

        Raises
        ------
        EncoderError
            The precision that was asked for gives vectors that are not finite.
        """
        tried = [found for found in candidates(self.precision, self.device.type) if converts or not found.converted]
        if not tried:
            return Chosen(FLOAT32)
        if self.device.type not in MEASURED:  # it was asked for, and comparing would take long
            return Chosen(tried[-1])
        key = (fingerprint, str(self.device), self.precision)
        if key not in _CHOSEN:
            _CHOSEN[key] = choose(network, tried, vectors, asked=self.precision != "auto")
        return _CHOSEN[key]

    def place(self, model: torch.nn.Module) -> torch.nn.Module:
        """`model` on the device, in evaluation mode, convolutions in channels_last unless some are over time as well."""
        import torch

        over_time = any(weight.dim() > 4 for weight in model.parameters())
        layout = torch.preserve_format if over_time else torch.channels_last
        with self.device_errors():
            placed: torch.nn.Module = (
                model.eval()
                .requires_grad_(False)
                .to(  # type: ignore[call-overload]
                    self.device, memory_format=layout
                )
            )
        return placed

    def run(self, forward: Callable[[], torch.Tensor], arithmetic: Arithmetic = FLOAT32) -> Vectors:
        """Vectors (n, dim) float32 of `forward`, without gradients, in an arithmetic.

        Raises
        ------
        EncoderOutOfMemoryError
        EncoderError
            The device failed.
        """
        return self.start(forward, arithmetic)()

    def start(self, forward: Callable[[], torch.Tensor], arithmetic: Arithmetic = FLOAT32) -> Pending:
        """As `run`; on CUDA what is returned waits for these vectors alone, on a CPU all is done already."""
        import torch

        with self.device_errors(), self._current(), torch.inference_mode(), arithmetic.computing(self.device):
            output = forward().float()
            begun = self._copies.to_host(output) if self._copies else lambda: np.asarray(output.cpu().numpy())

        def wait() -> Vectors:
            with self.device_errors():
                return begun()

        return wait

    def _current(self) -> AbstractContextManager[None]:
        """Within it the device is the one that kernels are launched on and memory is page-locked for."""
        import torch

        return torch.cuda.device(self.device) if self._copies else nullcontext()

    @contextmanager
    def device_errors(self) -> Iterator[None]:
        """What torch raises when the device is full becomes `EncoderOutOfMemoryError`, when it fails `EncoderError`.

        What the failed work held is let go of first, so that a retry of half the size has room.
        """
        try:
            yield
            return
        except RuntimeError as error:
            failure = device_failure(error, self.device)
            if failure is None:
                raise
            if not isinstance(failure, EncoderOutOfMemoryError):
                raise failure from error
            LOG.info("%s", one_line(without_frames(error), 200))
        if self._copies:
            import torch

            torch.cuda.empty_cache()
        raise failure

    def tensor(self, given: Input) -> torch.Tensor:
        """An array, or arrays stacked, on the device; on CUDA without waiting for the copy. A tensor is there already."""
        import torch

        if isinstance(given, torch.Tensor):
            return given
        if self._copies:
            return self._copies.to_device(given)
        return torch.from_numpy(given if isinstance(given, np.ndarray) else np.stack(given))

    def provenance(self, chosen: Chosen = Chosen(FLOAT32)) -> Mapping[str, str]:
        """Library, device, and the precision that is really used with how near its vectors are to float32's."""
        import torch

        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"
        measured = {} if chosen.cosine is None else {"cosine_to_float32": f"{chosen.cosine:.7f}"}
        return {"torch": torch.__version__, "device": name, "precision": chosen.arithmetic.name, **measured}


class TorchModel:
    """A torch module that takes tensors and gives (n, dim), on a runtime's device.

    Parameters
    ----------
    runtime : TorchRuntime
    module : Module
        With weights in float32. It is placed on the device.
    chosen : Chosen
        What it computes in.
    varying : sequence of sequence of int, optional
        It is compiled with ``torch.compile``, for inputs of any size along these dimensions of each.
    """

    row = 0

    def __init__(
        self,
        runtime: TorchRuntime,
        module: torch.nn.Module,
        chosen: Chosen = Chosen(FLOAT32),
        *,
        varying: Sequence[Sequence[int]] | None = None,
    ) -> None:
        self.runtime = runtime
        self.chosen = chosen
        self._unplaced = module
        self._varying = varying

    @cached_property
    def module(self) -> torch.nn.Module:
        import torch

        if self._varying is None:
            return self._weights
        return cast("torch.nn.Module", torch.compile(self._weights, backend=BACKEND))

    @cached_property
    def _weights(self) -> torch.nn.Module:
        weights, arithmetic = self.runtime.place(self._unplaced), self.chosen.arithmetic
        if arithmetic.converted:
            with self.runtime.device_errors():
                weights = converted(weights, arithmetic.dtype)
        del self._unplaced  # where they were converted, weights in float32 are of no more use
        return weights

    def in_float32(self) -> TorchModel:
        """One of the same weights that computes in float32, not compiled: to compare what it is given, such as pixels."""
        import torch

        if not self.chosen.arithmetic.converted:
            return TorchModel(self.runtime, self._weights)
        with self.runtime.device_errors():
            return TorchModel(self.runtime, converted(self._weights, torch.float32))

    @property
    def padding(self) -> int:
        return GPU_PADDING if self.runtime.device.type == "cuda" else CPU_PADDING

    def start(self, *inputs: Input) -> Pending:
        module = self.module
        return self.runtime.start(lambda: module(*self._tensors(inputs)), self.chosen.arithmetic)

    def _tensors(self, inputs: Sequence[Input]) -> list[torch.Tensor]:
        import torch

        tensors = [self.runtime.tensor(array) for array in inputs]
        for tensor, dimensions in zip(tensors, self._varying or [()] * len(tensors), strict=True):
            for dimension in dimensions:  # where the size is one torch makes a graph apart all the same
                torch._dynamo.maybe_mark_dynamic(tensor, dimension)
        return tensors

    def __call__(self, *inputs: Input) -> Vectors:
        return self.start(*inputs)()

    def provenance(self) -> Mapping[str, str]:
        compiled = {} if self._varying is None else {"compiled": BACKEND}
        return {**self.runtime.provenance(self.chosen), **compiled}


def open_network(network: Network, runtime: TorchRuntime, *, compiled: bool = False) -> TorchModel:
    """`network` on torch, in the precision that `runtime` was asked for.

    Raises
    ------
    EncoderError
        That precision gives vectors that are not finite; or it cannot be compiled, or gives other vectors then.
    """
    module, examples = network.load(), cache(network.examples)

    def vectors(arithmetic: Arithmetic) -> list[Vectors]:
        model = TorchModel(runtime, module, Chosen(arithmetic))
        return [model(*batch) for batch in examples()]

    chosen = runtime.chosen(network.name, network.fingerprint, vectors)
    if not compiled:
        return TorchModel(runtime, module, chosen)
    LOG.info("Compiling %s with torch.compile. This takes a while, in every process.", network.name)
    varying = [[d for d, size in enumerate(shape) if size < 0] for shape in network.shapes]
    made = TorchModel(runtime, module, chosen, varying=varying)
    try:
        found = [made(*batch) for batch in examples()]
    except EncoderError:
        raise
    except Exception as error:  # compilers fail in many ways
        raise EncoderError(f"{network.name} cannot be compiled: {one_line(error, 200)} Use --runtime torch.") from error
    exact = vectors(FLOAT32)
    cosine = _least(found, exact)
    least = AGREEMENT if chosen.arithmetic == FLOAT32 else _bearable(vectors(chosen.arithmetic), exact)
    if not cosine >= least:
        raise EncoderError(f"{network.name} gives other vectors when compiled (cosine {cosine:.7f}). Use --runtime torch.")
    return made


def _least(found: Sequence[Vectors], exact: Sequence[Vectors]) -> float:
    return min(agreement(batch, right) for batch, right in zip(found, exact, strict=True))


def _bearable(uncompiled: Sequence[Vectors], exact: Sequence[Vectors]) -> float:
    """The least cosine to float32 of a compiled network in a precision that was asked for though its vectors differ.

    As far as they do uncompiled, twice: what a compiler fuses is rounded elsewhere.
    """
    return min(AGREEMENT, 1 - 2 * (1 - _least(uncompiled, exact)))
