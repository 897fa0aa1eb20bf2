"""What a report shows (`ReportData`): scores, figures' numbers, mistakes. Knows no head, no store and no page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.evaluation.ladder import Step
from embedstore.evaluation.metrics import Score

__all__ = ["METRIC_NAMES", "Confusion", "Mistake", "ReportData", "Section"]

METRIC_NAMES = {
    "mean_score": "mean over targets",
    "macro_f1": "macro F1",
    "micro_f1": "micro F1",
    "weighted_f1": "weighted F1",
    "item_f1": "F1 of an item's labels",
    "macro_ap": "mAP",
    "micro_ap": "mAP, micro",
    "f1": "F1",
    "r2": "R²",
    "mae": "mean absolute error",
    "rmse": "root mean squared error",
    "ece": "calibration error",
    "brier": "Brier score",
    "nll": "log loss",
    "auroc": "AUROC",
    "auprc": "AUPRC",
}


@dataclass(frozen=True)
class Mistake:
    """An evaluated item that the head got wrong.

    Parameters
    ----------
    probability : float
        Of the predicted class; NaN where the head has none.
    text : str, optional
    thumbnail : bytes, optional
        A small JPEG, or an SVG.
    nearest : sequence of str
        Ids of the nearest training items.
    alone : mapping of input to str
        What each input of the item says alone, where they do not agree.
    shown : str
        What the thumbnail shows: an image, a waveform or a frame.
    """

    id: str
    true: str
    predicted: str
    probability: float
    text: str | None = None
    thumbnail: bytes | None = None
    nearest: Sequence[str] = ()
    alone: Mapping[str, str] = field(default_factory=dict)
    shown: str = "image"


@dataclass(frozen=True)
class Confusion:
    """Items of one class that the head took for another one.

    Parameters
    ----------
    items : int
        How many there are.
    mistakes : sequence of Mistake
        Those that it was surest of, the surest first.
    """

    true: str
    predicted: str
    items: int
    mistakes: Sequence[Mistake]


@dataclass(frozen=True)
class Section:
    """A table that a task adds to the page, under a heading of its own.

    Parameters
    ----------
    title : str
    note : str
        One line: how to read it.
    columns : sequence of str
        The first one names the row.
    rows : sequence of rows
        Text, numbers or scores.
    """

    title: str
    note: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True, eq=False)  # arrays have no single truth value to compare by
class ReportData:
    """All that a report can show; what is absent is left out of the page.

    Parameters
    ----------
    title : str
        The head's name.
    facts : mapping of label to value
        In the order to show them: kind, target, inputs, what it was evaluated on, seed, date.
    metrics : mapping of metric to Score
        The first one is the headline.
    baselines : mapping of baseline to metrics
    gain : (str, Score), optional
        A baseline, and the gain of the head over it in the headline metric, paired by item.
    notes : sequence of str
        Warnings a reader must see before the numbers.
    ladder : sequence of Step
    seeds : sequence of float
        Accuracy by seed.
    history : sequence of mapping
        By epoch: any of ``train_loss``, ``val_loss``, ``train_accuracy``, ``val_accuracy``.
    classes : sequence of str, (c,)
    confusion : (c, c) int, optional
        Rows are true classes.
    per_class : sequence of mapping
        Rows of a table: ``class``, ``support``, ``precision``, ``recall``, ``f1``.
    reliability : sequence of (mean confidence, accuracy, count)
    subsets : mapping of inputs to Score
        Accuracy of ``"image"``, ``"text"``, ``"image + text"``.
    shapley : mapping of input to float
    permutation : mapping of input to Score
        Drop in accuracy when the input is shuffled among the items.
    missing : mapping of line to sequence of (share removed in 0…1, accuracy)
    mistakes : sequence of Mistake
        Most confident first.
    regression : (true (n,), predicted (n,)), optional
    sections : sequence of Section
        What only this head's task has to show.
    lead : str
        What the page is, before the title.
    mistakes_title, mistakes_note : str
        Above the mistakes, and how to read them.
    confusions : sequence of Confusion
        The confident mistakes by what was taken for what.
    confusions_note : str
        Of which items they are.
    disagreements : sequence of Mistake
        Items whose inputs alone say different classes, whether the head is right or not.
    """

    title: str
    facts: Mapping[str, str]
    metrics: Mapping[str, Score]
    baselines: Mapping[str, Mapping[str, Score]] = field(default_factory=dict)
    gain: tuple[str, Score] | None = None
    notes: Sequence[str] = ()
    ladder: Sequence[Step] = ()
    seeds: Sequence[float] = ()
    history: Sequence[Mapping[str, float]] = ()
    classes: Sequence[str] = ()
    confusion: npt.NDArray[np.int64] | None = None
    per_class: Sequence[Mapping[str, float | str]] = ()
    reliability: Sequence[tuple[float, float, int]] = ()
    subsets: Mapping[str, Score] = field(default_factory=dict)
    shapley: Mapping[str, float] = field(default_factory=dict)
    permutation: Mapping[str, Score] = field(default_factory=dict)
    missing: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)
    mistakes: Sequence[Mistake] = ()
    regression: tuple[npt.NDArray[Any], npt.NDArray[Any]] | None = None
    sections: Sequence[Section] = ()
    lead: str = "Evaluation report of the head"
    mistakes_title: str = "Most confident mistakes"
    mistakes_note: str = (
        "Look here first for wrong labels: where the head is sure and the label disagrees, the label may be at fault."
    )
    confusions: Sequence[Confusion] = ()
    confusions_note: str = ""
    disagreements: Sequence[Mistake] = ()
