"""Heads in ONNX files, as `export_head` writes them: onnxruntime is all that runs them. What a file says is checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from embedstore._core.encoding import check_encoding, encoding
from embedstore._core.foreign_files import remember, try_once
from embedstore._core.metadata_features import ColumnEncoder
from embedstore._core.threads import idle
from embedstore.errors import CorruptStoreError, EmbedstoreError, HeadError, one_line, reason_of
from embedstore.heads.base import Array, Data, Float, Head, as_labels, log_softmax
from embedstore.heads.io import HeadRecord
from embedstore.heads.label_sets import Labeller, log_odds_of
from embedstore.heads.regressors import Regressor
from embedstore.heads.several_targets import TargetsHead
from embedstore.registry import require
from embedstore.spec import EncoderSpec

__all__ = ["SUFFIX", "OnnxModel", "described", "load_onnx", "onnx_record"]

KIND = "embedstore-onnx-head"
SUFFIX = ".onnx"
EXTRA = "onnx"
LIBRARY = "onnxruntime"
BLOCK = 256
"""Items asked about at once: some heads compare each with every item that they were trained on."""
LEAST = 1e-37
"""A probability that float32 holds as a normal number."""
TOLD = ("task", "separator", "least_items")
"""What a report says that predictions need."""


class OnnxModel(Head):
    """What heads in ONNX files share, whatever they predict."""

    _session: Any

    def ask(self, data: Data) -> list[Array]:
        """What the model gives out for checked data: (n, …) float32 each, one unless there are several targets."""
        found = [self._ask(data.take(np.arange(lo, min(lo + BLOCK, len(data))))) for lo in range(0, len(data), BLOCK)]
        return [np.concatenate(parts) for parts in zip(*found, strict=True)]

    def _ask(self, data: Data) -> list[Array]:
        try:
            return [np.asarray(value) for value in self._session.run(None, feed(data))]
        except Exception as error:  # onnxruntime has no class of its own for them
            raise HeadError(f"onnxruntime cannot run the model: {one_line(error, 200)}") from error


class OnnxClassifier(OnnxModel):
    """One class of an item."""

    kind = "onnx"

    def _logits(self, data: Data) -> Array:
        return _logs(self.ask(data)[0])


class OnnxLabeller(Labeller, OnnxModel):
    """Any number of labels."""

    kind = "onnx_multilabel"

    def _logits(self, data: Data) -> Array:
        return log_odds_of(self.ask(data)[0].astype(np.float64))


class OnnxRegressor(Regressor, OnnxModel):
    """A number."""

    kind = "onnx_regression"

    def values(self, data: Data) -> Float:
        return self.ask(data)[0].astype(np.float64)


class OnnxTargets(TargetsHead, OnnxModel):
    """Several targets, each a class or a number."""

    kind = "onnx_several"

    def values(self, data: Data) -> list[Float]:
        said = zip(self.ask(data), self.classes_, strict=True)
        return [log_softmax(_logs(values)) if len(known) else values.astype(np.float64) for values, known in said]


_MODELS: tuple[type[OnnxModel], ...] = (OnnxClassifier, OnnxLabeller, OnnxRegressor, OnnxTargets)
MODELS: dict[str, type[OnnxModel]] = {model.task: model for model in _MODELS}
"""By what heads predict; see `Head.task`."""


def feed(data: Data) -> dict[str, Array]:
    """The model's inputs: ``NAME`` (n, d) float32, and where there are several ``NAME:present`` (n,) bool."""
    inputs = {name: np.asarray(x, np.float32) for name, x in data.inputs.items()}
    return inputs | ({f"{name}:present": mask for name, mask in data.present.items()} if len(inputs) > 1 else {})


def described(record: HeadRecord, **more: Any) -> dict[str, str]:
    """The metadata of a model: JSON texts by name, all that a prediction needs beside the graph.

    Parameters
    ----------
    more : JSON values
        What else is to be told.
    """
    head = record.head
    said = {
        **encoding(KIND),
        "name": record.name,
        "kind": head.kind,
        "target": record.target,
        "predicts": head.task,
        "classes": _classes(head),
        "dims": head.dims_,
        "fingerprints": {name: spec.fingerprint for name, spec in record.inputs.items()},
        "encoders": {name: spec.to_dict() for name, spec in record.inputs.items()},
        "columns": None if record.columns is None else record.columns.to_dict(),
        "report": {name: record.report[name] for name in TOLD if name in record.report},
        **({"thresholds": head.thresholds_.tolist()} if isinstance(head, Labeller) else {}),
        **({"targets": head.targets_} if isinstance(head, TargetsHead) else {}),
        **more,
    }
    return {name: json.dumps(value, ensure_ascii=False) for name, value in said.items()}


def load_onnx(path: Path) -> HeadRecord:
    """The head in an ONNX file, which a child process loads first unless it was made here.

    Raises
    ------
    HeadError
        It cannot be read, or is no head of embedstore's.
    MissingDependencyError
        Without onnxruntime: the extra ``onnx``.
    """
    require(LIBRARY, extra=EXTRA)
    try:
        model = path.read_bytes()
    except OSError as error:
        raise HeadError(f"{path} cannot be read: {reason_of(error)}.") from error
    try:
        try_once(LIBRARY, hashlib.sha256(model).hexdigest(), f"{__name__}:check_model", data=model)
        return onnx_record(model, str(path))
    except CorruptStoreError as error:
        raise HeadError(f"{path} is no head that can be used: {one_line(error, 250)} Export the head again.") from error


def onnx_record(model: bytes, where: str) -> HeadRecord:
    """The head in the bytes of a model."""
    session = _session(model)
    try:
        said = {name: json.loads(text) for name, text in session.get_modelmeta().custom_metadata_map.items()}
    except ValueError as error:
        raise CorruptStoreError("its metadata is not JSON.") from error
    if "encoding-type" not in said:
        raise CorruptStoreError("embedstore export-head did not write it.")
    check_encoding(said, KIND, where)
    try:
        return _record(session, said)
    except EmbedstoreError:
        raise
    except Exception as error:  # whatever is said of values that no head has
        raise CorruptStoreError(f"its metadata is damaged ({one_line(repr(error), 120)}).") from error


def keep(model: bytes) -> None:
    """Note that a model was made here, so that no child has to try it."""
    remember(LIBRARY, hashlib.sha256(model).hexdigest())


def check_model(model: bytes) -> None:
    """Load a model and ask it about two items; runs in a child process."""
    head = onnx_record(model, "the model").head
    head.outputs({name: np.zeros((2, dim), np.float32) for name, dim in head.dims_.items()})


def _record(session: Any, said: Mapping[str, Any]) -> HeadRecord:
    made = MODELS[said["predicts"]]()
    made._session = session
    made.dims_ = {str(name): int(dim) for name, dim in said["dims"].items()}
    made.calibration_ = 1.0
    if isinstance(made, OnnxTargets):
        made._restore_targets(said["targets"], said["classes"])
    else:
        made.classes_ = as_labels(said["classes"])
    if isinstance(made, OnnxLabeller):
        made.thresholds_ = np.asarray(said["thresholds"], np.float64)
    specs = {name: EncoderSpec.from_dict(encoder) for name, encoder in said["encoders"].items()}
    if any(made.dims_.get(name) != spec.dim for name, spec in specs.items()):
        raise ValueError(f"its inputs are {made.dims_}")
    columns = ColumnEncoder.from_dict(said["columns"]) if said["columns"] else None
    return HeadRecord(str(said["name"]), str(said["target"]), specs, made, dict(said["report"]), columns)


def _classes(head: Head) -> list[Any]:
    """The classes (c,) as JSON values, those (t, c) of each of several targets, or none."""
    if isinstance(head, TargetsHead):
        return [known.tolist() for known in head.classes_]
    return list(head.classes_.tolist()) if hasattr(head, "classes_") else []


def _logs(probabilities: Array) -> Array:
    return np.log(np.maximum(probabilities, LEAST))


def _session(model: bytes) -> Any:
    runtime = require(LIBRARY, extra=EXTRA)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = idle()
    options.log_severity_level = 3
    try:
        return runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has no class of its own for them
        raise CorruptStoreError(f"onnxruntime cannot load it ({one_line(error, 150)}).") from error
