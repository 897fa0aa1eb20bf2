"""Saving and loading heads: ``head.json``, safetensors and XGBoost's UBJSON; no pickle. A linear head loads without torch.

A head's folder holds what ``head.json`` names; it is replaced last, so a reader sees the old head or the new one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedstore._columns import METADATA, ColumnEncoder
from embedstore._encoding import check_encoding, encoding
from embedstore._files import parquet_table, read_json, sha256_file, write_bytes, write_json
from embedstore.errors import CorruptStoreError, EmbedstoreError, UsageError, one_line
from embedstore.evaluation.bootstrap import Score
from embedstore.heads import Head, head_class, params_of
from embedstore.heads.base import HeadState
from embedstore.spec import EncoderSpec

if TYPE_CHECKING:
    from datetime import datetime

    import pyarrow as pa

WEIGHTS = "weights.safetensors"
PAGE = "report.html"
ALIGN = "align"
"""The kind of head that `heads.align_io` reads."""


@dataclass(frozen=True)
class HeadRecord:
    """A saved head and what it was trained on.

    Parameters
    ----------
    name, target : str
    inputs : mapping of input (space) name to EncoderSpec
        Vectors of another fingerprint are refused.
    head : Head
    report : mapping
        Scores, baselines, split sizes; as JSON.
    columns : ColumnEncoder or None
        How metadata columns become the input ``"metadata"``, if the head takes them.
    """

    name: str
    target: str
    inputs: Mapping[str, EncoderSpec]
    head: Head
    report: Mapping[str, Any] = field(default_factory=dict)
    columns: ColumnEncoder | None = None


def save_head(folder: Path, record: HeadRecord, extra: Mapping[str, bytes], *, page: bytes | None = None) -> None:
    """Write `record` to `folder`, with `extra` files beside it (name → bytes), and `page` for people as ``report.html``."""
    from filelock import FileLock

    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        _save(folder, record, extra)
        if page is None:
            (folder / PAGE).unlink(missing_ok=True)
        else:
            write_bytes(folder / PAGE, page)


def _save(folder: Path, record: HeadRecord, extra: Mapping[str, bytes]) -> None:
    state = record.head.state()
    document = {
        **encoding("embedstore-head"),
        "name": record.name,
        "kind": record.head.kind,
        "params": params_of(record.head),
        "target": record.target,
        "inputs": {name: {"fingerprint": s.fingerprint, "encoder": s.to_dict()} for name, s in record.inputs.items()},
        "columns": None if record.columns is None else record.columns.to_dict(),
        "state": state.config,
        "report": dict(record.report),
    }
    write_files(folder, document, state, extra)


def write_files(folder: Path, document: Mapping[str, Any], state: HeadState, extra: Mapping[str, bytes]) -> None:
    """Write a head's tensors and files, then `document`, which names them, as ``head.json``; remove what it does not name."""
    from safetensors.numpy import save

    weights = save({name: np.ascontiguousarray(value) for name, value in state.tensors.items()})
    files = {}
    for name, data in {WEIGHTS: weights, **state.files, **extra}.items():
        digest = hashlib.sha256(data).hexdigest()
        stem, dot, suffix = name.rpartition(".")
        stored = f"{stem}-{digest[:12]}{dot}{suffix}"
        write_bytes(folder / stored, data)
        files[name] = {"file": stored, "sha256": digest}
    write_json(folder / "head.json", {**document, "files": files})
    keep = {"head.json", PAGE, *(entry["file"] for entry in files.values())}
    for path in folder.iterdir():
        if path.name not in keep and path.is_file():
            path.unlink()


def load_head(folder: Path) -> HeadRecord:
    """The head in `folder`, its files compared with their digests.

    Raises
    ------
    UsageError
        A kind that this embedstore does not know.
    CorruptStoreError
    """
    path = folder / "head.json"
    document = read_json(path)
    check_encoding(document, "embedstore-head", str(path))
    if document.get("kind") == ALIGN:
        raise UsageError(
            f"Head {folder.name!r} aligns {' with '.join(document.get('inputs', ()))} for search; it predicts nothing. "
            f'Use it: embedstore search {folder.parent.parent} --text "…" --space {folder.name}.SPACE'
        )
    try:
        return _restore(folder, document)
    except EmbedstoreError:
        raise
    except Exception as error:  # whatever a library says of values that no head has
        raise CorruptStoreError(f"{path} is damaged ({one_line(repr(error), 200)}). Train the head again.") from error


def kind_of(folder: Path) -> str | None:
    """The kind of the head in `folder`; None where there is none."""
    path = folder / "head.json"
    return str(read_json(path).get("kind")) if path.is_file() else None


def replaced_note(folder: Path) -> str | None:
    """What a head that is now saved to `folder` replaces: its name, when it was saved, its score. None where there is none."""
    from datetime import datetime

    path = folder / "head.json"
    try:
        return _described(folder.name, read_json(path), datetime.fromtimestamp(path.stat().st_mtime))
    except (EmbedstoreError, OSError, LookupError, AttributeError, TypeError, ValueError, StopIteration):
        return None  # a damaged one is no loss


def _described(name: str, document: Mapping[str, Any], saved: datetime) -> str:
    report = document.get("report") or {}
    ways = report.get("retrieval") or {"": {"scores": report.get("metrics") or {}}}  # an alignment's, or a head's
    way, retrieval = next(iter(ways.items()))
    metric, score = next(iter(retrieval["scores"].items()), ("", {}))
    known = all(isinstance(value, float) for value in score.values())  # JSON has no NaN
    scored = (
        f", {' '.join([way, metric]).strip()} {Score.from_dict(score)}: {report.get('evaluation')}" if score and known else ""
    )
    return (
        f"head {name!r} ({document.get('kind')} on {' + '.join(document.get('inputs', ()))}, saved "
        f"{saved:%Y-%m-%d %H:%M}{scored}) was replaced; --name keeps both"
    )


def read_split(folder: Path) -> pa.Table:
    """``split.parquet``, saved beside a head, compared with its digest.

    Raises
    ------
    CorruptStoreError
    """
    entry = read_json(folder / "head.json")["files"].get("split.parquet")
    if entry is None:
        raise CorruptStoreError(f"{folder} has no split.parquet. Train the head again.")
    return parquet_table(_read(folder, entry))


def _read(folder: Path, entry: Mapping[str, str]) -> bytes:
    path = folder / entry["file"]
    if not path.is_file() or sha256_file(path) != entry["sha256"]:
        raise CorruptStoreError(f"{path} is missing or differs from what was saved. Train the head again.")
    return path.read_bytes()


def read_files(folder: Path, document: Mapping[str, Any]) -> HeadState:
    """The state that `write_files` wrote, each file compared with its digest."""
    from safetensors.numpy import load

    contents = {name: _read(folder, entry) for name, entry in document["files"].items()}
    return HeadState(document["state"], load(contents.pop(WEIGHTS)), contents)


def _restore(folder: Path, document: Mapping[str, Any]) -> HeadRecord:
    state = read_files(folder, document)
    head = head_class(document["kind"]).from_state(document["params"], state)
    specs = {name: EncoderSpec.from_dict(entry["encoder"]) for name, entry in document["inputs"].items()}
    columns = ColumnEncoder.from_dict(document["columns"]) if document.get("columns") else None
    name, target, report = document["name"], document["target"], document["report"]
    if not (isinstance(name, str) and isinstance(target, str) and isinstance(report, dict)):
        raise ValueError(f"its name, target or report is {name!r}, {target!r}, {type(report).__name__}")
    record = HeadRecord(name, target, specs, head, report, columns)
    _try(record)
    return record


def _try(record: HeadRecord) -> None:
    """Predict two items, so that a state which fits nothing shows itself here and nowhere else."""
    head, dims = record.head, record.head.dims_
    width = {name: spec.dim for name, spec in record.inputs.items()}
    if any(dims.get(name) != dim for name, dim in width.items()) or set(dims) - set(width) > {METADATA}:
        raise ValueError(f"its inputs are {dims}, those of its encoders {width}")
    inputs = {name: np.zeros((2, dim), np.float32) for name, dim in dims.items()}
    numbers = head.task == "regression"
    found = np.asarray(head.predict(inputs) if numbers else head.predict_log_proba(inputs))
    expected = (2,) if numbers else (2, len(head.classes_))
    if found.shape != expected or found.dtype.kind != "f":
        raise ValueError(f"it predicts {found.dtype}{found.shape}, expected {expected}")
