"""What tasks speak in: labels, predictions, and the names of what is judged. Arrays only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore._core.column_types import as_text
from embedstore._core.result_files import distinct
from embedstore.evaluation.metrics import Score

Array = npt.NDArray[Any]
Codes = npt.NDArray[np.int64]
Float = npt.NDArray[np.float64]
Scores = dict[str, Score]

HEAD, KNN, MAJORITY = "head", "knn", "majority"
"""Names of what is judged: the head, a plain kNN, and the baseline of classifiers that always says the most frequent class."""
ALONE = "alone"
"""The name of the heads that each of several targets would have alone."""

CLASSES = "classification"
"""What `Task.heads` is where heads say one class of an item."""
UNBALANCED = "unbalanced"
"""The name of the same head without what helps rare classes."""
UNTUNED = "untuned"
"""The name of the same head with the parameters that it comes with."""
POOLED = "pooled"
"""The name of the same head on the mean of an item's pieces, where it takes all of them."""
MULTILABEL = "multilabel"
"""The task of targets that were split into labels."""
SEVERAL = "several"
"""The task of several targets."""
DEFAULT = "classification"
"""The task of a target that no other one claims."""


@dataclass(frozen=True)
class Labels:
    """What a task makes of a target.

    Parameters
    ----------
    values : (n, …)
        What heads are fitted to.
    truth : (n, …)
        What outputs are compared with: class codes (n,) int64, or the numbers themselves.
    classes : (c,)
        None where the task has no classes.
    """

    values: Array
    truth: Array
    classes: Array

    def __len__(self) -> int:
        return len(self.truth)

    def take(self, items: Array) -> Labels:
        """Those of some items, at positions (m,), with the same classes."""
        return Labels(self.values[items], self.truth[items], self.classes)


@dataclass(frozen=True)
class Predicted:
    """Outputs as people take them.

    Parameters
    ----------
    labels : (n,)
        One an item: a class, a number.
    probabilities : (n, c) float64
    classes : (c,)
        Both without columns where the task has no classes.
    targets : mapping of target to Predicted
        The same of each of several targets; `labels` are mappings then, one an item.
    """

    labels: Array
    probabilities: Float
    classes: Array
    targets: Mapping[str, Predicted] = field(default_factory=dict)

    def class_names(self) -> list[str]:
        """The classes as text; of two with one text, such as 1 and ``"1"``, the second is told apart."""
        return distinct([str(as_text(label)) for label in self.classes.tolist()])
