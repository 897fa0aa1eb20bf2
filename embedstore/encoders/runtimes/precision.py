"""The arithmetic that a network computes in on torch: float32, or a half one that has been shown to give its vectors."""

from __future__ import annotations

import copy
import logging
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from embedstore._core.device_errors import without_frames
from embedstore.encoders.base import Vectors
from embedstore.encoders.runtimes.base import agreement
from embedstore.errors import EncoderError, EncoderOutOfMemoryError, one_line

if TYPE_CHECKING:
    import torch

LOG = logging.getLogger(__name__)
AGREEMENT = 0.9999
"""The least cosine to float32 vectors, on a network's examples, of what may stand for them."""


class Arithmetic(NamedTuple):
    """How a network computes.

    Parameters
    ----------
    name : str
        ``"float32"``, ``"float16"`` or ``"bfloat16"``, as torch calls the dtype.
    converted : bool
        Weights are kept in it and nothing is cast. Otherwise torch's autocast chooses by the operation, and casts float32
        weights anew for every batch.
    """

    name: str
    converted: bool = False

    @property
    def dtype(self) -> torch.dtype:
        import torch

        found: torch.dtype = getattr(torch, self.name)
        return found

    @contextmanager
    def computing(self, device: torch.device) -> Iterator[None]:
        """Within it torch computes so; float32 is float32 also where a GPU would round it to TF32."""
        import torch

        cast = self != FLOAT32 and not self.converted
        exact = self == FLOAT32 and device.type == "cuda"
        half = self.dtype if cast else torch.bfloat16
        with torch.autocast(device.type, half, enabled=cast):
            if not exact:
                yield
                return
            with _EXACT:
                yield


FLOAT32 = Arithmetic("float32")


class Chosen(NamedTuple):
    """An arithmetic and the least cosine of its vectors to float32 ones, where that was measured."""

    arithmetic: Arithmetic
    cosine: float | None = None


def candidates(precision: str, device: str) -> tuple[Arithmetic, ...]:
    """What to try on a kind of device before float32, the fastest first.

    Parameters
    ----------
    precision : str
        ``"auto"``, ``"float32"``, ``"float16"`` or ``"bfloat16"``.
    device : str
        ``"cuda"``, ``"cpu"``, …
    """
    if precision == "auto":
        precision = "float16" if device == "cuda" else "float32"
    if precision == "float32":
        return ()
    cast = Arithmetic(precision)
    return (Arithmetic(precision, converted=True), cast) if device == "cuda" else (cast,)


def choose(
    name: str, tried: Sequence[Arithmetic], vectors: Callable[[Arithmetic], Sequence[Vectors]], *, asked: bool
) -> Chosen:
    """The first arithmetic that gives float32's vectors, else float32.

    Parameters
    ----------
    name : str
        Of the network, for messages.
    tried : sequence of Arithmetic
    vectors : callable
        The vectors (n, dim) of each batch of examples in an arithmetic.
    asked : bool
        Somebody wants this precision: the last of `tried` is taken even where its vectors differ, unless they are not finite.

    Raises
    ------
    EncoderError
        What was asked for gives vectors that are not finite.
    """
    exact, cosine = vectors(FLOAT32), math.nan
    for arithmetic in tried:
        cosine = _cosine(arithmetic, vectors, exact)
        if cosine >= AGREEMENT:
            LOG.info("%s computes in %s (least cosine to float32 %.7f).", name, arithmetic.name, cosine)
            return Chosen(arithmetic, cosine)
    precision = tried[-1].name
    if not asked:
        LOG.info("%s computes in float32: in %s its vectors differ (least cosine %.7f).", name, precision, cosine)
        return Chosen(FLOAT32)
    if math.isnan(cosine):
        raise EncoderError(f"{name} cannot be computed in {precision}: its vectors are not finite. Use --precision auto.")
    LOG.warning("%s computes in %s as asked: its vectors differ from float32 (least cosine %.7f).", name, precision, cosine)
    return Chosen(tried[-1], cosine)


def _cosine(arithmetic: Arithmetic, vectors: Callable[[Arithmetic], Sequence[Vectors]], exact: Sequence[Vectors]) -> float:
    """The least cosine to `exact`; not a number where something is not finite, or the network does not run so."""
    import numpy as np

    try:
        found = vectors(arithmetic)
    except EncoderOutOfMemoryError as error:  # weights in two precisions are more than those of one
        LOG.info("%s", without_frames(error))
        return math.nan
    except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:  # a module that insists on float32
        LOG.info("Not in %s: %s", arithmetic.name, one_line(without_frames(error), 200))
        return math.nan
    if not all(np.isfinite(batch).all() for batch in found):
        return math.nan
    return min(agreement(batch, right) for batch, right in zip(found, exact, strict=True))


def converted(module: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Module:
    """A copy of `module` with weights of `dtype`, but for batch norm's and the module's own.

    Batch norm's running variances may be smaller than float16's least number, and torch takes them in float32 beside
    halves; a wrapper's own (`embedstore.encoders.runtimes.wrapped`) are for inputs before they are rounded.
    """
    import torch

    made: Any = copy.deepcopy(module)
    for part in made.modules():
        if part is made or isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
            continue
        for weight in [*part.parameters(recurse=False), *part.buffers(recurse=False)]:
            if weight.is_floating_point():
                weight.data = weight.data.to(dtype)  # in place: weights that modules share stay shared
    if hasattr(made, "takes"):
        made.takes = dtype
    return made  # type: ignore[no-any-return]


class _Exact:
    """Within it a GPU computes float32 in float32, not in TF32; for any number of threads at once, then as it was."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._within = 0
        self._before: list[Any] = []

    def __enter__(self) -> None:
        with self._lock:
            self._within += 1
            if self._within == 1:
                self._before = [getattr(where, name) for where, name, _ in _tf32_switches()]
                for where, name, off in _tf32_switches():
                    setattr(where, name, off)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._within -= 1
            if self._within == 0:
                for (where, name, _), before in zip(_tf32_switches(), self._before, strict=True):
                    setattr(where, name, before)


_EXACT = _Exact()


def _tf32_switches() -> list[tuple[Any, str, Any]]:
    """Where torch is told, and what for no TF32. The older switches must not be touched where there are new ones (2.9)."""
    from torch.backends import cuda, cudnn

    if hasattr(cudnn, "conv"):
        return [(cuda.matmul, "fp32_precision", "ieee"), (cudnn.conv, "fp32_precision", "ieee")]
    return [(cuda.matmul, "allow_tf32", False), (cudnn, "allow_tf32", False)]
