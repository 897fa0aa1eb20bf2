"""Saving and loading aligners: ``head.json`` and safetensors as for every head, in the same folder; no pickle."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from embedstore._core.encoding import encoding
from embedstore.errors import CorruptStoreError, HeadError
from embedstore.heads.aligner import Aligner
from embedstore.heads.io import ALIGN, HEAD, PAGE, SPLIT, changing, kind_of, read_generation, state_of, write_files
from embedstore.spec import EncoderSpec

__all__ = ["AlignRecord", "load_aligner", "save_aligner"]


@dataclass(frozen=True)
class AlignRecord:
    """A saved aligner and what it was fitted on.

    Parameters
    ----------
    name : str
    inputs : mapping of space name to EncoderSpec
        The two sides; vectors of another fingerprint are not projected.
    head : Aligner
    report : mapping
        Scores and sizes; as JSON.
    split : bytes or None
        The ``split.parquet`` that was saved with it; see `embedstore.heads.io.read_split`.
    """

    name: str
    inputs: Mapping[str, EncoderSpec]
    head: Aligner
    report: Mapping[str, Any] = field(default_factory=dict)
    split: bytes | None = field(default=None, repr=False)

    def weights_digest(self, side: str) -> str:
        """Hexadecimal SHA-256 of the projection of one side."""
        mean, weight = self.head.mean_[side], self.head.weight_[side]
        digest = hashlib.sha256(f"{weight.shape}".encode())
        for array in (mean, weight):
            digest.update(np.ascontiguousarray(array, "<f4").tobytes())
        return digest.hexdigest()

    @property
    def alignment(self) -> str:
        """What the two projected spaces share and no others do: a digest of both encoders and both projections."""
        parts = [f"{side} {spec.fingerprint} {self.weights_digest(side)}" for side, spec in self.inputs.items()]
        return "align:" + hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def save_aligner(folder: Path, record: AlignRecord, extra: Mapping[str, bytes]) -> None:
    """Write `record` to `folder`, with `extra` files beside it (name → bytes).

    Raises
    ------
    HeadError
        The folder holds a head of another kind, which is not replaced.
    """
    with changing(folder) as opened:
        if (kind := kind_of(folder)) not in (None, ALIGN):
            raise HeadError(f"{folder} is a head of kind {kind!r} and is not replaced. Choose another name: --name NAME.")
        params = {name: list(v) if isinstance(v, tuple) else v for name, v in record.head.get_params().items()}
        document = {
            **encoding("embedstore-head"),
            "name": record.name,
            "kind": ALIGN,
            "params": params,
            "inputs": {name: {"fingerprint": s.fingerprint, "encoder": s.to_dict()} for name, s in record.inputs.items()},
            "alignment": record.alignment,
            "report": dict(record.report),
        }
        state = record.head.state()
        write_files(opened, {**document, "state": state.config}, state, extra)
        opened.unlink(PAGE)


def load_aligner(folder: Path) -> AlignRecord:
    """The aligner in `folder`, its files compared with their digests.

    Raises
    ------
    HeadError
        A head of another kind.
    CorruptStoreError
    """
    return read_generation(folder, _accept, _restore)


def _accept(folder: Path, document: Mapping[str, Any]) -> None:
    if document.get("kind") != ALIGN:
        raise HeadError(f"Head {folder.name!r} is of kind {document.get('kind')!r}, not an alignment.")


def _restore(folder: Path, document: Mapping[str, Any], contents: dict[str, bytes]) -> AlignRecord:
    split = contents.pop(SPLIT, None)
    head = Aligner.from_state(document["params"], state_of(document, contents))
    inputs = {name: EncoderSpec.from_dict(entry["encoder"]) for name, entry in document["inputs"].items()}
    record = AlignRecord(folder.name, inputs, head, document["report"], split)
    recorded = document["alignment"]
    if record.alignment != recorded or list(inputs) != list(head.names_):
        raise CorruptStoreError(
            f"{folder / HEAD} does not describe its weights (alignment {recorded}). Align the spaces again."
        )
    return record
