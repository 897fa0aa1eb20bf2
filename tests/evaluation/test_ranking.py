"""Retrieval metrics against scikit-learn, by hand, and chance against simulation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sk

from embedstore.evaluation.ranking import (
    average_precision,
    binary_ideal,
    expected_at_random,
    hit_at_k,
    ndcg_at_k,
    precision_at_k,
    ranking_metrics,
    recall_at_k,
    reciprocal_rank,
    shuffle_ties,
)

Array = np.ndarray[Any, Any]


def ranked(m: int = 40, n: int = 60, seed: int = 0) -> tuple[Array, Array, Array]:
    """Grades 0…3 by item, scores without ties, and the grades in order of score; every query has something relevant."""
    rng = np.random.default_rng(seed)
    grades = rng.integers(0, 4, (m, n)) * (rng.random((m, n)) < 0.2)
    grades[:, 0] = 1
    scores = rng.permuted(np.tile(np.arange(n, dtype=float), (m, 1)), axis=1)
    return grades, scores, np.take_along_axis(grades, np.argsort(-scores, axis=1), axis=1)


def descending(grades: Array) -> Array:
    return -np.sort(-grades, axis=1)


@pytest.mark.parametrize("k", [1, 5, 60, 100])
def test_ndcg_equals_scikit_learn(k: int) -> None:
    grades, scores, relevance = ranked()
    ours = ndcg_at_k(relevance, descending(grades), k)
    theirs = [sk.ndcg_score(g[None], s[None], k=k) for g, s in zip(grades, scores, strict=True)]
    np.testing.assert_allclose(ours, theirs)


def test_average_precision_equals_scikit_learn() -> None:
    grades, scores, relevance = ranked()
    binary = grades > 0
    ours = average_precision(relevance, binary.sum(axis=1))
    np.testing.assert_allclose(ours, [sk.average_precision_score(b, s) for b, s in zip(binary, scores, strict=True)])
    assert ours.mean() == pytest.approx(sk.label_ranking_average_precision_score(binary, scores))


def test_reciprocal_rank_is_the_ranking_precision_of_one_answer() -> None:
    _, scores, _ = ranked()
    one = np.eye(60, dtype=int)[np.random.default_rng(1).integers(0, 60, 40)]
    relevance = np.take_along_axis(one, np.argsort(-scores, axis=1), axis=1)
    assert reciprocal_rank(relevance).mean() == pytest.approx(sk.label_ranking_average_precision_score(one, scores))
    np.testing.assert_allclose(average_precision(relevance, np.ones(40, int)), reciprocal_rank(relevance))


def test_by_hand() -> None:
    relevance = np.array([[0, 1, 0, 1], [1, 1, 0, 0], [0, 0, 0, 0]])
    relevant = np.array([3, 2, 5])
    np.testing.assert_allclose(hit_at_k(relevance, 1), [0, 1, 0])
    np.testing.assert_allclose(hit_at_k(relevance, 2), [1, 1, 0])
    np.testing.assert_allclose(precision_at_k(relevance, 4), [1 / 2, 1 / 2, 0])
    np.testing.assert_allclose(precision_at_k(relevance, 8), [1 / 4, 1 / 4, 0])
    np.testing.assert_allclose(recall_at_k(relevance, relevant, 4), [2 / 3, 1, 0])
    np.testing.assert_allclose(reciprocal_rank(relevance), [1 / 2, 1, 0])
    np.testing.assert_allclose(average_precision(relevance, relevant), [(1 / 2 + 2 / 4) / 3, 1, 0])
    np.testing.assert_allclose(average_precision(relevance, relevant, 2), [(1 / 2) / 2, 1, 0])  # two of three could fit
    best = 1 + 1 / np.log2(3) + 1 / 2
    gain = 1 / np.log2(3) + 1 / np.log2(5)
    np.testing.assert_allclose(ndcg_at_k(relevance, binary_ideal(relevant, 4), 4)[:2], [gain / best, 1])


def test_grades_beyond_the_results_count_in_the_ideal() -> None:
    value = ndcg_at_k(np.array([[1.0, 0.0]]), np.array([[3.0, 1.0]]), 2)
    np.testing.assert_allclose(value, [1 / (3 + 1 / np.log2(3))])


def test_nothing_relevant_is_undefined_and_no_result_is_zero() -> None:
    nothing = np.zeros((1, 5))
    for value in (
        recall_at_k(nothing, np.array([0]), 3),
        average_precision(nothing, np.array([0])),
        ndcg_at_k(nothing, nothing, 3),
    ):
        assert np.isnan(value).all()
    empty = np.zeros((2, 0))
    metrics = ranking_metrics(empty, np.array([1, 2]), binary_ideal(np.array([1, 2]), 5), [1, 5], depth=10)
    assert all((values == 0).all() for values in metrics.values())


def test_ties_are_shuffled_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    scores = np.tile(np.float32([0.9, 0.5, 0.5 - 3e-7, 0.5 - 6e-7, 0.4, np.nan, np.nan]), (6000, 1))
    results = np.tile([7, 1, 2, 3, 9, -1, -1], (6000, 1))
    shuffled = shuffle_ties(scores, results, rng)
    np.testing.assert_array_equal(shuffled[:, [0, 4, 5, 6]], results[:, [0, 4, 5, 6]])
    orders, counts = np.unique(shuffled[:, 1:4], axis=0, return_counts=True)
    assert len(orders) == 6
    assert (np.abs(counts - 1000) < 5 * np.sqrt(1000)).all()
    assert shuffle_ties(scores[:, :0], results[:, :0], rng).shape == (6000, 0)


def test_shuffled_ties_are_worth_the_mean_over_their_orders() -> None:
    """scikit-learn's nDCG averages over ties in closed form."""
    rng = np.random.default_rng(0)
    grades, scores = rng.integers(0, 3, 12), np.round(np.sort(rng.random(12))[::-1] * 4)
    many = np.tile(grades, (20_000, 1))
    shuffled = shuffle_ties(np.tile(scores, (20_000, 1)), many, rng)
    values = ndcg_at_k(shuffled, descending(many), 5)
    expected = sk.ndcg_score(grades[None], scores[None], k=5)
    assert abs(values.mean() - expected) < 5 * values.std() / np.sqrt(20_000)


@pytest.mark.parametrize("depth", [4, 12, 30])
def test_chance_equals_the_mean_over_random_orders(depth: int) -> None:
    rng = np.random.default_rng(0)
    grades = np.zeros((4, 12))
    for row, relevant in zip(grades, (1, 3, 11, 12), strict=True):
        row[:relevant] = rng.integers(1, 4, relevant)
    relevant = (grades > 0).sum(axis=1)
    expected = expected_at_random(relevant, np.full(4, 12), descending(grades), grades.sum(axis=1), [1, 5, 20], depth=depth)
    orders = 20_000
    for i in range(4):
        shuffled = rng.permuted(np.tile(grades[i], (orders, 1)), axis=1)
        ideal = np.tile(descending(grades[i : i + 1]), (orders, 1))
        seen = ranking_metrics(shuffled, np.full(orders, relevant[i]), ideal, [1, 5, 20], depth=depth)
        assert seen.keys() == expected.keys()
        for name, values in seen.items():
            error = values.std() / np.sqrt(orders)
            assert abs(values.mean() - expected[name][i]) <= 5 * error + 1e-9, (name, i)


def test_chance_of_one_answer_is_k_over_the_gallery() -> None:
    expected = expected_at_random(
        np.ones(2), np.array([742, 157]), binary_ideal(np.ones(2), 10), np.ones(2), [1, 10], depth=1000
    )
    np.testing.assert_allclose(expected["hit@10"], [10 / 742, 10 / 157])
    np.testing.assert_allclose(expected["recall@1"], [1 / 742, 1 / 157])
    np.testing.assert_allclose(expected["mrr"], [(1 / np.arange(1, n + 1)).sum() / n for n in (742, 157)])
    np.testing.assert_allclose(expected["map"], expected["mrr"])


def test_chance_where_nothing_is_relevant_or_ranked() -> None:
    expected = expected_at_random(np.zeros(1), np.zeros(1), np.zeros((1, 5)), np.zeros(1), [5], depth=5)
    assert expected["hit@5"] == expected["mrr"] == 0
    assert np.isnan(expected["map"])
