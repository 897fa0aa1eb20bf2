"""A head, a kind of dataset and an encoder, as a package from outside would bring them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
from toy_task import Levels

from embedstore.encoders import EncoderRequest
from embedstore.exporting.base import Slice
from embedstore.exporting.export_folder import FolderExporter
from embedstore.heads import Head, RidgeRegressor
from embedstore.heads.base import Data, HeadState
from embedstore.sources import MemorySource, SourceRequest
from embedstore.spec import EncoderSpec


class NearestMean(Head):
    """The class whose mean is nearest."""

    kind = "nearest_mean"

    def _stacked(self, data: Data) -> Any:
        return np.concatenate([np.where(data.present[name][:, None], x, 0) for name, x in data.inputs.items()], axis=1)

    def _fit(self, train: Data, validation: Data) -> None:
        x = self._stacked(train)
        self.means_ = np.stack([x[train.codes == code].mean(axis=0) for code in range(len(self.classes_))])

    def _logits(self, data: Data) -> Any:
        return -((self._stacked(data)[:, None] - self.means_[None]) ** 2).sum(axis=2)

    def _state(self) -> HeadState:
        return HeadState(tensors={"means": self.means_})

    def _restore(self, state: HeadState) -> None:
        self.means_ = state.tensors["means"]


def counting(asked: SourceRequest) -> MemorySource | None:
    """count:N, the digits 0 to 6 again and again"""
    if not asked.text.startswith("count:"):
        return None
    digits = [i % 7 for i in range(int(asked.text.removeprefix("count:")))]
    return MemorySource(
        {
            "id": [f"n{i}" for i in range(len(digits))],
            "text": [str(digit) for digit in digits],
            "label": ["low" if digit < 3 else "high" for digit in digits],
            "grade": [1 + digit % 3 for digit in digits],
        }
    )


class Digits:
    batch_size = 32
    truncated = 0

    def __init__(self, request: EncoderRequest) -> None:
        self.spec = EncoderSpec(
            name=request.name, family="digits", model="one-hot", weights="none", modality=request.modality, dim=7
        )

    def prepare(self, payload: bytes) -> bytes:
        return payload

    def encode(self, batch: Any) -> Any:
        return np.eye(7, dtype=np.float32)[[int(payload) for payload in batch]]

    def provenance(self) -> dict[str, str]:
        return {}


def digits(request: EncoderRequest) -> Digits:
    """digits: one of seven."""
    return Digits(request)


class RidgeGrades(RidgeRegressor):
    """A ridge regression of grades."""

    kind, task = "ridge_grades", "grades"


class Graded(Levels):
    """Grades, for which the package has heads of its own."""

    name, heads = "graded", "grades"


class Lines(FolderExporter):
    """One JSON object an item"""

    kind = "lines"
    dtypes = ("float32",)

    def files(self, number: int) -> list[str]:
        return [f"{number}.jsonl"]

    def write(self, number: int, items: Slice) -> None:
        columns = {"id": items.ids, **items.metadata.to_pydict(), **{name: x.tolist() for name, x in items.vectors.items()}}
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        self.path(self.files(number)[0]).write_text("".join(json.dumps(row) + "\n" for row in rows))

    def read(self, number: int, *, vectors: bool = True) -> Any:
        table = pa.Table.from_pylist([json.loads(line) for line in self.path(self.files(number)[0]).read_text().splitlines()])
        names = [column.column for column in self._plan.vectors]
        found = {name: np.asarray(table.column(name).to_pylist(), np.float32) for name in names}
        return table.drop_columns(names), {name: (x, np.ones(len(x), bool)) for name, x in found.items()}
