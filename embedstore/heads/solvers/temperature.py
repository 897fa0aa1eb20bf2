"""One number that turns scores into logits: a temperature, always positive."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.heads.base import Codes, Float, log_softmax, nll

EXACT = 1e-3
"""How far t may be off; the loss is flat around its least, so that it tells no difference."""


def fit_scale(
    scores: npt.NDArray[Any], codes: Codes, weights: Float | None = None, *, low: float = -4.0, high: float = 6.0
) -> float:
    """exp(t) that minimises the log-loss of softmax(exp(t) · scores) over t in [low, high], which has one minimum.

    Parameters
    ----------
    scores : (n, c)
        Held-out scores; the scale is meaningless on training scores.
    codes : (n,)
    weights : (n,), optional
        What each item counts.
    """
    from scipy.optimize import minimize_scalar

    def loss(t: float) -> float:
        return nll(log_softmax(np.exp(t) * scores), codes, weights)

    found = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": EXACT})
    return float(np.exp(found.x))
