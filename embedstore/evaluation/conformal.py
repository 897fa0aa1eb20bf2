"""Conformal sets and intervals, calibrated on predictions of models that did not see the items: MAPIE's split conformal.

Sadinle, Lei & Wasserman 2019, "Least Ambiguous Set-Valued Classifiers With Bounded Error Levels"; by class: Vovk 2012.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.errors import HeadError
from embedstore.registry import require

__all__ = ["class_sets", "number_intervals"]

Array = npt.NDArray[Any]
Codes = npt.NDArray[np.int64]


class _Classes:
    """A classifier whose input is what it says of it, for MAPIE."""

    def __init__(self, classes: int) -> None:
        self.classes_ = np.arange(classes)
        self.n_features_in_ = classes

    def fit(self, X: Array, y: Array) -> None:
        """Nothing is left to learn."""

    def predict_proba(self, X: Array) -> Array:
        return X

    def predict(self, X: Array) -> Array:
        return np.asarray(X.argmax(axis=1))


class _Numbers:
    """A regressor whose only input is what it says of it, for MAPIE."""

    n_features_in_ = 1

    def __init__(self) -> None:
        self.fitted_ = True

    def fit(self, X: Array, y: Array) -> None:
        """Nothing is left to learn."""

    def predict(self, X: Array) -> Array:
        return np.asarray(X[:, 0])


def class_sets(
    probabilities: Array, codes: Codes, asked: Array, coverage: float, *, by_class: bool = False
) -> npt.NDArray[np.bool_]:
    """Which classes are in the set of each asked item (m, c): those that are likely enough.

    What is enough holds the true class as often as asked. A set may be empty: no class is as likely as the true one mostly is.

    Parameters
    ----------
    probabilities, codes : (n, c), (n,)
        Of items that the set is calibrated on, by models that did not see them, and their classes.
    asked : (m, c)
    coverage : float
        The share of the items whose true class is to be in their set.
    by_class : bool
        Whether it is to be that share of each class (Mondrian). A class with too few items to tell is in every set.

    Raises
    ------
    HeadError
        There are too few items for this coverage.
    MissingDependencyError
        Without MAPIE: the extra ``conformal``.
    """
    known, new = (_normalised(p) for p in (probabilities, asked))
    if not by_class:
        _check_enough(len(codes), coverage)
        return _sets(known, codes, new, coverage)
    sets = np.ones(new.shape, bool)
    for k in range(new.shape[1]):
        mine = codes == k
        if mine.sum() > _least(coverage):
            sets[:, k] = _sets(known[mine], codes[mine], new, coverage)[:, k]
    return sets


def number_intervals(predicted: Array, truth: Array, asked: Array, coverage: float) -> npt.NDArray[np.float64]:
    """The interval (m, 2) around each asked number (m,) that holds the true one as often as asked; all are of one width.

    Parameters
    ----------
    predicted, truth : (n,), (n,)
        Of items that it is calibrated on, by models that did not see them.
    asked : (m,)
    coverage : float

    Raises
    ------
    HeadError, MissingDependencyError
        As `class_sets`.
    """
    _check_enough(len(truth), coverage)
    regressor = require("mapie.regression", extra="conformal").SplitConformalRegressor
    found = regressor(_Numbers(), confidence_level=coverage, prefit=True).conformalize(predicted[:, None], truth)
    return np.asarray(found.predict_interval(asked[:, None])[1][:, :, 0], np.float64) if len(asked) else np.empty((0, 2))


def _sets(probabilities: Array, codes: Codes, asked: Array, coverage: float) -> npt.NDArray[np.bool_]:
    classifier = require("mapie.classification", extra="conformal").SplitConformalClassifier
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*less labels than your training", category=UserWarning)
        found = classifier(_Classes(asked.shape[1]), confidence_level=coverage, prefit=True)
        found = found.conformalize(probabilities, codes)
        return np.asarray(found.predict_set(asked)[1][:, :, 0], bool) if len(asked) else np.empty(asked.shape, bool)


def _normalised(probabilities: Array) -> npt.NDArray[np.float64]:
    p = np.asarray(probabilities, np.float64)
    return np.asarray(p / p.sum(axis=1, keepdims=True))  # float32 in the file, and MAPIE wants them to add up


def _least(coverage: float) -> float:
    """A quantile of that level is known of more items than this."""
    return max(1 / coverage, 1 / (1 - coverage))


def _check_enough(n: int, coverage: float) -> None:
    if n <= _least(coverage):
        raise HeadError(
            f"A coverage of {coverage:g} needs more than {_least(coverage):.0f} out-of-fold predictions; the head keeps {n:,}. "
            "Ask for another, or train the head on more items."
        )
