"""Networks on OpenVINO: converted from torch once, kept on disk under their fingerprint, used only where they agree with torch.

A converted network starts without torch, which takes seconds to import.
"""

from __future__ import annotations

import os
import shutil
import sys
import warnings
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from embedstore._digests import check_digest
from embedstore._files import cache_home, read_json, sha256_file, write_json
from embedstore.encoders.base import Vectors
from embedstore.encoders.network import Array, Network, agreement
from embedstore.errors import EncoderError, EncoderOutOfMemoryError, StoreError, one_line, reason_of
from embedstore.registry import require

AGREEMENT = 0.9999
VERSION = 1
NETWORK = "network.xml"
CONFIG = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}


class OpenVinoModel:
    """A converted network.

    Parameters
    ----------
    file : Path
        ``.xml`` beside its ``.bin``.
    cosine : float
        The least cosine to torch's vectors that was measured.
    """

    def __init__(self, file: Path, cosine: float) -> None:
        self._file = file
        self._cosine = cosine

    @cached_property
    def _compiled(self) -> Any:
        return openvino().Core().compile_model(str(self._file), "CPU", CONFIG)

    @cached_property
    def _request(self) -> Any:
        return self._compiled.create_infer_request()

    def __call__(self, *inputs: Array) -> Vectors:
        try:
            found = self._request.infer(list(inputs), share_inputs=True)
        except RuntimeError as error:
            if "alloc" in str(error).lower():
                raise EncoderOutOfMemoryError("The CPU ran out of memory.") from error
            raise
        return np.array(found[0], np.float32)

    def provenance(self) -> Mapping[str, str]:
        version = openvino().get_version().split("-")[0]
        return {"openvino": version, "device": "cpu", "precision": "float32", "cosine_to_torch": f"{self._cosine:.7f}"}


def open_network(network: Network, *, required: bool) -> OpenVinoModel | None:
    """`network` on OpenVINO; None where its vectors are not torch's.

    Parameters
    ----------
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
        record = {"cosine": -1.0, "why": f"it cannot be kept in {folder.parent} ({reason_of(error)})"}
    if record["cosine"] >= AGREEMENT:
        return OpenVinoModel(folder / NETWORK, record["cosine"])
    if required:
        raise EncoderError(
            f"OpenVINO does not give {network.name}'s vectors: {record['why'] or 'cosine to torch ' + str(record['cosine'])}. "
            "Use --runtime torch."
        )
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
    beside = folder.with_name(f"{folder.name}.{os.getpid()}")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        cosine, why = _compared(network, beside / NETWORK), ""
    except (RuntimeError, TypeError, ValueError, AttributeError, NotImplementedError) as error:
        cosine, why = -1.0, f"it cannot be converted ({one_line(error, 200)})"
    if cosine < AGREEMENT:
        for path in beside.iterdir():
            path.unlink()
    files = {path.name: (path.stat().st_size, sha256_file(path)) for path in beside.iterdir()}
    record = {"name": network.name, "cosine": cosine, "why": why, "files": files}
    write_json(beside / "network.json", record)
    shutil.rmtree(folder, ignore_errors=True)
    try:
        os.replace(beside, folder)
    except OSError:  # another process was quicker
        shutil.rmtree(beside, ignore_errors=True)
        return _record(folder) or {**record, "cosine": -1.0, "why": "two processes converted it at once"}
    return record


def _compared(network: Network, file: Path) -> float:
    """Write the converted network to `file`; its least cosine to torch on the examples."""
    import torch

    from embedstore.encoders.runtime import TorchModel, TorchRuntime

    module = network.load().eval().float()
    batches = network.examples()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing: whether the network is the same is measured
        converted = openvino().convert_model(
            module,
            example_input=tuple(torch.from_numpy(array) for array in batches[0]),
            input=[openvino().PartialShape(list(shape)) for shape in network.shapes],
        )
    openvino().save_model(converted, str(file), compress_to_fp16=False)
    ours, theirs = OpenVinoModel(file, 1.0), TorchModel(TorchRuntime("cpu", "float32"), module)
    return min(agreement(ours(*batch), theirs(*batch)) for batch in batches)
