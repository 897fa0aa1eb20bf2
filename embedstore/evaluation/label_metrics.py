"""Metrics of items with any number of labels, as scikit-learn defines them, each with a bootstrap interval over items."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.evaluation.bootstrap import Bootstrap, Float, Score
from embedstore.evaluation.metrics import average_precision, ranked_weights

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]

CELLS = 1 << 22
"""Weights of sorted predictions that are held at once."""


@dataclass(frozen=True)
class LabelScores:
    """What each label (c,) scores.

    Parameters
    ----------
    support : (c,) int64
        Items that have it.
    average_precision : list of Score
        NaN for a label that no item has.
    f1 : (c,) float64
    """

    support: npt.NDArray[np.int64]
    average_precision: list[Score]
    f1: Float


def label_set_scores(truth: Mask, log_odds: Float, given: Mask, *, bootstrap: Bootstrap) -> dict[str, Score]:
    """Every metric of ranked and of decided labels.

    Parameters
    ----------
    truth, given : (n, c) bool
        Labels that the items have, and that they were given.
    log_odds : (n, c)
        What labels are ranked by.
    bootstrap : Bootstrap
        Of the same n items.

    Returns
    -------
    dict
        ``macro_ap`` (the mean over labels that occur: mAP) and ``micro_ap`` (all pairs of item and label in one ranking);
        ``micro_f1``; ``macro_f1`` (the mean over labels that occur or were given); ``item_f1`` (the mean over items, 1 where
        there is no label and none was given); ``exact_match``, the share of items whose labels are all right.
    """
    weights = ranked_weights(truth.shape, bootstrap)
    rows = _precisions(truth, log_odds, weights)
    defined = np.isfinite(rows)
    count = defined.sum(axis=0)
    macro = np.divide(np.where(defined, rows, 0).sum(axis=0), count, out=np.full(len(count), np.nan), where=count > 0)
    micro = _micro_precision(truth, log_odds, weights)
    one = Bootstrap(np.zeros(len(truth), np.int64), np.ones((1, 1), np.float32))
    point, many = (_f1s(truth, given, b) for b in (one, bootstrap))
    return {
        "macro_ap": Score.of(macro[0], macro[1:]),
        "micro_ap": Score.of(micro[0], micro[1:]),
        **{name: Score.of(float(value[0]), many[name]) for name, value in point.items()},
        "item_f1": bootstrap.mean(item_f1(truth, given)),
        "exact_match": bootstrap.mean((truth == given).all(axis=1).astype(np.float64)),
    }


def per_label(truth: Mask, log_odds: Float, given: Mask, *, bootstrap: Bootstrap) -> LabelScores:
    """What each label scores; parameters as of `label_set_scores`."""
    rows = _precisions(truth, log_odds, ranked_weights(truth.shape, bootstrap))
    hits, either = (truth & given).sum(axis=0), truth.sum(axis=0) + given.sum(axis=0)
    f1 = 2 * hits / np.maximum(either, 1)
    return LabelScores(truth.sum(axis=0), [Score.of(row[0], row[1:]) for row in rows], f1)


def item_f1(truth: Mask, given: Mask) -> Float:
    """The F1 (n,) of each item's labels; 1 where there are none and none was given."""
    either = truth.sum(axis=1) + given.sum(axis=1)
    return np.where(either > 0, 2 * (truth & given).sum(axis=1) / np.maximum(either, 1), 1.0)


def together(truth: Mask, most: int) -> list[tuple[int, int, int, float]]:
    """The pairs of labels that occur together most: both labels, the items with both, the lift.

    The lift is how many times more often they do than labels that know nothing of one another would.
    """
    counts = truth.astype(np.float32).T @ truth.astype(np.float32)
    alone = np.diag(counts).copy()
    first, second = np.triu_indices(len(counts), 1)
    both = counts[first, second]
    order = np.argsort(-both, kind="stable")[:most]
    pairs = zip(first[order].tolist(), second[order].tolist(), strict=True)
    found = ((i, j, float(counts[i, j])) for i, j in pairs if counts[i, j])
    return [(i, j, int(times), float(times * len(truth) / (alone[i] * alone[j]))) for i, j, times in found]


def _precisions(truth: Mask, log_odds: Float, weights: npt.NDArray[np.float32]) -> Float:
    """The average precision (c, r) of each label under item weights (r, n); NaN where no item has it."""
    rows = np.full((truth.shape[1], len(weights)), np.nan)
    for k in np.flatnonzero(truth.any(axis=0)):
        rows[k] = average_precision(truth[:, k], log_odds[:, k], weights)
    return rows


def _micro_precision(truth: Mask, log_odds: Float, weights: npt.NDArray[np.float32]) -> Float:
    """The average precision (r,) of all pairs of item and label in one ranking."""
    if not truth.any():
        return np.full(len(weights), np.nan)
    c = truth.shape[1]
    size = max(1, CELLS // max(truth.size, 1))
    parts = [np.repeat(weights[lo : lo + size], c, axis=1) for lo in range(0, len(weights), size)]
    return np.concatenate([average_precision(truth.ravel(), log_odds.ravel(), part) for part in parts])


def _f1s(truth: Mask, given: Mask, bootstrap: Bootstrap) -> dict[str, Float]:
    hits, actual, claimed = (bootstrap.sums(x) for x in (truth & given, truth, given))
    either = actual + claimed
    f1 = np.divide(2 * hits, either, out=np.zeros_like(hits), where=either > 0)
    micro = 2 * hits.sum(axis=1) / np.maximum(either.sum(axis=1), 1)
    return {"micro_f1": micro, "macro_f1": f1.sum(axis=1) / np.maximum((either > 0).sum(axis=1), 1)}
