"""Saving and loading heads: ``head.json`` and safetensors, no pickle, no torch.

A head's folder holds what ``head.json`` names; it is replaced last, so a reader sees the old head or the new one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from embedstore._files import read_json, sha256_file, write_bytes, write_json
from embedstore.errors import CorruptStoreError, HeadError
from embedstore.heads._features import Standardizer
from embedstore.heads.linear import LinearHead
from embedstore.spec import EncoderSpec

KIND = "embedstore-head"


@dataclass(frozen=True)
class HeadRecord:
    """A saved head and what it was trained on.

    Parameters
    ----------
    name, target : str
    inputs : mapping of input (space) name to EncoderSpec
        Vectors of another fingerprint are refused.
    head : LinearHead
    report : mapping
        Scores, baselines, split sizes; as JSON.
    """

    name: str
    target: str
    inputs: Mapping[str, EncoderSpec]
    head: LinearHead
    report: Mapping[str, Any] = field(default_factory=dict)


def save_head(folder: Path, record: HeadRecord, encoding: Mapping[str, Any], extra: Mapping[str, bytes]) -> None:
    """Write `record` to `folder`, with `extra` files beside it (name → bytes)."""
    from safetensors.numpy import save

    head = record.head
    tensors = {"weight": head.weight_, "bias": head.bias_}
    for name in head.standardizer_.inputs_:
        tensors[f"mean.{name}"] = head.standardizer_.mean_[name]
        tensors[f"scale.{name}"] = head.standardizer_.scale_[name]
    folder.mkdir(parents=True, exist_ok=True)
    contents = {"weights.safetensors": save({k: np.ascontiguousarray(v) for k, v in tensors.items()}), **extra}
    files = {}
    for name, data in contents.items():
        digest = hashlib.sha256(data).hexdigest()
        stem, dot, suffix = name.partition(".")
        stored = f"{stem}-{digest[:12]}{dot}{suffix}"
        write_bytes(folder / stored, data)
        files[stored] = digest
    document = {
        **encoding,
        "name": record.name,
        "kind": head.kind,
        "target": record.target,
        "classes": head.classes_.tolist(),
        "alpha": head.alpha_,
        "objective": head.objective_,
        "inputs": {name: {"fingerprint": s.fingerprint, "encoder": s.to_dict()} for name, s in record.inputs.items()},
        "report": dict(record.report),
        "files": files,
    }
    write_json(folder / "head.json", document)
    for path in folder.iterdir():
        if path.name not in files and path.name != "head.json":
            path.unlink()


def load_head(folder: Path) -> HeadRecord:
    """The head in `folder`, its files compared with their digests.

    Raises
    ------
    HeadError, CorruptStoreError
    """
    from safetensors.numpy import load_file

    document = read_json(folder / "head.json")
    if document.get("kind") != LinearHead.kind:
        raise HeadError(f"{folder} holds a head of kind {document.get('kind')!r}; known is {LinearHead.kind!r}.")
    for file, digest in document["files"].items():
        if not (folder / file).is_file() or sha256_file(folder / file) != digest:
            raise CorruptStoreError(f"{folder / file} is missing or differs from what was saved. Train the head again.")
    weights = next(file for file in document["files"] if file.startswith("weights"))
    tensors = load_file(folder / weights)
    head = LinearHead(alpha=document["alpha"])
    head.alpha_, head.objective_ = document["alpha"], document["objective"]
    labels = document["classes"]
    head.classes_ = np.array(labels, dtype=object if isinstance(labels[0], str) else None)
    head.weight_, head.bias_ = tensors["weight"], tensors["bias"]
    head.standardizer_ = Standardizer()
    head.standardizer_.inputs_ = list(document["inputs"])
    head.standardizer_.mean_ = {name: tensors[f"mean.{name}"] for name in document["inputs"]}
    head.standardizer_.scale_ = {name: tensors[f"scale.{name}"] for name in document["inputs"]}
    specs = {name: EncoderSpec.from_dict(entry["encoder"]) for name, entry in document["inputs"].items()}
    return HeadRecord(document["name"], document["target"], specs, head, document["report"])
