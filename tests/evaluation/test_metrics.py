"""Metrics against scikit-learn, intervals against theory."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sk

from embedstore.evaluation import metrics
from embedstore.evaluation.bootstrap import BUCKETS, Bootstrap, Score
from embedstore.evaluation.label_metrics import label_set_scores
from embedstore.evaluation.metrics import classification_scores, label_scores, per_class, regression_scores, reliability
from embedstore.evaluation.pair_metrics import pair_scores
from embedstore.heads.base import log_softmax

Array = np.ndarray[Any, Any]


def guesses(n: int = 600, c: int = 6, seed: int = 0) -> tuple[Array, Array]:
    """True codes and log-probabilities with ties; class c-1 never occurs."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, c - 1, n)
    logits = rng.standard_normal((n, c)) + 1.5 * np.eye(c)[true]
    return true, log_softmax(np.round(logits, 1))


def test_every_metric_equals_scikit_learn() -> None:
    true, log_p = guesses()
    p, predicted = np.exp(log_p), log_p.argmax(axis=1)
    scores = classification_scores(true, log_p, bootstrap=Bootstrap.of(len(true)))
    theirs = {
        "accuracy": sk.accuracy_score(true, predicted),
        "balanced_accuracy": sk.recall_score(true, predicted, labels=range(5), average="macro"),
        "precision": sk.precision_score(true, predicted, average="macro", zero_division=0),
        "recall": sk.recall_score(true, predicted, average="macro", zero_division=0),
        "macro_f1": sk.f1_score(true, predicted, average="macro"),
        "micro_f1": sk.f1_score(true, predicted, average="micro"),
        "auroc": np.mean([sk.roc_auc_score(true == k, p[:, k]) for k in range(5)]),
        "auprc": np.mean([sk.average_precision_score(true == k, p[:, k]) for k in range(5)]),
        "nll": sk.log_loss(true, p, labels=range(6)),
        "brier": np.square(p - np.eye(6)[true]).sum(axis=1).mean(),
    }
    for name, value in theirs.items():
        assert scores[name].value == pytest.approx(value), name
    for name, score in scores.items():
        assert score.low <= score.value <= score.high or name == "ece", name
    assert scores.keys() == {*theirs, "ece"}


def test_binary_ranks_are_of_the_second_class() -> None:
    rng = np.random.default_rng(0)
    true = rng.integers(0, 2, 300)
    log_p = log_softmax(np.stack([np.zeros(300), 2.0 * true + 2 * rng.standard_normal(300)], axis=1))
    scores = classification_scores(true, log_p, bootstrap=Bootstrap.of(300))
    assert scores["auroc"].value == pytest.approx(sk.roc_auc_score(true, log_p[:, 1]))
    assert scores["auprc"].value == pytest.approx(sk.average_precision_score(true, log_p[:, 1]))


def test_ranks_of_many_classes_keep_an_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    """However little ranking may cost, it is that of at least twenty resamples."""
    true, log_p = guesses(300)
    kind, bootstrap = np.arange(300) % 3, Bootstrap.of(300)
    wide = classification_scores(true, log_p, bootstrap=bootstrap), pair_scores(kind, log_p[:, 0], bootstrap=bootstrap)
    monkeypatch.setattr(metrics, "RANKED_WORK", 1)
    few = classification_scores(true, log_p, bootstrap=bootstrap), pair_scores(kind, log_p[:, 0], bootstrap=bootstrap)
    assert len(metrics.ranked_weights((300, 6), bootstrap)) == 1 + metrics.LEAST_RESAMPLES
    for (usual, found), name in product(zip(wide, few, strict=True), ("auroc", "auprc")):
        assert found[name].value == usual[name].value
        assert found[name].high - found[name].low == pytest.approx(usual[name].high - usual[name].low, rel=0.5)


def test_one_class_has_no_rank() -> None:
    scores = classification_scores(np.zeros(20, int), log_softmax(np.zeros((20, 2))), bootstrap=Bootstrap.of(20))
    assert np.isnan(scores["auroc"].value)
    assert scores["accuracy"] == Score(1, 1, 1)


def test_calibration() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, 20_000)
    true = (rng.random(20_000) > confidence).astype(int)
    honest = np.log(np.stack([confidence, 1 - confidence], axis=1))
    boastful = np.log(np.stack([np.full(20_000, 0.99), np.full(20_000, 0.01)], axis=1))
    bootstrap = Bootstrap.of(20_000, resamples=50)
    assert classification_scores(true, honest, bootstrap=bootstrap)["ece"].value < 0.02
    assert classification_scores(true, boastful, bootstrap=bootstrap)["ece"].value == pytest.approx(0.24, abs=0.02)
    bins = reliability(true, honest)
    assert sum(count for _, _, count in bins) == 20_000
    assert all(abs(c - a) < 0.05 for c, a, _ in bins)


@pytest.mark.parametrize("n", [500, 3 * BUCKETS])
def test_interval_of_accuracy_is_the_binomials(n: int) -> None:
    """Also where items are joined into buckets."""
    rng = np.random.default_rng(0)
    true = rng.integers(0, 6, n)
    predicted = np.where(rng.random(n) < 0.7, true, (true + 1) % 6)
    score = label_scores(true, predicted, 6, bootstrap=Bootstrap.of(n))["accuracy"]
    half = 1.96 * np.sqrt(score.value * (1 - score.value) / n)
    assert score.high - score.low == pytest.approx(2 * half, rel=0.12)


def test_groups_widen_the_interval() -> None:
    """Ten identical items a group: the interval is that of a tenth of the items."""
    rng = np.random.default_rng(0)
    hit = rng.random(100) < 0.7
    groups = np.array([f"g{i}" for i in range(100)]).repeat(10)
    apart = Bootstrap.of(1000).mean(hit.repeat(10).astype(float))
    together = Bootstrap.of(1000, groups=groups).mean(hit.repeat(10).astype(float))
    assert (together.high - together.low) / (apart.high - apart.low) == pytest.approx(10**0.5, rel=0.15)


def test_items_of_one_group_have_no_interval() -> None:
    """Every resample would be the items themselves: an interval of no width, in which all gains are certain."""
    true, log_p = guesses(60)
    bootstrap = Bootstrap.of(60, groups=np.full(60, "farm"))
    for values in (np.ones(60), np.linspace(0.1, 1, 60)):
        gain = bootstrap.mean(values)
        assert gain.value == pytest.approx(values.mean())
        assert np.isnan([gain.low, gain.high]).all()
        assert not gain.certain_gain
    truth, odds = true[:, None] == np.arange(6), np.where(np.isfinite(log_p), log_p, -9.0)
    kind = np.arange(60) % 3
    for scores in (
        classification_scores(true, log_p, bootstrap=bootstrap),
        regression_scores(true.astype(float), log_p[:, 0], bootstrap=bootstrap),
        label_set_scores(truth, odds, odds > -1, bootstrap=bootstrap),
        pair_scores(kind, odds[:, 0], bootstrap=bootstrap),
    ):
        for name, score in scores.items():
            assert np.isfinite(score.value), name
            assert np.isnan([score.low, score.high]).all(), name


def test_some_items_of_one_group_have_no_interval_either() -> None:
    """Such as those that have a target which only one farm tells, or a class that only one farm has."""
    groups = np.arange(60) // 20
    bootstrap = Bootstrap.of(60, groups=groups)
    gain = np.linspace(0.1, 1, 60)
    alone, two = bootstrap.take(groups == 1).mean(gain[groups == 1]), bootstrap.take(groups < 2).mean(gain[groups < 2])
    assert alone.value == pytest.approx(gain[groups == 1].mean())
    assert not alone.certain_gain
    assert two.certain_gain
    assert 0.1 < two.low < two.value < two.high
    scores = label_scores(np.zeros(3, int), np.zeros(3, int), 2, bootstrap=Bootstrap.of(60).take(np.arange(3)))
    assert scores["accuracy"] == Score(1, 1, 1)  # a resample without them is no resample in which all are wrong
    true = np.where(groups == 1, 1, np.arange(60) % 2 * 2)
    true[0] = 3
    before, after = np.zeros(60, int), true
    found = metrics.paired_recalls(true, before, after, 4, bootstrap=bootstrap)
    assert [three[2].value for three in found] == [0, 1, 1, 1]
    assert [three[2].certain_gain for three in found] == [False, False, True, False]
    assert np.isnan(found[1][2].low)
    assert found[2][2] == Score(1, 1, 1)


def test_paired_gain_is_sharper_than_its_parts() -> None:
    rng = np.random.default_rng(0)
    a = (rng.random(2000) < 0.8).astype(float)
    b = np.where(rng.random(2000) < 0.03, 0, a)
    bootstrap = Bootstrap.of(2000)
    gain = bootstrap.mean(a - b)
    assert gain.certain_gain
    assert bootstrap.mean(a).low < bootstrap.mean(b).high
    assert not bootstrap.mean(a - a).certain_gain


def test_per_class_table() -> None:
    true, log_p = guesses()
    predicted = log_p.argmax(axis=1)
    rows = per_class(true, predicted, [f"c{k}" for k in range(6)])
    theirs = sk.precision_recall_fscore_support(true, predicted, labels=range(6), zero_division=0)
    for k, row in enumerate(rows):
        assert [row[name] for name in ("precision", "recall", "f1", "support")] == pytest.approx([t[k] for t in theirs])


def test_regression_equals_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    true = rng.standard_normal(400)
    predicted = true + 0.3 * rng.standard_normal(400)
    scores = regression_scores(true, predicted, bootstrap=Bootstrap.of(400))
    assert scores["r2"].value == pytest.approx(sk.r2_score(true, predicted))
    assert scores["mae"].value == pytest.approx(sk.mean_absolute_error(true, predicted))
    assert scores["rmse"].value == pytest.approx(sk.root_mean_squared_error(true, predicted))
    assert all(s.low < s.value < s.high for s in scores.values())


def test_an_undefined_resample_is_not_zero() -> None:
    """One positive of twenty, ranked perfectly: resamples without it have no AUROC."""
    true = (np.arange(20) == 3).astype(int)
    log_p = log_softmax(np.stack([np.zeros(20), np.where(true, 5.0, -5.0)], axis=1))
    assert classification_scores(true, log_p, bootstrap=Bootstrap.of(20))["auroc"] == Score(1, 1, 1)


def test_r2_does_not_change_by_shifting() -> None:
    rng = np.random.default_rng(0)
    true = rng.standard_normal(300)
    predicted = true + 0.1 * rng.standard_normal(300)
    near, far = (regression_scores(true + s, predicted + s, bootstrap=Bootstrap.of(300))["r2"].value for s in (0, 1.7e9))
    assert far == pytest.approx(near, abs=1e-4)
