"""The temperature of scores is the one that a fine grid finds."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import log_softmax

from embedstore.heads.solvers.temperature import EXACT, fit_scale

LOW, HIGH, STEP = -4.0, 6.0, 2e-3


def scored(seed: int, classes: int, spread: float) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Scores (200, c) that are right more often than not, and the codes (200,)."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, classes, 200)
    scores = rng.standard_normal((200, classes))
    scores[np.arange(200), codes] += 1
    return spread * scores, codes


def loss_at(t: float, scores: npt.NDArray[Any], codes: npt.NDArray[np.int64]) -> float:
    return -float(log_softmax(np.exp(t) * scores, axis=1)[np.arange(len(codes)), codes].mean())


@pytest.mark.parametrize("classes", [2, 9])
@pytest.mark.parametrize("spread", [0.01, 0.3, 1.0, 30.0])
def test_it_is_that_of_a_fine_grid(classes: int, spread: float) -> None:
    scores, codes = scored(classes, classes, spread)
    grid = np.arange(LOW, HIGH, STEP)
    losses = [loss_at(t, scores, codes) for t in grid]
    t = np.log(fit_scale(scores, codes, low=LOW, high=HIGH))
    assert t == pytest.approx(grid[np.argmin(losses)], abs=STEP + EXACT)
    assert loss_at(t, scores, codes) <= min(losses) + 1e-6


@pytest.mark.parametrize(("sign", "bound"), [(-1, LOW), (1, HIGH)])
def test_beyond_the_bounds_it_is_the_bound(sign: int, bound: float) -> None:
    """Scores that are always wrong are best ignored; tiny ones that are always right can never be trusted enough."""
    codes = np.arange(40) % 4
    t = np.log(fit_scale(sign * 1e-3 * np.eye(4)[codes], codes, low=LOW, high=HIGH))
    assert t == pytest.approx(bound, abs=2 * EXACT)


def test_scores_of_float32_serve_as_well() -> None:
    scores, codes = scored(0, 5, 1.0)
    assert fit_scale(scores.astype(np.float32), codes) == pytest.approx(fit_scale(scores, codes), rel=2 * EXACT)
