"""Metrics as scikit-learn defines them, each with a bootstrap interval."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.evaluation.bootstrap import Bootstrap, Float, Score

Codes = npt.NDArray[np.int64]

BINS = 15
RANKED_RESAMPLES, RANKED_WORK = 200, 40_000_000
"""Resamples for the intervals of AUROC and AUPRC, and items × classes × resamples that they may cost; fewer beyond."""
LEAST_RESAMPLES = 20
"""But never fewer than these: the ends of an interval of two mean nothing."""

__all__ = [
    "Score",
    "areas",
    "average_precision",
    "classification_scores",
    "label_scores",
    "paired_label_scores",
    "paired_recalls",
    "paired_regression_scores",
    "per_class",
    "ranked_weights",
    "regression_scores",
    "reliability",
    "scores_to_dict",
]


def classification_scores(true: Codes, log_p: Float, *, bootstrap: Bootstrap) -> dict[str, Score]:
    """Every metric of predicted log-probabilities.

    Parameters
    ----------
    true : (n,) int64 in 0…c-1
    log_p : (n, c)
    bootstrap : Bootstrap
        Of the same n items.

    Returns
    -------
    dict
        Those of `label_scores`; ``auroc`` and ``auprc`` (one class against the rest, mean over classes that occur; of the
        second class where there are two); ``nll`` and ``brier`` (mean over items, sum over classes); ``ece`` (15 equal bins of
        the top probability; Guo et al. 2017).
    """
    n, c = log_p.shape
    predicted = log_p.argmax(axis=1)
    p = np.exp(log_p)
    scores = label_scores(true, predicted, c, bootstrap=bootstrap)
    scores["auroc"], scores["auprc"] = _ranked(true, p, bootstrap)
    scores["nll"] = bootstrap.mean(-np.maximum(log_p[np.arange(n), true], np.log(1e-15)))
    scores["brier"] = bootstrap.mean(np.square(p).sum(axis=1) - 2 * p[np.arange(n), true] + 1)
    gap = _in_bins(p) * ((predicted == true) - p.max(axis=1))[:, None]
    ece = np.abs(bootstrap.sums(gap)).sum(axis=1) / np.maximum(bootstrap.sums(np.ones(n)), 1)
    scores["ece"] = Score.of(float(np.abs(gap.sum(axis=0)).sum() / n), ece)
    return scores


def label_scores(true: Codes, predicted: Codes, n_classes: int, *, bootstrap: Bootstrap) -> dict[str, Score]:
    """Accuracy, balanced accuracy, macro precision, recall and F1, micro F1 of predicted class codes (n,)."""
    one = Bootstrap(np.zeros(len(true), np.int64), np.ones((1, 1), np.float32))
    point, many = (_label_metrics(true, predicted, n_classes, b) for b in (one, bootstrap))
    return {name: Score.of(float(value[0]), many[name]) for name, value in point.items()}


def paired_label_scores(
    true: Codes, before: Codes, after: Codes, n_classes: int, *, bootstrap: Bootstrap
) -> dict[str, tuple[Score, Score, Score]]:
    """Those of `label_scores` by two predictions (n,) of the same items, and the change from one to the other, paired."""
    return _paired(lambda predicted, b: _label_metrics(true, predicted, n_classes, b), before, after, bootstrap)


def paired_recalls(
    true: Codes, before: Codes, after: Codes, n_classes: int, *, bootstrap: Bootstrap
) -> list[tuple[Score, Score, Score]]:
    """The recall of each class by two predictions (n,) of the same items, and its change, paired; NaN for an absent class.

    A class of one item, or of one group of items, has no interval.
    """

    def recalls(predicted: Codes, b: Bootstrap) -> dict[str, Float]:
        actual, hits = b.class_counts(true, n_classes), b.class_counts(true, n_classes, true == predicted)
        found = np.divide(hits, actual, out=np.full_like(hits, np.nan), where=actual > 0)
        return {str(k): found[:, k] for k in range(n_classes)}

    groups = np.bincount(np.unique(np.stack([true, bootstrap.bucket]), axis=1)[0], minlength=n_classes)
    found = list(_paired(recalls, before, after, bootstrap).values())
    return [three if groups[k] > 1 else _without_interval(three) for k, three in enumerate(found)]


def _without_interval(scores: tuple[Score, Score, Score]) -> tuple[Score, Score, Score]:
    first, second, change = (Score(score.value, np.nan, np.nan) for score in scores)
    return first, second, change


def _paired(
    metrics: Callable[[Any, Bootstrap], dict[str, Float]], before: Any, after: Any, bootstrap: Bootstrap
) -> dict[str, tuple[Score, Score, Score]]:
    one = Bootstrap(np.zeros(len(before), np.int64), np.ones((1, 1), np.float32))
    points = [metrics(predicted, one) for predicted in (before, after)]
    many = [metrics(predicted, bootstrap) for predicted in (before, after)]
    found = {}
    for name in points[0]:
        (a,), (b,) = (point[name] for point in points)
        found[name] = Score.of(a, many[0][name]), Score.of(b, many[1][name]), Score.of(b - a, many[1][name] - many[0][name])
    return found


def _label_metrics(true: Codes, predicted: Codes, n_classes: int, bootstrap: Bootstrap) -> dict[str, Float]:
    hits = bootstrap.class_counts(true, n_classes, true == predicted)
    actual = bootstrap.class_counts(true, n_classes)
    claimed = bootstrap.class_counts(predicted, n_classes)
    occurs = actual + claimed > 0
    recall, precision, f1 = _ratio(hits, actual), _ratio(hits, claimed), _ratio(2 * hits, actual + claimed)
    accuracy = hits.sum(axis=1) / np.maximum(actual.sum(axis=1), 1)
    return {
        "accuracy": accuracy,
        "macro_f1": _mean_where(f1, occurs),
        "balanced_accuracy": _mean_where(recall, actual > 0),
        "precision": _mean_where(precision, occurs),
        "recall": _mean_where(recall, occurs),
        "micro_f1": accuracy,  # one label an item: every error is one false positive and one false negative
    }


def _ratio(a: Float, b: Float) -> Float:
    return np.divide(a, b, out=np.zeros_like(a), where=b > 0)


def _mean_where(values: Float, mask: npt.NDArray[np.bool_]) -> Float:
    return np.asarray((values * mask).sum(axis=1) / np.maximum(mask.sum(axis=1), 1))


def _ranked(true: Codes, p: Float, bootstrap: Bootstrap) -> tuple[Score, Score]:
    """AUROC and AUPRC, macro."""
    n, c = p.shape
    weights = ranked_weights(p.shape, bootstrap)
    counts = np.bincount(true, minlength=c)
    classes = [1] if c == 2 else np.flatnonzero((counts > 0) & (counts < n)).tolist()
    if not classes or not 0 < counts[classes[0]] < n:
        return Score(np.nan, np.nan, np.nan), Score(np.nan, np.nan, np.nan)
    rows = np.array([areas(true == k, p[:, k], weights) for k in classes])
    defined = np.isfinite(rows)
    total, count = np.where(defined, rows, 0).sum(axis=0), defined.sum(axis=0)
    mean = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return Score.of(mean[0, 0], mean[0, 1:]), Score.of(mean[1, 0], mean[1, 1:])


def ranked_weights(shape: tuple[int, ...], bootstrap: Bootstrap, *, most: int = RANKED_RESAMPLES) -> npt.NDArray[np.float32]:
    """How often each item is in the whole (the first row) and in at most `most` resamples (1 + r, n), to rank (n, …) scores."""
    afforded = max(LEAST_RESAMPLES, RANKED_WORK // max(int(np.prod(shape)), 1))
    return np.concatenate([np.ones((1, shape[0]), np.float32), bootstrap.weights(min(most, afforded))])


def areas(positive: npt.NDArray[np.bool_], score: Float, weights: npt.NDArray[np.float32]) -> Float:
    """AUROC and average precision (2, r) of one class under item weights (r, n); ties count half, or as one threshold."""
    order = np.argsort(-score, kind="stable")
    edges = np.flatnonzero(np.concatenate([[True], np.diff(score[order]) != 0]))
    w = weights[:, order].astype(np.float64)
    hit = np.add.reduceat(w * positive[order], edges, axis=1)
    miss = np.add.reduceat(w * ~positive[order], edges, axis=1)
    hits, misses = hit.cumsum(axis=1), miss.cumsum(axis=1)
    all_hits, all_misses = hits[:, -1], misses[:, -1]
    with np.errstate(invalid="ignore", divide="ignore"):
        auroc = (hit * (all_misses[:, None] - misses + miss / 2)).sum(axis=1) / (all_hits * all_misses)
        precision = np.where(hits + misses > 0, hits / (hits + misses), 0)
        return np.stack([auroc, (hit * precision).sum(axis=1) / all_hits])


def average_precision(positive: npt.NDArray[np.bool_], score: Float, weights: npt.NDArray[np.float32]) -> Float:
    """Average precision (r,) of scores (n,) under item weights (r, n); ties are one threshold, NaN without a positive."""
    return np.asarray(areas(positive, score, weights)[1])


def _in_bins(p: Float) -> Float:
    """Which of the equal bins of confidence an item is in (n, BINS)."""
    confidence = p.max(axis=1)
    return np.asarray(np.eye(BINS)[np.minimum((confidence * BINS).astype(int), BINS - 1)])


def reliability(true: Codes, log_p: Float) -> list[tuple[float, float, int]]:
    """(mean confidence, accuracy, items) of every bin of the top probability that has items."""
    p = np.exp(log_p)
    bins = _in_bins(p)
    counts = bins.sum(axis=0)
    confidence, correct = bins.T @ p.max(axis=1), bins.T @ (p.argmax(axis=1) == true)
    return [(float(confidence[b] / counts[b]), float(correct[b] / counts[b]), int(counts[b])) for b in np.flatnonzero(counts)]


def per_class(true: Codes, predicted: Codes, labels: list[str]) -> list[dict[str, float | str]]:
    """Support, precision, recall and F1 of every class."""
    c = len(labels)
    hits = np.bincount(true[true == predicted], minlength=c)
    actual, claimed = np.bincount(true, minlength=c), np.bincount(predicted, minlength=c)
    return [
        {
            "class": label,
            "support": int(actual[k]),
            "precision": float(hits[k] / max(claimed[k], 1)),
            "recall": float(hits[k] / max(actual[k], 1)),
            "f1": float(2 * hits[k] / max(actual[k] + claimed[k], 1)),
        }
        for k, label in enumerate(labels)
    ]


def regression_scores(true: Float, predicted: Float, *, bootstrap: Bootstrap) -> dict[str, Score]:
    """``r2``, ``mae`` and ``rmse`` of predicted numbers (n,)."""
    one = Bootstrap(np.zeros(len(true), np.int64), np.ones((1, 1), np.float32))
    point, many = (_number_metrics(true, predicted, b) for b in (one, bootstrap))
    return {name: Score.of(float(value[0]), many[name]) for name, value in point.items()}


def paired_regression_scores(
    true: Float, before: Float, after: Float, *, bootstrap: Bootstrap
) -> dict[str, tuple[Score, Score, Score]]:
    """Those of `regression_scores` by two predictions (n,) of the same items, and the change from one to the other, paired."""
    return _paired(lambda predicted, b: _number_metrics(true, predicted, b), before, after, bootstrap)


def _number_metrics(true: Float, predicted: Float, bootstrap: Bootstrap) -> dict[str, Float]:
    error, centred = true - predicted, true - true.mean()
    columns = np.stack([np.ones(len(true)), centred, centred**2, error**2, np.abs(error)], axis=1)
    n, y, yy, squared, absolute = bootstrap.sums(columns).T
    n = np.where(n > 0, n, np.nan)
    spread = yy - y**2 / n
    r2 = 1 - squared / np.where(spread > 0, spread, np.nan)
    return {"r2": r2, "mae": absolute / n, "rmse": np.sqrt(squared / n)}


def scores_to_dict(scores: Mapping[str, Score]) -> dict[str, Any]:
    return {name: score.to_dict() for name, score in scores.items()}
