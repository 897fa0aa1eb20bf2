"""Near copies across a split: planted ones are found, and vectors that all lie close together are none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from embedstore.evaluation.copies import EVERY, NEAR, Copies, find_copies
from embedstore.evaluation.nearest import unit

TRAIN, TEST, PLANTED = 1500, 300, 20


def space(kind: str, rng: np.random.Generator) -> Any:
    """Vectors of TRAIN + TEST items that have nothing to do with one another, but for the clusters that they are in."""
    n = TRAIN + TEST
    if kind == "isotropic":
        return rng.standard_normal((n, 64))
    if kind == "cone":  # two items have a cosine of about 0.97
        return rng.standard_normal((n, 64)) + 5.7 * np.ones(64)
    if kind == "clusters":  # within one of 15 clusters of about 0.98
        return 7 * rng.standard_normal((15, 64))[rng.integers(0, 15, n)] + rng.standard_normal((n, 64))
    return rng.standard_normal((n, 3))  # in a plane


@pytest.mark.parametrize("kind", ["isotropic", "cone", "clusters", "flat"])
def test_planted_copies_are_found_among_vectors_that_are_close(kind: str) -> None:
    rng = np.random.default_rng(1)
    x = space(kind, rng)
    test = np.arange(TRAIN, TRAIN + TEST)
    x[test[:PLANTED]] = x[:PLANTED] * (1 + 1e-4 * rng.standard_normal((PLANTED, x.shape[1])))
    u = unit(x, np.ones(len(x), bool))
    above = float((u[test] @ u[:TRAIN].T > NEAR).mean())
    found = find_copies({"x": x}, {"x": np.ones(len(x), bool)}, {}, train=np.arange(TRAIN), test=test)
    near = found.near[EVERY]
    assert near[:PLANTED].all()
    assert near[PLANTED:].mean() < 0.15
    if kind == "isotropic":
        assert above < 1e-3
        assert found.thresholds == {"x": NEAR}
        assert found.rule == "cosine > 0.97 in every input"
    else:
        assert above > 0.005
        assert found.thresholds["x"] > NEAR
        assert found.rule.endswith(" in x")


def test_folds_are_joined() -> None:
    a = Copies(np.array([0]), {}, {EVERY: np.array([True])}, {"x": 0.97})
    b = Copies(np.array([1]), {}, {EVERY: np.array([False])}, {"x": 0.99})
    both = a + b
    assert both.thresholds == {"x": 0.99}
    assert both.to_dict() == {"checked": 2, "exact": {}, "near": {EVERY: 1}, "thresholds": {"x": 0.99}}
