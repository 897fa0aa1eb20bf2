"""`repair`: a store without its damaged parts, and what they held embedded again."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore._core.keys import hash_strings
from embedstore._core.words import counted
from embedstore.ingest.embed import embed
from embedstore.ingest.repair_options import RepairOptions
from embedstore.ingest.report import EmbedReport, ProgressCallback
from embedstore.sources import Dataset, open_source
from embedstore.sources.subset import Subset
from embedstore.store import Store, path_of
from embedstore.store.pending import end_repair, pending, removed_ids
from embedstore.store.salvage import Damage, lacks_vectors, take_out

__all__ = ["RepairReport", "repair"]


@dataclass
class RepairReport:
    """What a repair found and did.

    Parameters
    ----------
    damage : Damage
        What was taken out of the store.
    embedded : EmbedReport or None
        What was embedded again; None without a dataset or damage.
    notes : list of str
        What is left to do, each with its command.
    """

    damage: Damage
    embedded: EmbedReport | None = None
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        embedded = None if self.embedded is None else self.embedded.to_dict()
        return {**asdict(self.damage), "embedded": embedded, "notes": self.notes}


def repair(
    store: Store | str | os.PathLike[str],
    dataset: Dataset | None = None,
    *,
    columns: Mapping[str, str] | None = RepairOptions.columns,
    device: str = RepairOptions.device,
    allow_models: Sequence[str | os.PathLike[str]] = RepairOptions.allow_models,
    on_progress: ProgressCallback | None = None,
) -> RepairReport:
    """Take damaged parts out of a store, and embed again what they held.

    Every file is read and compared with its digest. Blocks of vectors that are whole are kept; only the others are computed
    again, from `dataset` with the store's own encoders. Items of `dataset` that the store does not have are left alone, but
    where items themselves are lost: then those that it does not know to have been removed are embedded. A repair that was
    stopped is completed by the same call.

    Parameters
    ----------
    store : Store or path
    dataset : optional
        What was embedded into the store, as `embed` takes it; without it nothing is embedded, and the store is smaller.
    columns, device, allow_models, on_progress
        As `embed` takes them.

    Raises
    ------
    CorruptStoreError
        ``store.json`` or a ``space.json`` is damaged: only a backup brings these back.
    """
    options = RepairOptions(columns=columns, device=device, allow_models=allow_models)
    opened = Store.open(path_of(store), check=False)
    with opened.writer() as writer:
        report = RepairReport(take_out(writer))
        declared = [name for name, space in writer.store.spaces.items() if space.spec.declared]
        computed = [name for name in writer.store.spaces if name not in declared]
    damage, path = report.damage, opened.path
    del opened
    now = Store.open(path)
    removed, lacking = pending(path), lacks_vectors(now)
    if dataset is not None and computed and (lacking or removed is not None):
        source = Subset(open_source(dataset, options.columns), _kept(now, removed))
        report.embedded = embed(source, path, device=options.device, allow_models=options.allow_models, on_progress=on_progress)
        end_repair(path)
        if lacks_vectors(Store.open(path)):
            report.notes.append(
                f"items still lack vectors: {source.name} does not have them. Give the dataset as it was embedded, with the "
                f"same ids: embedstore repair {path} DATASET"
            )
    elif removed is not None or set(damage.vectors) - set(declared):
        report.notes.append(f"embed again what is lost: embedstore repair {_path(store)} DATASET")
    for name in declared:
        if damage.items or name in damage.vectors:
            report.notes.append(
                f"the vectors of space {name!r} were imported: import them again: "
                f"embedstore import SOURCE {_path(store)} --space {name}{' --add-items' if damage.items else ''}"
            )
    if damage.revived:
        report.notes.append(
            f"{counted(damage.revived, 'item')} that had been removed may be back, as the record of it is lost: remove them "
            f"again: embedstore remove {_path(store)} ID, or embed with --prune"
        )
    return report


def _kept(store: Store, removed: list[str] | None) -> Callable[[Sequence[str]], npt.NDArray[np.bool_]]:
    """Which items of a dataset are embedded again: the store's; where items are lost, all but those that were removed."""
    table = store.items.id_table
    if removed is None:
        return lambda ids: table.lookup(hash_strings(ids)) >= 0
    gone = {*removed, *removed_ids(store)}
    return lambda ids: np.asarray([id not in gone for id in ids], np.bool_) | (table.lookup(hash_strings(ids)) >= 0)


def _path(store: Store | str | os.PathLike[str]) -> str:
    return str(path_of(store))
