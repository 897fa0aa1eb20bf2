"""Metrics of several labels an item, beside scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score

from embedstore.evaluation.bootstrap import Bootstrap
from embedstore.evaluation.label_metrics import item_f1, label_set_scores, per_label, together


def drawn(n: int = 250, seed: int = 0):  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(seed)
    truth = rng.random((n, 5)) < [0.5, 0.3, 0.2, 0.1, 0.05]
    log_odds = np.round(1.5 * truth + rng.standard_normal((n, 5)), 1)  # with ties
    return truth, log_odds, log_odds > 0.9


def test_they_are_scikit_learns() -> None:
    truth, log_odds, given = drawn()
    found = label_set_scores(truth, log_odds, given, bootstrap=Bootstrap.of(250))
    for average in ("macro", "micro"):
        assert found[f"{average}_ap"].value == pytest.approx(average_precision_score(truth, log_odds, average=average))
        assert found[f"{average}_f1"].value == pytest.approx(f1_score(truth, given, average=average, zero_division=0))
    assert found["item_f1"].value == pytest.approx(f1_score(truth, given, average="samples", zero_division=1))
    assert found["exact_match"].value == pytest.approx((truth == given).all(axis=1).mean())
    for score in found.values():
        assert score.low < score.value < score.high


def test_intervals_are_those_of_resampled_items() -> None:
    truth, log_odds, given = drawn()
    bootstrap = Bootstrap.of(250, resamples=120)
    found = label_set_scores(truth, log_odds, given, bootstrap=bootstrap)
    again: dict[str, list[float]] = {"macro_ap": [], "micro_ap": [], "macro_f1": [], "item_f1": []}
    for weights in bootstrap.weights(120).astype(int):
        items = np.repeat(np.arange(250), weights)
        t, s, g = truth[items], log_odds[items], given[items]
        again["macro_ap"].append(average_precision_score(t, s, average="macro"))
        again["micro_ap"].append(average_precision_score(t, s, average="micro"))
        again["macro_f1"].append(f1_score(t, g, average="macro", zero_division=0))
        again["item_f1"].append(f1_score(t, g, average="samples", zero_division=1))
    for name, values in again.items():
        np.testing.assert_allclose([found[name].low, found[name].high], np.quantile(values, [0.025, 0.975]), atol=1e-6)


def test_by_label() -> None:
    truth, log_odds, given = drawn()
    found = per_label(truth, log_odds, given, bootstrap=Bootstrap.of(250))
    assert found.support.tolist() == truth.sum(axis=0).tolist()
    np.testing.assert_allclose(found.f1, f1_score(truth, given, average=None))
    for k, score in enumerate(found.average_precision):
        assert score.value == pytest.approx(average_precision_score(truth[:, k], log_odds[:, k]))
        assert score.low < score.value < score.high


def test_a_label_that_no_item_has() -> None:
    truth, log_odds, given = drawn()
    truth[:, 2] = False
    found = label_set_scores(truth, log_odds, given, bootstrap=Bootstrap.of(250))
    known = [0, 1, 3, 4]
    assert found["macro_ap"].value == pytest.approx(average_precision_score(truth[:, known], log_odds[:, known]))
    by_label = per_label(truth, log_odds, given, bootstrap=Bootstrap.of(250))
    assert np.isnan(by_label.average_precision[2].value)
    assert (by_label.support[2], by_label.f1[2]) == (0, 0)
    nothing = label_set_scores(truth & False, log_odds, given & False, bootstrap=Bootstrap.of(250))
    assert np.isnan(nothing["macro_ap"].value)
    assert np.isnan(nothing["micro_ap"].value)
    assert nothing["item_f1"].value == 1


def test_an_item_without_labels_is_right_where_none_is_given() -> None:
    truth = np.array([[0, 0], [0, 0], [1, 0], [1, 1]], bool)
    given = np.array([[0, 0], [1, 0], [0, 0], [1, 0]], bool)
    np.testing.assert_allclose(item_f1(truth, given), [1, 0, 0, 2 / 3])


def test_labels_that_occur_together() -> None:
    truth = np.array([[1, 1, 0], [1, 1, 0], [1, 0, 1], [0, 0, 0]], bool)
    assert together(truth, 5) == [(0, 1, 2, pytest.approx(2 * 4 / 6)), (0, 2, 1, pytest.approx(1 * 4 / 3))]
    assert together(truth, 1) == together(truth, 5)[:1]
