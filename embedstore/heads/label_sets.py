"""What every head for several labels is: an item has any number of them, and each is decided at a threshold of its own.

The same contract as classifiers, with log-odds of each label in place of log-probabilities of classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from embedstore._core.threads import bounded
from embedstore.errors import HeadError
from embedstore.heads.base import (
    VALIDATION_SHARE,
    Array,
    Codes,
    Data,
    Float,
    Head,
    HeadState,
    Inputs,
    Mask,
    as_labels,
    check_inputs,
    class_folds,
)

FEW_POSITIVES = 5
"""Held-out items that a label needs for a threshold of its own; the others share one."""
LEAST_FOLDED = 20
"""Items from which a part may be set aside."""


class Labeller(Head):
    """Base class of heads that give an item any number of labels; subclasses say how in `_fit` and `_logits`.

    `Data.codes` holds indicators (n, c) uint8. `_logits` are log-odds.

    Attributes
    ----------
    thresholds_ : (c,) float64
        Probabilities from which a label is given; the best F1 on items that the head did not learn from.
    """

    task = "multilabel"

    thresholds_: Float

    @bounded()
    def fit(
        self,
        X: Inputs,
        y: Array,
        *,
        present: Mapping[str, Mask] | None = None,
        validation: tuple[Inputs, Array, Mapping[str, Mask] | None] | None = None,
    ) -> Self:
        """Fit to inputs and label sets.

        Parameters
        ----------
        y : (n,) collections of labels
            A label that occurs twice in an item counts once; an empty one is an item without labels.

        Raises
        ------
        HeadError
            Fewer than two items, no label at all, shapes that do not fit, or values that are not finite.
        """
        inputs, masks = self._accept(X, present)
        n = len(next(iter(inputs.values())))
        sets = label_sets(y, n)
        self.dims_ = {name: vectors.shape[-1] for name, vectors in inputs.items()}
        check_inputs(inputs, masks, self.dims_)
        every = sets
        if validation is not None:
            v_inputs, v_masks = self._accept(validation[0], validation[2])
            check_inputs(v_inputs, v_masks, self.dims_)
            every = sets + label_sets(validation[1], len(next(iter(v_inputs.values()))))
        if n < 2:
            raise HeadError(f"A head for several labels needs at least two items. Got {n}.")
        self.classes_ = labels_of(every)
        codes = indicators(every, self.classes_)
        train = Data(inputs, masks, codes[:n])
        if validation is not None:
            held_out = Data(v_inputs, v_masks, codes[n:])
        elif n < LEAST_FOLDED:
            held_out = train
        else:
            aside = class_folds(rarest(train.codes), round(1 / VALIDATION_SHARE)) == 0
            train, held_out = (train.take(~aside), train.take(aside)) if aside.any() else (train, train)
        return self.fit_data(train, held_out, self.classes_)

    @bounded()
    def fit_data(self, train: Data, validation: Data, classes: Array) -> Self:
        super().fit_data(train, validation, classes)
        self.thresholds_ = self._thresholds(train, validation)
        return self

    def _thresholds(self, train: Data, validation: Data) -> Float:
        return best_thresholds(*self._held_out(train, validation))

    def _held_out(self, train: Data, validation: Data) -> tuple[Float, Array]:
        """Log-odds (m, c) of items that the head did not learn from, and their indicators (m, c)."""
        return self.log_odds(validation), validation.codes

    def log_odds(self, data: Data) -> Float:
        """Log-odds (n, c) of checked data."""
        return np.asarray(self._logits(data), np.float64)

    def log_proba(self, data: Data) -> Float:
        """Logarithms of the labels' probabilities (n, c) of checked data; they do not add up to one."""
        return -np.logaddexp(0, -self.log_odds(data))

    def outputs(self, X: Inputs, *, present: Mapping[str, Mask] | None = None) -> Float:
        """Log-odds (n, c), in the order of `classes_`."""
        log_p = self.predict_log_proba(X, present=present)
        return log_p - np.log(-np.expm1(np.minimum(log_p, -1e-300)))

    def predict(self, X: Inputs, *, present: Mapping[str, Mask] | None = None) -> Array:
        """Label sets (n,), each a list in the order of `classes_`."""
        return self.decided(self.outputs(X, present=present))

    def decided(self, outputs: Float) -> Array:
        """The label sets (n,) in log-odds (n, c), each a list."""
        given = outputs >= log_odds_of(self.thresholds_)
        return np.fromiter((self.classes_[row].tolist() for row in given), object, len(given))

    def score(self, X: Inputs, y: Array, *, present: Mapping[str, Mask] | None = None) -> float:
        """The mean F1 of an item's labels; 1 where there are none and none is given."""
        given = [set(labels) for labels in self.predict(X, present=present).tolist()]
        pairs = zip(given, map(set, label_sets(y, len(given))), strict=True)
        return float(np.mean([2 * len(a & b) / (len(a) + len(b)) if a or b else 1.0 for a, b in pairs]))

    def state(self) -> HeadState:
        own = super().state()
        return HeadState({**own.config, "thresholds": self.thresholds_.tolist()}, own.tensors, own.files)

    @classmethod
    def from_state(cls, params: Mapping[str, Any], state: HeadState) -> Self:
        head = super().from_state(params, state)
        head.thresholds_ = np.asarray(state.config["thresholds"], np.float64)
        if head.thresholds_.shape != (len(head.classes_),):
            raise ValueError(f"it has {head.thresholds_.size} thresholds for {len(head.classes_)} labels")
        return head


def label_sets(y: Iterable[Any], n: int) -> list[list[Any]]:
    """The labels of `n` items, or a `HeadError` that names the first item that has none such."""
    found = list(y)
    if len(found) != n:
        raise HeadError(f"y should have {n} collections of labels, one an item. Got {len(found)} instead.")
    for i, labels in enumerate(found):
        if isinstance(labels, str | bytes | Mapping) or not isinstance(labels, Iterable):
            raise HeadError(f"y should have a collection of labels for each item. Item {i} has {labels!r} instead.")
    return [list(labels) for labels in found]


def labels_of(sets: Sequence[Iterable[Any]]) -> Array:
    """The labels (c,) that occur, in order; at least one."""
    found = {label for labels in sets for label in labels}
    if not found:
        raise HeadError(f"None of {len(sets)} items has a label; a head for several labels needs one.")
    try:
        return as_labels(sorted(found))
    except TypeError as error:
        raise HeadError("The labels are of kinds that have no order among them, such as text and numbers.") from error


def indicators(sets: Sequence[Iterable[Any]], classes: Array) -> npt.NDArray[np.uint8]:
    """Which of `classes` each item has (n, c)."""
    code = {label: k for k, label in enumerate(classes.tolist())}
    out = np.zeros((len(sets), len(code)), np.uint8)
    for row, labels in zip(out, sets, strict=True):
        row[[code[label] for label in labels]] = 1
    return out


def rarest(codes: Array) -> Codes:
    """The rarest label of each item (n,), of indicators (n, c), for folds; c for an item without labels."""
    count = codes.sum(axis=0, dtype=np.int64)
    ranked = np.where(codes > 0, count, np.iinfo(np.int64).max)
    return np.asarray(np.where(codes.any(axis=1), ranked.argmin(axis=1), codes.shape[1]), np.int64)


def log_odds_of(probabilities: Float) -> Float:
    """Logits of probabilities, those of 0 and 1 finite."""
    p = np.clip(probabilities, 1e-12, 1 - 1e-12)
    return np.asarray(np.log(p) - np.log1p(-p))


def best_thresholds(log_odds: Float, truth: Array) -> Float:
    """The probability (c,) at which each label has the best F1 on held-out items (m, c).

    A label with few positive items there gets the one that serves all labels together.
    """
    few = truth.sum(axis=0) < FEW_POSITIVES
    shared = _best_cut(log_odds.ravel(), truth.ravel()) if few.any() else 0.0
    cuts = [shared if rare else _best_cut(log_odds[:, k], truth[:, k]) for k, rare in enumerate(few)]
    return np.asarray(1 / (1 + np.exp(-np.array(cuts))))


def _best_cut(log_odds: Float, truth: Array) -> float:
    """The log-odds, midway between two of `log_odds` (m,), from which on F1 is best; 0 where no item is positive."""
    if not truth.any():
        return 0.0
    order = np.argsort(-log_odds, kind="stable")
    score, hits = log_odds[order], np.cumsum(truth[order], dtype=np.float64)
    ends = np.flatnonzero(np.append(np.diff(score) != 0, True))  # a cut takes all items that tie
    f1 = 2 * hits[ends] / (ends + 1 + hits[-1])
    at = ends[int(f1.argmax())]
    return float(score[at] - 1.0 if at + 1 == len(score) else (score[at] + score[at + 1]) / 2)
