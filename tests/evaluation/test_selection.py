"""What is selected is what the method says, on points that can be looked at."""

from __future__ import annotations

import numpy as np
import pytest

from embedstore.evaluation.selection import balanced, graded, margin, spread, typical, uncertain


def on_circle(*degrees: float) -> np.ndarray:  # type: ignore[type-arg]
    angle = np.radians(degrees)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)


def test_each_is_the_farthest_from_all_before_it() -> None:
    points = on_circle(0, 2, 4, 90, 100, 180, 40)
    chosen, distances = spread(points, 3, held=on_circle(1))
    assert chosen.tolist() == [5, 3, 6]
    np.testing.assert_allclose(distances, 1 - np.cos(np.radians([179, 89, 39])), atol=1e-6)
    unit = points[chosen]
    np.testing.assert_allclose(1 - (unit[2:] @ np.concatenate([on_circle(1), unit[:2]]).T).max(), distances[2], atol=1e-6)


def test_the_first_of_all_is_the_most_central_one() -> None:
    chosen, distances = spread(on_circle(0, 10, 20, 80), 2)
    assert chosen.tolist() == [2, 3]
    assert distances[0] == np.inf


def test_more_than_there_are_is_all_once() -> None:
    points = on_circle(0, 0, 0, 90)
    assert sorted(spread(points, 9)[0].tolist()) == [0, 1, 2, 3]
    assert sorted(typical(points, 9)[0].tolist()) == [0, 1, 2, 3]
    assert spread(points[:0], 3)[0].tolist() == typical(points[:0], 3)[0].tolist() == []


def test_the_typical_come_from_the_middle_of_clusters_that_hold_nothing_yet() -> None:
    rng = np.random.default_rng(0)
    centres = np.eye(4, 16, dtype=np.float32)
    which = np.repeat(np.arange(4), [40, 30, 20, 10])
    points = (centres[which] + 0.05 * rng.normal(size=(100, 16))).astype(np.float32)
    chosen, density = typical(points, 4, seed=1)
    assert which[chosen].tolist() == [0, 1, 2, 3]
    assert (density > 0.9).all()
    chosen, _ = typical(points, 2, held=centres[:2], seed=1)
    assert set(which[chosen].tolist()) == {2, 3}


def test_the_least_certain_have_the_smallest_margin() -> None:
    p = np.array([[0.9, 0.1, 0.0], [0.4, 0.35, 0.25], [0.5, 0.49, 0.01], [1, 0, 0]])
    np.testing.assert_allclose(margin(p), [0.8, 0.05, 0.01, 1])
    chosen, margins = uncertain(p, 2)
    assert chosen.tolist() == [2, 1]
    np.testing.assert_allclose(margins, [0.01, 0.05])


def test_items_are_asked_for_by_the_rank_of_their_margin() -> None:
    """Of 1,000 draws of one item the share of rank r is that of 1 / r; none is drawn twice, and of few items all are."""
    margins = np.random.default_rng(0).permutation(50) / 50
    rank = np.argsort(np.argsort(margins))
    firsts = np.bincount([rank[graded(margins, 1, seed)[0]] for seed in range(1000)], minlength=50) / 1000
    expected = 1 / np.arange(1, 51) / (1 / np.arange(1, 51)).sum()
    assert np.abs(firsts - expected).max() < 3 * np.sqrt(expected[0] * (1 - expected[0]) / 1000)
    assert len(set(graded(margins, 8, 0).tolist())) == 8
    assert sorted(graded(margins, 99, 0).tolist()) == list(range(50))
    assert graded(margins[:0], 3, 0).tolist() == []


def test_classes_with_few_items_come_first_and_their_likeliest_items() -> None:
    p = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.4, 0.6], [0.1, 0.9]])
    chosen, sure = balanced(p, 3, np.array([5, 3]))
    assert chosen.tolist() == [4, 2, 0]  # two of the class that lacks two, then one of each in turn
    np.testing.assert_allclose(sure, [0.9, 0.8, 0.9])
    assert balanced(p, 3, np.array([0, 0]))[0].tolist() == [0, 4, 1]
    assert balanced(p, 9, np.array([9, 0]))[0].tolist() == [4, 2, 3, 0, 1]


@pytest.mark.parametrize("n", [1, 7])
def test_spread_is_the_greedy_of_the_definition(n: int) -> None:
    rng = np.random.default_rng(3)
    points = rng.normal(size=(60, 5))
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    expected = [int(np.argmax(unit @ unit.mean(axis=0)))]
    while len(expected) < n:
        nearest = 1 - (unit @ unit[expected].T).max(axis=1)
        nearest[expected] = -1
        expected.append(int(np.argmax(nearest)))
    assert spread(points, n)[0].tolist() == expected
