"""`predict`: a saved head on stored items or on new files. The wiring of heads, stores and extraction."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore._arguments import strings
from embedstore._embed import embed
from embedstore.errors import FingerprintError, HeadError, UsageError
from embedstore.heads.io import HeadRecord, load_head
from embedstore.sources import Source
from embedstore.spec import EncoderSpec
from embedstore.store import Store

__all__ = ["Predictions", "predict"]


@dataclass(frozen=True)
class Predictions:
    """What `predict` returns.

    Parameters
    ----------
    ids : (n,) str
    labels : (n,) predicted classes
    probabilities : (n, c) float64
    classes : (c,)
    unusable : list of (id, reason)
        Items without a usable payload in any of the head's inputs.
    """

    ids: npt.NDArray[Any]
    labels: npt.NDArray[Any]
    probabilities: npt.NDArray[np.float64]
    classes: npt.NDArray[Any]
    unusable: list[tuple[str, str]]

    def to_dict(self) -> dict[str, Any]:
        """The document of ``embedstore predict --json``."""
        classes = [str(label) for label in self.classes.tolist()]
        rows = zip(self.ids.tolist(), self.labels.tolist(), self.probabilities.tolist(), strict=True)
        return {
            "predictions": [
                {"id": i, "prediction": label, "probability": round(max(p), 6), "probabilities": _rounded(classes, p)}
                for i, label, p in rows
            ],
            "unusable": [{"id": i, "reason": reason} for i, reason in self.unusable],
        }


def _rounded(classes: list[str], probabilities: list[float]) -> dict[str, float]:
    return {label: round(p, 6) for label, p in zip(classes, probabilities, strict=True)}


def predict(
    store: Store | str | Path,
    head: str,
    dataset: str | os.PathLike[str] | Source | None = None,
    *,
    ids: Sequence[str] | None = None,
    where: str | None = None,
    device: str = "auto",
) -> Predictions:
    """Predict with a saved head.

    Parameters
    ----------
    head : str
        Its name in the store.
    dataset : folder, table, file or Source, optional
        New items: embedded by the encoders the head was trained on, into nothing that is kept. Without it, stored items.
    ids : sequence of str, optional
        Stored items by id; default: all.
    where : str, optional
        Stored items by SQL over the metadata columns.

    Raises
    ------
    HeadError, UsageError
    FingerprintError
        The store's vectors, or the encoders on this machine, are not those the head was trained on.
    """
    opened = store if isinstance(store, Store) else Store.open(store)
    if head not in opened.heads:
        known = ", ".join(opened.heads) or "none yet: embedstore train makes one"
        raise UsageError(f"{opened.path} has no head {head!r}. Heads: {known}.")
    record = load_head(opened.path / "heads" / head)
    if dataset is None:
        _check(record, {name: opened.space(name).spec for name in record.inputs}, str(opened.path))
        return _on_store(record, opened, ids, where)
    if ids is not None or where is not None:
        raise UsageError("ids and where choose stored items; leave them out when a dataset is given.")
    with tempfile.TemporaryDirectory(prefix="embedstore-") as folder:
        return _on_dataset(record, dataset, Path(folder) / "new.store", device)


def _on_store(record: HeadRecord, store: Store, ids: Sequence[str] | None, where: str | None) -> Predictions:
    view = store.view(inputs=list(record.inputs), where=where)
    if ids is not None:
        ids = strings(ids, "ids")
        rows = store.items.rows_of(ids)
        position = {row: i for i, row in enumerate(view.rows.tolist())}
        if absent := [i for i, row in zip(ids, rows.tolist(), strict=True) if row not in position]:
            raise HeadError(f"Item {absent[0]!r} has no vector in {', '.join(record.inputs)}, or does not match --where.")
        view = view.select(np.array([position[row] for row in rows.tolist()], dtype=np.int64))
    probabilities = np.concatenate([record.head.predict_proba(block.inputs, present=block.present) for block in view.blocks()])
    labels = record.head.classes_[probabilities.argmax(axis=1)]
    return Predictions(view.ids, labels, probabilities, record.head.classes_, [])


def _on_dataset(record: HeadRecord, dataset: str | os.PathLike[str] | Source, path: Path, device: str) -> Predictions:
    from embedstore.sources import open_source

    source = open_source(dataset)
    spaces: dict[str, dict[str, str]] = {}
    for name, spec in record.inputs.items():
        if spec.modality in source.modalities:
            spaces.setdefault(spec.modality, {})[name] = spec.name
    if not spaces:
        wanted = ", ".join(sorted({spec.modality for spec in record.inputs.values()}))
        raise UsageError(f"{source.name} has {', '.join(source.modalities)}; head {record.name!r} needs {wanted}.")
    embed(source, path, device=device, dtype="float32", **spaces)  # type: ignore[arg-type]
    new = Store.open(path)
    _check(record, {name: space.spec for name, space in new.spaces.items()}, "this machine's encoders")
    reasons = _unusable(new)
    rows = new.items.rows
    usable = np.zeros(len(rows), bool)
    for space in new.spaces.values():
        usable |= space.has(rows)
    every = new.items.take(rows, ["id"]).column("id").to_pylist()
    unusable = [(i, reasons.get(i, "no payload")) for i, ok in zip(every, usable, strict=True) if not ok]
    ids = np.array(every, dtype=object)[usable]
    inputs, present = {}, {}
    for name, spec in record.inputs.items():
        inputs[name] = np.zeros((len(ids), spec.dim), np.float32)
        present[name] = np.zeros(len(ids), bool)
        if name in new.spaces:
            present[name] = new.spaces[name].has(rows[usable])
            inputs[name][present[name]] = new.spaces[name].take(rows[usable][present[name]])
    probabilities = record.head.predict_proba(inputs, present=present)
    labels = record.head.classes_[probabilities.argmax(axis=1)]
    return Predictions(ids, labels, probabilities, record.head.classes_, unusable)


def _unusable(store: Store) -> dict[str, str]:
    reasons: dict[str, str] = {}
    for space in store.spaces.values():
        table = space.failures
        for item, reason in zip(table.column("id").to_pylist(), table.column("reason").to_pylist(), strict=True):
            reasons[item] = reason
    return reasons


def _check(record: HeadRecord, specs: dict[str, EncoderSpec], where: str) -> None:
    for name, spec in specs.items():
        trained = record.inputs[name]
        if spec.fingerprint != trained.fingerprint:
            raise FingerprintError(
                f"Head {record.name!r} was trained on {trained.label} for input {name!r}; {where} has {spec.label}. "
                "Train it again on these vectors."
            )
