"""Networks on OpenVINO: converted from torch once, kept on disk under their fingerprint, used only where they agree with torch.

A converted network starts without torch, which takes seconds to import.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import threading
import warnings
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from embedstore._core.atomic_files import cache_home, read_json, sha256_file, write_json
from embedstore._core.digests import check_digest
from embedstore.encoders.base import Vectors
from embedstore.encoders.runtimes.base import CPU_PADDING, Array, Model, Network, Pending, agreement, cpu_has_bfloat16
from embedstore.encoders.runtimes.packing import PackedModel, pack
from embedstore.encoders.runtimes.pytorch import TorchModel, TorchRuntime
from embedstore.errors import EncoderError, EncoderOutOfMemoryError, StoreError, one_line, reason_of
from embedstore.registry import require

AGREEMENT = {"bf16": 0.99995, "f32": 0.9999}
"""The least cosine to torch. Rounding to bfloat16 varies from payload to payload, and the examples are few."""
VERSION = 4
NETWORK = "network.xml"
PACKED_SHAPES = ((-1, -1), (-1, -1), (-1, -1, -1))
PIECE_TOKENS = 512
SMALL_PIECE, PIECE, SMALL = 2, 8, 64 << 20
"""Images of one piece, in a network with fewer bytes of weights than `SMALL` and in others.

What layers hand on should stay in a core's cache, but weights have to be fetched for every piece.
"""
_CORE_LOCK = threading.Lock()
LOG = logging.getLogger(__name__)


class OpenVinoModel:
    """A converted network; batches are cut into pieces, each for one core, so that none waits for another inside the network.

    Parameters
    ----------
    file : Path
        ``.xml`` beside its ``.bin``.
    arithmetic : str
        ``"f32"`` or ``"bf16"``.
    cosine : float
        The least cosine to torch's float32 vectors that was measured.
    """

    padding, row = CPU_PADDING, 0

    def __init__(self, file: Path, arithmetic: str, cosine: float) -> None:
        self._file = file
        self._arithmetic = arithmetic
        self._cosine = cosine
        self._free: deque[Any] = deque()  # requests that nobody waits for; taken and given back from any thread

    @cached_property
    def _streams(self) -> int:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    @cached_property
    def _compiled(self) -> Any:
        config = {"INFERENCE_PRECISION_HINT": self._arithmetic, "PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": self._streams}
        return _core().compile_model(str(self._file), "CPU", config)

    @cached_property
    def _small(self) -> bool:
        return self._file.with_suffix(".bin").stat().st_size < SMALL

    def start(self, *inputs: Array) -> Pending:
        n = len(inputs[0])
        rounds = -(-n // (self._rows(inputs[0]) * self._streams))
        bounds = np.linspace(0, n, min(n, rounds * self._streams) + 1).astype(int).tolist()
        running: list[Any] = []
        with _memory_errors():
            try:
                for lo, hi in pairwise(bounds):
                    request = self._request()
                    request.start_async([array[lo:hi] for array in inputs], share_inputs=True)
                    running.append(request)
            except RuntimeError:
                _waited(running)  # they read the inputs
                raise

        def wait() -> Vectors:
            with _memory_errors():
                if errors := _waited(running):
                    raise errors[0]
            vectors = np.concatenate([np.asarray(request.get_output_tensor(0).data, np.float32) for request in running])
            self._free.extend(running)
            return vectors

        return wait

    def _rows(self, batch: Array) -> int:
        """Rows of one piece of `batch`: images (n, h, w, 4), or tokens (n, length)."""
        if batch.ndim == 2:
            return max(1, PIECE_TOKENS // int(batch.shape[1]))
        return SMALL_PIECE if self._small else PIECE

    def _request(self) -> Any:
        try:
            return self._free.pop()
        except IndexError:
            return self._compiled.create_infer_request()

    def __call__(self, *inputs: Array) -> Vectors:
        return self.start(*inputs)()

    def provenance(self) -> Mapping[str, str]:
        version = openvino().get_version().split("-")[0]
        names = {"f32": "float32", "bf16": "bfloat16"}
        cosine = f"{self._cosine:.7f}"
        return {"openvino": version, "device": "cpu", "precision": names[self._arithmetic], "cosine_to_torch": cosine}


def open_network(network: Network, precision: str, *, required: bool) -> Model | None:
    """`network` on OpenVINO; None where its vectors are not torch's.

    Parameters
    ----------
    precision : str
        ``"auto"`` computes in bfloat16 where the processor does so natively and the vectors still are torch's.
    required : bool
        Raise instead of returning None.

    Raises
    ------
    EncoderError
        It cannot be converted, or its vectors differ.
    """
    folder = cache_home() / "converted" / f"{network.fingerprint}-{openvino().get_version().split('-')[0]}-{VERSION}"
    try:
        record = _record(folder) or _convert(network, folder)
    except OSError as error:
        record = {"cosine": {}, "packed": False, "why": f"it cannot be kept in {folder.parent} ({reason_of(error)})"}
    cosines = record["cosine"]
    for arithmetic in ("bf16", "f32") if precision == "auto" and cpu_has_bfloat16() else ("f32",):
        if cosines.get(arithmetic, -1) >= AGREEMENT[arithmetic]:
            return _model(folder / NETWORK, arithmetic, cosines[arithmetic], packed=record["packed"])
    if required:
        why = record["why"] or f"cosine to torch {cosines.get('f32')}"
        raise EncoderError(f"OpenVINO does not give {network.name}'s vectors: {why}. Use --runtime torch.")
    return None


def openvino() -> ModuleType:
    """The module, imported without its telemetry: nothing is sent anywhere."""
    silenced = "openvino" not in sys.modules and "openvino_telemetry" not in sys.modules
    if silenced:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        return require("openvino", extra="cpu")
    finally:
        if silenced:
            del sys.modules["openvino_telemetry"]


def _waited(requests: Sequence[Any]) -> list[RuntimeError]:
    """Wait for all of them; what went wrong."""
    errors = []
    for request in requests:
        try:
            request.wait()
        except RuntimeError as error:
            errors.append(error)
    return errors


@contextmanager
def _memory_errors() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if "alloc" in str(error).lower():
            raise EncoderOutOfMemoryError("The CPU ran out of memory.") from error
        raise


def _core() -> Any:
    """The one of this process, never let go: each gives the thread a stack for signals and frees it when it goes.

    Of two that are let go in the order they were made, the second puts the freed stack of the first back, and the next
    signal, such as Ctrl-C, ends the process (OpenVINO 2026.4, `SigAltStackSetup`).
    """
    with _CORE_LOCK:
        return _made_once()


@lru_cache(maxsize=1)
def _made_once() -> Any:
    return openvino().Core()


def _model(file: Path, arithmetic: str, cosine: float, *, packed: bool) -> Model:
    model = OpenVinoModel(file, arithmetic, cosine)
    return PackedModel(model) if packed else model


def _record(folder: Path) -> dict[str, Any] | None:
    """What is known of an earlier conversion; None where there is none, or its files are not as they were written."""
    try:
        record = read_json(folder / "network.json")
        for name, (size, sha256) in record["files"].items():
            check_digest(folder / name, size, sha256)
    except (StoreError, OSError, KeyError, ValueError, TypeError):
        return None
    return record


def _convert(network: Network, folder: Path) -> dict[str, Any]:
    """Convert, compare with torch on the examples, and keep the outcome, good or bad."""
    LOG.info("Converting %s for OpenVINO. It is kept: this takes a while only once.", network.name)
    beside = folder.with_name(f"{folder.name}.{os.getpid()}")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    cosine, why, packed = {}, "", False
    for packed in (True, False) if network.packed else (False,):
        try:
            cosine, why = _compared(network, beside / NETWORK, packed=packed), ""
        except (RuntimeError, TypeError, ValueError, AttributeError, NotImplementedError) as error:
            cosine, why = {}, f"it cannot be converted ({one_line(error, 200)})"
        if any(found >= AGREEMENT[arithmetic] for arithmetic, found in cosine.items()):
            break
        for path in beside.iterdir():
            path.unlink()
    files = {path.name: (path.stat().st_size, sha256_file(path)) for path in beside.iterdir()}
    record = {"name": network.name, "cosine": cosine, "packed": packed, "why": why, "files": files}
    write_json(beside / "network.json", record)
    shutil.rmtree(folder, ignore_errors=True)
    try:
        os.replace(beside, folder)
    except OSError:  # another process was quicker
        shutil.rmtree(beside, ignore_errors=True)
        return _record(folder) or {**record, "cosine": {}, "why": "two processes converted it at once"}
    return record


def _compared(network: Network, file: Path, *, packed: bool) -> dict[str, float]:
    """Write the converted network to `file`; its least cosine to torch on the examples, by arithmetic."""
    import torch

    module = network.load().eval().float()
    batches = network.examples()
    traced, example, shapes = module, batches[0], network.shapes
    if packed and network.packed is not None:
        rows = pack(*example)
        traced, example, shapes = network.packed(module), (rows.ids, rows.positions, rows.members), PACKED_SHAPES
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing: whether the network is the same is measured
        converted = openvino().convert_model(
            traced,
            example_input=tuple(torch.from_numpy(array) for array in example),
            input=[openvino().PartialShape(list(shape)) for shape in shapes],
        )
    openvino().save_model(converted, str(file), compress_to_fp16=False)
    expected = [TorchModel(TorchRuntime("cpu", "float32"), module)(*batch) for batch in batches]
    cosine = {}
    for arithmetic in ("bf16", "f32") if cpu_has_bfloat16() else ("f32",):
        model = _model(file, arithmetic, 1.0, packed=packed)
        cosine[arithmetic] = min(agreement(model(*batch), right) for batch, right in zip(batches, expected, strict=True))
    return cosine
