"""One number that turns scores into logits: a temperature, always positive."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.heads.base import Codes, log_softmax, nll


def fit_scale(scores: npt.NDArray[Any], codes: Codes, *, low: float = -4.0, high: float = 6.0) -> float:
    """exp(t) that minimises the log-loss of softmax(exp(t) · scores), by golden section over t in [low, high].

    Parameters
    ----------
    scores : (n, c)
        Held-out scores; the scale is meaningless on training scores.
    codes : (n,)
    """
    ratio = (np.sqrt(5) - 1) / 2
    left, right = high - ratio * (high - low), low + ratio * (high - low)

    def loss(t: float) -> float:
        return nll(log_softmax(np.exp(t) * scores), codes)

    at_left, at_right = loss(left), loss(right)
    while high - low > 1e-3:
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = loss(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = loss(right)
    return float(np.exp((low + high) / 2))
