"""The closed-form core against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from embedstore.heads.solvers.gram import RidgeFit, gram_folds, score_subsets, shapley

DIMS = {"a": 12, "b": 7, "c": 5}


@pytest.fixture(scope="module")
def data():  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(0)
    n = 600
    inputs = {name: (rng.standard_normal((n, d)) + 0.5).astype(np.float16) for name, d in DIMS.items()}
    x = np.concatenate([v.astype(np.float64) for v in inputs.values()], axis=1)
    y = x[:, :3] @ rng.standard_normal((3, 4)) + 0.5 * x[:, 13:14] + rng.standard_normal((n, 4))
    return inputs, x, y, rng.integers(0, 5, n)


def folds_of(data, block: int = 128):  # type: ignore[no-untyped-def]
    inputs, _, y, fold = data
    slices = [slice(lo, lo + block) for lo in range(0, len(y), block)]
    blocks = (({k: v[s] for k, v in inputs.items()}, y[s], fold[s]) for s in slices)
    return gram_folds(blocks, DIMS, 4, 5)


def test_every_ridge_equals_scikit_learn(data) -> None:  # type: ignore[no-untyped-def]
    _, x, y, fold = data
    grams = folds_of(data)
    penalties = [0.1, 10.0, 1000.0]
    scores = {s.inputs: s for s in score_subsets(grams, DIMS, penalties)}
    assert len(scores) == 7
    edges = dict(zip(DIMS, [(0, 12), (12, 19), (19, 24)], strict=True))
    spread = ((y - y.mean(axis=0)) ** 2).sum()
    for subset in (("a",), ("b", "c"), ("a", "b", "c")):
        columns = np.concatenate([np.arange(*edges[name]) for name in subset])
        for i, penalty in enumerate(penalties):
            error = 0.0
            for k in range(5):
                model = Ridge(alpha=penalty).fit(x[fold != k][:, columns], y[fold != k])
                error += ((model.predict(x[fold == k][:, columns]) - y[fold == k]) ** 2).sum()
            assert scores[subset].r2[i] == pytest.approx(1 - error / spread, rel=1e-4)
    total = grams[0] + grams[1] + grams[2] + grams[3] + grams[4]
    weight, bias = RidgeFit.of(total).coefficients(10.0)
    whole = Ridge(alpha=10.0).fit(x, y)
    np.testing.assert_allclose(weight, whole.coef_.T, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(bias, whole.intercept_, rtol=1e-4, atol=1e-5)


def test_blocks_do_not_matter(data) -> None:  # type: ignore[no-untyped-def]
    for a, b in zip(folds_of(data, 64), folds_of(data, 600), strict=True):
        np.testing.assert_allclose(a.xx, b.xx, rtol=1e-5)
        assert a.n == b.n


def test_shapley_values_add_up(data) -> None:  # type: ignore[no-untyped-def]
    scores = score_subsets(folds_of(data), DIMS, [1.0, 30.0])
    values = shapley(scores)
    assert sum(values.values()) == pytest.approx(scores[-1].best)
    assert values["a"] > values["b"] > values["c"]
    assert abs(values["c"]) < 0.02
