"""How well log-odds tell pairs that belong together from those that do not: from all of the latter, and from each kind."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from embedstore.evaluation.bootstrap import Bootstrap, Score
from embedstore.evaluation.metrics import areas, label_scores, ranked_weights

RANDOM, PAIR, HARD = 0, 1, 2
"""What a pair is: two items drawn at random, an item's own, or its side with that of an item like it."""

Codes = npt.NDArray[np.int64]
Float = npt.NDArray[np.float64]


def pair_scores(kind: Codes, log_odds: Float, *, bootstrap: Bootstrap) -> dict[str, Score]:
    """Every metric of log-odds.

    Parameters
    ----------
    kind : (n,) int64
        `RANDOM`, `PAIR` or `HARD`.
    log_odds : (n,)
        Above 0: they belong together.
    bootstrap : Bootstrap
        Of the same n pairs.

    Returns
    -------
    dict
        ``auroc`` and ``auprc``; ``balanced_accuracy``, in which pairs that belong together count as much as all others, and
        ``accuracy``; ``auroc_random`` and ``auroc_hard``, against each kind of the others, where there are some.
    """
    belong = kind == PAIR
    weights = ranked_weights(kind.shape, bootstrap, most=len(bootstrap.draws))

    def ranked(among: npt.NDArray[np.bool_]) -> list[Score]:
        at = np.flatnonzero(belong | among)
        return [Score.of(row[0], row[1:]) for row in areas(belong[at], log_odds[at], weights[:, at])]

    auroc, auprc = ranked(~belong)
    labels = label_scores(belong.astype(np.int64), (log_odds > 0).astype(np.int64), 2, bootstrap=bootstrap)
    scores = {"auroc": auroc, "auprc": auprc, **{name: labels[name] for name in ("balanced_accuracy", "accuracy")}}
    for name, of in (("auroc_random", RANDOM), ("auroc_hard", HARD)):
        if (kind == of).any():
            scores[name] = ranked(kind == of)[0]
    return scores


def shares_of_auroc(belong: npt.NDArray[np.bool_], log_odds: Float) -> Float:
    """Numbers (n,) whose mean is the AUROC, and whose means over resamples vary as the AUROC does.

    They are its influence function (DeLong et al. 1988): for a pair that belongs together the share of others ranked below it,
    ties counting half, and for one that does not the share of pairs above it, each scaled by how frequent its like is. The mean
    of their differences is the difference of two AUROCs, paired.
    """
    n, positives = len(belong), int(belong.sum())
    if not 0 < positives < n:
        return np.full(n, np.nan)
    above = np.sort(log_odds[belong])
    below = np.sort(log_odds[~belong])
    beaten = _below(below, log_odds[belong]) / len(below)
    beating = 1 - _below(above, log_odds[~belong]) / len(above)
    auroc = float(beaten.mean())
    found = np.empty(n)
    found[belong] = auroc + (beaten - auroc) * n / positives
    found[~belong] = auroc + (beating - auroc) * n / (n - positives)
    return found


def _below(ordered: Float, values: Float) -> Float:
    """How many of `ordered` (m,) lie below each of `values` (n,), those that tie counting half."""
    left, right = (np.searchsorted(ordered, values, side) for side in ("left", "right"))
    return np.asarray((left + right) / 2, np.float64)
