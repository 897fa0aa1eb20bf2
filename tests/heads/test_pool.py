"""The pool of several modalities is the best there is, and fair to those that say the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from embedstore.heads.base import Data, log_softmax, nll
from embedstore.heads.ensemble import fit_pool, pool

N, CLASSES = 300, 5


def said(codes: npt.NDArray[np.int64], seed: int, gain: float) -> npt.NDArray[np.float64]:
    """Log-probabilities (N, CLASSES) of a modality that knows more with more `gain`."""
    scores = 2 * np.random.default_rng(seed).standard_normal((N, CLASSES))
    scores[np.arange(N), codes] += gain
    return log_softmax(scores)


def of(codes: npt.NDArray[np.int64], present: dict[str, npt.NDArray[Any]]) -> Data:
    return Data({name: np.zeros((N, 1)) for name in present}, present, codes)


@pytest.mark.parametrize("gain", [0.0, 1.0, 3.0])
def test_it_is_that_of_a_fine_grid(gain: float) -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, CLASSES, N)
    present = {"a": np.ones(N, bool), "b": rng.random(N) < 0.7}
    log_p = {"a": said(codes, 1, 2.0), "b": np.where(present["b"][:, None], said(codes, 2, gain), 0)}
    weights, scale = fit_pool(log_p, of(codes, present))
    assert sum(weights.values()) == pytest.approx(1)

    def loss(share: float, scale: float) -> float:
        return nll(log_softmax(pool(log_p, present, np.array([share, 1 - share]), scale)), codes)

    grid = [loss(share, t) for share in np.linspace(0, 1, 51) for t in np.exp(np.linspace(-3, 1, 61))]
    assert loss(weights["a"], scale) <= min(grid) + 1e-5


def test_modalities_that_say_the_same_weigh_the_same() -> None:
    codes = np.random.default_rng(0).integers(0, CLASSES, N)
    log_p = {name: said(codes, 1, 2.0) for name in "abc"}
    weights, _ = fit_pool(log_p, of(codes, {name: np.ones(N, bool) for name in log_p}))
    assert list(weights.values()) == pytest.approx([1 / 3] * 3, abs=1e-4)
