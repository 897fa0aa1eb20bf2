"""New items for a saved head: embedded by the encoders that it was trained on, into a store that is not kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore._core.message_parts import spelled
from embedstore.encoders import Encoder, reload_encoder
from embedstore.errors import UsageError
from embedstore.heads.io import HeadRecord
from embedstore.ingest.embed import embed
from embedstore.ingest.text_columns import texts_as_text
from embedstore.ingest.typed_batches import Known
from embedstore.sources import open_source
from embedstore.spec import MESSAGE, MODALITIES, SOURCE_WORDS
from embedstore.store import Store
from embedstore.training.predict_options import PredictOptions
from embedstore.training.saved import check_fingerprints


def embedded_for(record: HeadRecord, home: Store, dataset: Any, options: PredictOptions, path: Path) -> Store:
    """A store of the items of `dataset`, with what they have of the head's inputs."""
    named = options.columns or {}
    columns = _text_columns(record, home, named)
    bare = bool(columns) or any(spec.parts for spec in record.inputs.values())
    source = open_source(dataset, {k: v for k, v in named.items() if k in SOURCE_WORDS}, bare=bare)
    spaces: dict[str, dict[str, Encoder]] = {}
    for name, spec in record.inputs.items():
        parts = [part for part in spec.parts or (spec.modality,) if part in (*MODALITIES, MESSAGE)]
        if name in columns or all(part in source.modalities for part in parts):
            asked = f"{name}={spelled(spec.parts)}" if spec.parts else name
            spaces.setdefault(spec.modality, {})[asked] = reload_encoder(
                spec, spec.modality, home=home.path, allowed=home.access.allow_models, device=options.device
            )
    if not spaces:
        wanted = ", ".join(sorted({spec.modality for spec in record.inputs.values()}))
        raise UsageError(f"{source.name} has {', '.join(source.modalities)}; head {record.name!r} needs {wanted}.")
    kinds = {} if record.columns is None else record.columns.kinds()
    kinds |= texts_as_text(set(columns.values()) - set(named.values()))  # may be lacking; a column that is named may not
    known = Known(kinds, f"head {record.name!r}", exact=False)
    embed(source, path, dtype="float32", types=known, columns=columns, **spaces)  # type: ignore[arg-type]
    new = Store.open(path)
    check_fingerprints(record, {name: space.spec for name, space in new.spaces.items()}, "this machine's encoders")
    return new


def _text_columns(record: HeadRecord, home: Store, named: Mapping[str, str]) -> dict[str, str]:
    """Input → the column of a dataset that it is embedded from, of those that have one of their own."""
    found = {}
    for name in record.inputs:
        column = home.spaces[name].info.column if name in home.spaces else None
        if name not in SOURCE_WORDS and (column := named.get(name, column)) is not None:
            found[name] = column
    if strange := [name for name in named if name not in SOURCE_WORDS and name not in record.inputs]:
        raise UsageError(
            f"Head {record.name!r} has no input {strange[0]!r} to embed from column {named[strange[0]]!r}. "
            f"Inputs: {', '.join(record.inputs)}."
        )
    return found


def usable_rows(store: Store) -> tuple[npt.NDArray[np.int64], list[tuple[str, str]]]:
    """Rows with a vector somewhere, and the ids of the others with the reason."""
    reasons: dict[str, str] = {}
    usable = np.zeros(len(store.items.rows), bool)
    for space in store.spaces.values():
        usable |= space.has(store.items.rows)
        table = space.failures
        reasons.update(zip(table.column("id").to_pylist(), table.column("reason").to_pylist(), strict=True))
    gone = store.items.take(store.items.rows[~usable], ["id"]).column("id").to_pylist()
    return store.items.rows[usable], [(i, reasons.get(i, "no payload")) for i in gone]
