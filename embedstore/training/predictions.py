"""What `predict` returns: predictions, why they are so, and both as rows, tables and files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore._core.result_files import write_table
from embedstore.training.tasks.base import Predicted, Task

__all__ = ["Explanation", "Predictions"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Explanation:
    """Why an item was predicted so.

    Parameters
    ----------
    contributions : mapping of input to float
        Its Shapley value for the log-probability of the predicted class, for the predicted number, or for the log-odds of the
        most probable of several labels; they add up to that less what the head says of an item of which nothing is known. Of
        several targets each has values of its own: ``TARGET:INPUT``.
    nearest : list of (id, label)
        The training items nearest to it by mean cosine over the head's inputs.
    """

    contributions: dict[str, float]
    nearest: list[tuple[str, str]]

    def to_dict(self) -> dict[str, Any]:
        return {
            "contributions": {name: round(value, 4) for name, value in self.contributions.items()},
            "nearest": [{"id": i, "label": label} for i, label in self.nearest],
        }


@dataclass(frozen=True)
class Predictions:
    """What `predict` returns.

    Parameters
    ----------
    ids : (n,) str
    labels : (n,) predicted classes, or numbers; of several targets mappings
    probabilities : (n, c) float64
    classes : (c,), none where the head predicts numbers
    unusable : list of (id, reason)
        Items without a usable payload in any of the head's inputs.
    explanations : list of Explanation
        One an item, if asked for.
    missing : list of tuple of str
        The head's inputs that each item lacked: it was predicted from the others.
    task : Task
        What they are predictions for, which says how they are written.
    sets : list of list of classes
        With a coverage: the classes, the likeliest first, one of which is the true one as often as was asked. May be empty.
    intervals : list of (low, high)
        The same for numbers.
    targets : mapping of target to Predicted
        What is predicted of each of several targets: its labels (n,), probabilities (n, c) and classes (c,).
    partners : list of str
        Where pairs of different items were asked for: the ids of their second sides.
    """

    ids: Array
    labels: Array
    probabilities: npt.NDArray[np.float64]
    classes: Array
    unusable: list[tuple[str, str]]
    explanations: list[Explanation] = field(default_factory=list)
    missing: list[tuple[str, ...]] = field(default_factory=list)
    task: Task = field(default_factory=Task, repr=False)
    sets: list[list[Any]] = field(default_factory=list)
    intervals: list[tuple[float, float]] = field(default_factory=list)
    targets: Mapping[str, Predicted] = field(default_factory=dict)
    partners: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The document of ``embedstore predict --json``."""
        return {"predictions": self.to_rows(), "unusable": [{"id": i, "reason": reason} for i, reason in self.unusable]}

    def to_rows(self) -> list[dict[str, Any]]:
        """One mapping an item."""
        rows = [{"id": i, **row} for i, row in zip(self.ids.tolist(), self.task.rows(self._predicted()), strict=True)]
        for n, partner in enumerate(self.partners):
            rows[n] = {"id": rows[n]["id"], "with": partner, **rows[n]}
        for row, lacked in zip(rows, self.missing, strict=False):
            row |= {"missing": list(lacked)} if lacked else {}
        for row, among in zip(rows, self.sets, strict=False):
            row["set"] = among
        for row, (low, high) in zip(rows, self.intervals, strict=False):
            row |= {"low": low, "high": high}
        for row, explanation in zip(rows, self.explanations, strict=False):
            row.update(explanation.to_dict())
        return rows

    def _predicted(self) -> Predicted:
        return Predicted(self.labels, self.probabilities, self.classes, self.targets)

    def save(self, path: str | Path) -> Path:
        """Write one row an item to a ``.csv``, ``.parquet`` or ``.jsonl`` file.

        Columns: id, with (the second item of a pair), prediction, probability, ``p:CLASS`` of every class; of several targets
        ``prediction:TARGET``, ``probability:TARGET``, ``p:TARGET:CLASS``; with a coverage ``set``, a list (JSON in a ``.csv``),
        or ``low`` and ``high``; missing, the inputs that an item lacked, if any did; with explanations ``contribution:INPUT``
        and nearest. Unusable items have an id and a reason in the column ``unusable``.

        Raises
        ------
        UsageError
            Another ending, or no such folder.
        OutputError
            The file cannot be written.
        """
        return write_table(path, self._table())

    def _table(self) -> Any:
        import pyarrow as pa

        n, gone = len(self.ids), [None] * len(self.unusable)
        columns: dict[str, Any] = {"id": [*self.ids.tolist(), *(i for i, _ in self.unusable)]}
        columns |= {"with": [*self.partners, *gone]} if self.partners else {}
        columns |= {name: [*values, *gone] for name, values in self.task.columns(self._predicted()).items()}
        if self.sets:
            columns["set"] = pa.array([*self.sets, *gone], pa.list_(pa.array(self.classes.tolist()).type))
        if self.intervals:
            columns |= {name: [*(pair[k] for pair in self.intervals), *gone] for k, name in enumerate(("low", "high"))}
        if any(self.missing):
            lacked = [", ".join(names) or None for names in self.missing]
            columns["missing"] = pa.array([*lacked, *gone], pa.string())
        if self.explanations:
            for name in self.explanations[0].contributions:
                columns[f"contribution:{name}"] = [*(e.contributions[name] for e in self.explanations), *gone]
            columns["nearest"] = [*(" ".join(i for i, _ in e.nearest) for e in self.explanations), *gone]
        if self.unusable:
            columns["unusable"] = [*[None] * n, *(reason for _, reason in self.unusable)]
        return pa.table(columns)
