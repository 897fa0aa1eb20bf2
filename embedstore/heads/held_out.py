"""`OutOfFold`: what models that did not see them say of the items that a head was trained from, as a Parquet file beside it."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from embedstore._core.atomic_files import parquet_table
from embedstore._core.column_types import as_text
from embedstore._core.encoding import check_encoding, encoding
from embedstore._core.result_files import distinct
from embedstore.errors import HeadError
from embedstore.heads.base import as_labels
from embedstore.heads.io import out_of_fold_file, read_files

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["TEST", "OutOfFold", "load_out_of_fold"]

Array = npt.NDArray[Any]

KIND = "embedstore-out-of-fold"
TEST = "test"
"""The fold of items of the test split: the head itself predicts them."""
CLASS, ALONE = "p:", "only:"
"""What the names of columns begin with: the probability of a class, the prediction from one input."""


@dataclass(frozen=True, eq=False)  # arrays have no single truth value to compare by
class OutOfFold:
    """Predictions for each of the n labelled items of a head, each by a model that was fitted without the item.

    Parameters
    ----------
    rows : (n,) int64
    ids : (n,) object (str)
    target : (n,)
        The labels, or numbers, when the head was trained.
    fold : (n,) object (str)
        ``"0"``, ``"1"``, …: the item was predicted by a head that was fitted on the other folds. ``"test"``: it is of the test
        split, and the head itself predicts it.
    predicted : (n,)
    probabilities : (n, c) float32
    classes : (c,)
        Both without columns where the head predicts numbers.
    alone : mapping of input to (n,) object
        Predictions of a plain linear head on that input alone; None where the item lacks it. Empty where there is one input.
    """

    rows: npt.NDArray[np.int64]
    ids: Array
    target: Array
    fold: Array
    predicted: Array
    probabilities: npt.NDArray[np.float32]
    classes: Array
    alone: Mapping[str, Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def crossed(self) -> npt.NDArray[np.bool_]:
        """Which items (n,) were predicted out of fold; the others are of the test split."""
        return np.asarray(self.fold != TEST, bool)

    @property
    def codes(self) -> npt.NDArray[np.int64]:
        """The position in `classes` of each item's label (n,)."""
        code = {label: i for i, label in enumerate(self.classes.tolist())}
        return np.array([code[label] for label in self.target.tolist()], np.int64)

    def take(self, items: Array) -> OutOfFold:
        """Those of some items: a mask (n,) or positions (m,)."""
        alone = {name: found[items] for name, found in self.alone.items()}
        arrays = {name: getattr(self, name)[items] for name in ("rows", "ids", "target", "fold", "predicted", "probabilities")}
        return replace(self, **arrays, alone=alone)

    def to_table(self) -> pa.Table:
        """One row an item: row, id, target, fold, predicted, ``p:CLASS`` of every class, ``only:INPUT`` of every input."""
        import pyarrow as pa

        names = distinct([str(as_text(label)) for label in self.classes.tolist()])
        columns: dict[str, Any] = {
            "row": self.rows,
            "id": pa.array(self.ids.tolist(), pa.string()),
            "target": self.target.tolist(),
            "fold": pa.array(self.fold.tolist(), pa.string()),
            "predicted": self.predicted.tolist(),
            **{f"{CLASS}{name}": self.probabilities[:, k] for k, name in enumerate(names)},
            **{f"{ALONE}{name}": found.tolist() for name, found in self.alone.items()},
        }
        described = {**encoding(KIND), "classes": json.dumps(self.classes.tolist())}
        return pa.table(columns).replace_schema_metadata({key: str(value) for key, value in described.items()})

    def to_parquet(self) -> bytes:
        """The table as the bytes of a Parquet file."""
        import pyarrow.parquet as pq

        buffer = io.BytesIO()
        pq.write_table(self.to_table(), buffer, compression="zstd")
        return buffer.getvalue()

    @classmethod
    def from_parquet(cls, data: bytes, where: str) -> OutOfFold:
        """What `to_parquet` wrote to `where`."""
        table = parquet_table(data)
        described = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        check_encoding(described, KIND, where)
        columns = {name: table.column(name) for name in table.column_names}
        probabilities = [column.to_numpy() for name, column in columns.items() if name.startswith(CLASS)]
        return cls(
            rows=columns["row"].to_numpy(),
            ids=np.array(columns["id"].to_pylist(), object),
            target=as_labels(columns["target"].to_pylist()),
            fold=np.array(columns["fold"].to_pylist(), object),
            predicted=as_labels(columns["predicted"].to_pylist()),
            probabilities=np.column_stack(probabilities) if probabilities else np.empty((len(table), 0), np.float32),
            classes=as_labels(json.loads(described["classes"])),
            alone={
                name.removeprefix(ALONE): np.array(column.to_pylist(), object)
                for name, column in columns.items()
                if name.startswith(ALONE)
            },
        )


def load_out_of_fold(folder: Path, part: int | None = None) -> OutOfFold:
    """The out-of-fold predictions of the head in `folder`, of its only target or of that at position `part`.

    They are compared with their digest.

    Raises
    ------
    HeadError
        It keeps none.
    CorruptStoreError
    """
    name = out_of_fold_file(part)
    held = read_files(folder, [name, out_of_fold_file(0)])
    if name in held:
        return OutOfFold.from_parquet(held[name], f"{name} of head {folder.name!r}")
    if held and part is None:
        raise HeadError(f"Head {folder.name!r} has several targets, and keeps out-of-fold predictions of each: name one.")
    raise HeadError(
        f"Head {folder.name!r} keeps no out-of-fold predictions: it was trained without them (--out-of-fold 0), before "
        "they were kept, or for several labels an item, of which none are kept. Train it again: --replace."
    )
