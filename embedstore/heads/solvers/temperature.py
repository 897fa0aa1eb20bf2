"""One number that turns scores into logits: a temperature, always positive."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.evaluation.bootstrap import Bootstrap
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


def certain_scale(
    log_p: Float, codes: Codes, folds: npt.NDArray[Any], groups: npt.NDArray[Any] | None = None
) -> tuple[Float, float]:
    """The scale of held-out log-probabilities (n, c), and what they are with it; 1, and as they are, unless it surely helps.

    The scale of each fold is fitted on the other folds. It helps where the 95 % interval of the loss that it saves, paired by
    item, lies above 0.

    Parameters
    ----------
    codes, folds : (n,), (n,)
        The class and the fold of each item.
    groups : (n,), optional
        What the interval draws instead of items.
    """
    scaled, items = log_p.copy(), np.arange(len(codes))
    for fold in sorted(set(folds.tolist())):
        mine = folds == fold
        scaled[mine] = log_softmax(fit_scale(log_p[~mine], codes[~mine]) * log_p[mine])
    saved = (scaled - log_p)[items, codes]
    if not Bootstrap.of(len(codes), groups=groups).mean(saved).certain_gain:
        return log_p, 1.0
    return scaled, fit_scale(log_p, codes)
