"""Conformal sets and intervals: their coverage against its target, and equality with MAPIE's own call."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from embedstore.errors import HeadError, MissingDependencyError
from embedstore.evaluation.conformal import class_sets, number_intervals

Array = np.ndarray[Any, Any]


def drawn(n: int, seed: int, shares: tuple[float, ...] = (0.6, 0.3, 0.1)) -> tuple[Array, Array]:
    """Probabilities (n, c) of an overconfident model, and classes drawn from the true ones; some classes are rare."""
    rng = np.random.default_rng(seed)
    codes = rng.choice(len(shares), n, p=shares)
    logits = 1.2 * np.eye(len(shares))[codes] + rng.normal(0, 1, (n, len(shares))) + np.log(shares)
    p = np.exp(2 * logits)
    return p / p.sum(axis=1, keepdims=True), codes


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_sets_cover_what_was_asked(coverage: float) -> None:
    found = []
    for seed in range(40):
        (p, codes), (asked, truth) = drawn(500, seed), drawn(500, 1000 + seed)
        found.append(class_sets(p, codes, asked, coverage)[np.arange(500), truth].mean())
    assert np.mean(found) == pytest.approx(coverage, abs=0.01)


def test_each_class_is_covered_where_that_is_asked() -> None:
    """The rare class is covered much less than the others without, and as often as they with it."""
    hits: dict[bool, list[Array]] = {False: [], True: []}
    for seed in range(40):
        (p, codes), (asked, truth) = drawn(600, seed), drawn(600, 1000 + seed)
        for by_class, of in hits.items():
            hit = class_sets(p, codes, asked, 0.9, by_class=by_class)[np.arange(600), truth]
            of.append(np.array([hit[truth == k].mean() for k in range(3)]))
    without, with_it = (np.mean(of, axis=0) for of in hits.values())
    assert without[2] < 0.8
    assert (with_it > 0.88).all()
    assert (with_it < 0.93).all()


def test_a_class_with_too_few_items_is_in_every_set() -> None:
    p, codes = drawn(200, 0, (0.67, 0.3, 0.03))
    assert 0 < (codes == 2).sum() <= 10
    assert class_sets(p, codes, p, 0.9, by_class=True)[:, 2].all()


def test_it_is_what_mapie_says() -> None:
    from mapie.classification import SplitConformalClassifier
    from mapie.regression import SplitConformalRegressor
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

    class Given(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
        classes_ = np.arange(3)

        def fit(self, X: Array, y: Array) -> Given:
            return self

        def predict_proba(self, X: Array) -> Array:
            return X

        def predict(self, X: Array) -> Array:
            return np.asarray(X.argmax(axis=1))

    class Same(RegressorMixin, BaseEstimator):  # type: ignore[misc]
        fitted_ = True

        def fit(self, X: Array, y: Array) -> Same:
            return self

        def predict(self, X: Array) -> Array:
            return X[:, 0]

    (p, codes), (asked, _) = drawn(400, 0), drawn(100, 1)
    theirs = SplitConformalClassifier(Given(), confidence_level=0.85, prefit=True).conformalize(p, codes).predict_set(asked)
    assert (class_sets(p, codes, asked, 0.85) == theirs[1][:, :, 0]).all()
    rng = np.random.default_rng(0)
    x = rng.normal(0, 3, 300)
    y = x + rng.normal(0, 1, 300)
    regressor = SplitConformalRegressor(Same(), confidence_level=0.85, prefit=True).conformalize(x[:, None], y)
    expected = regressor.predict_interval(x[:50, None])[1][:, :, 0]
    np.testing.assert_array_equal(number_intervals(x, y, x[:50], 0.85), expected)


def test_intervals_cover_what_was_asked() -> None:
    found = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        x = rng.normal(0, 3, 800)
        y = x + rng.standard_t(4, 800)
        low, high = number_intervals(x[:400], y[:400], x[400:], 0.9).T
        found.append(((low <= y[400:]) & (y[400:] <= high)).mean())
    assert np.mean(found) == pytest.approx(0.9, abs=0.01)


def test_nothing_asked_and_too_few_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    p, codes = drawn(60, 0)
    assert class_sets(p, codes, p[:0], 0.9).shape == (0, 3)
    assert number_intervals(p[:, 0], p[:, 1], p[:0, 0], 0.9).shape == (0, 2)
    with pytest.raises(HeadError, match=r"coverage of 0\.99 needs more than 100 .*; the head keeps 60"):
        class_sets(p, codes, p, 0.99)
    for module in [m for m in sys.modules if m.startswith("mapie")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "mapie", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'embedstore\[conformal\]'"):
        class_sets(p, codes, p, 0.9)
