"""Candidates are compared on the same items, with what a head of each alone would say."""

from __future__ import annotations

import json

import numpy as np
import pytest
from helpers import run

import embedstore as es
from embedstore.errors import UsageError
from embedstore.sources import MemorySource

N = 240


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> es.Store:
    """`good` tells the label, `poor` hardly; 30 items lack `poor`."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, N)
    path = tmp_path_factory.mktemp("compare") / "s.store"
    columns = {"id": [f"i{i}" for i in range(N)], "label": [f"c{k}" for k in label], "price": rng.normal(size=N).tolist()}
    es.embed(MemorySource({**columns, "text": [f"text {i}" for i in range(N)]}), path, text={"words": "hash:8"})
    eye = np.eye(3, dtype=np.float32)[label]
    for name, noise, some in (("good", 0.3, N), ("poor", 3.0, N - 30)):
        vectors = (eye + rng.normal(0, noise, (N, 3))).astype(np.float32)
        np.savez(path.parent / f"{name}.npz", values=vectors[:some], ids=np.array(columns["id"][:some]))
        es.import_vectors(path.parent / f"{name}.npz", path, space=name, modality="text")
    return es.Store.open(path)


def test_the_best_comes_first_and_the_others_are_behind(store: es.Store) -> None:
    report = es.compare(store, "label", cv=4, inputs=["poor", "good", "good, poor"], relevance="label", timed=0)
    assert report.items == N - 30
    assert [one.inputs for one in report.candidates][-1] == ["poor"]
    best, worst = report.candidates[0], report.candidates[-1]
    assert best.behind is None
    assert worst.behind is not None
    assert worst.behind.certain_gain
    difference = best.metrics["accuracy"].value - worst.metrics["accuracy"].value
    assert worst.behind.value == pytest.approx(difference)
    assert (worst.dimensions, worst.bytes) == (3, 6)
    by_name = {one.name: one for one in report.candidates}
    assert by_name["good + poor"].bytes == 12
    assert by_name["good + poor"].search is None
    found = by_name["good"].search
    assert found is not None
    alone = es.eval_search(store, relevance="label", source="good", target="good")
    assert found["map"] == (alone.deduplicated or alone.figures).metrics["map"]
    assert "30 items have no vector in one of the spaces poor, good and take no part" in report.notes


def test_a_candidate_alone_scores_what_train_says(store: es.Store) -> None:
    """Where no item lacks a space, the split and the folds are those of `train`."""
    report = es.compare(store, "label", inputs=["good", "words"], timed=0)
    trained = es.train(store, "label", inputs=["good"], report=False)
    assert report.candidates[0].metrics == trained.metrics
    assert report.evaluation == trained.evaluation
    assert {one.ms for one in report.candidates} == {None}


def test_numbers_are_compared_too(store: es.Store) -> None:
    report = es.compare(store, "price", inputs=["good", "words"], head="ridge", cv=3, timed=0)
    assert report.task == "regression"
    assert set(report.candidates[0].metrics) >= {"r2", "mae"}


def test_time_an_item_is_measured_where_the_encoder_is_there(store: es.Store) -> None:
    report = es.compare(store, "label", timed=5)
    ms = {one.name: one.ms for one in report.candidates}
    assert ms["words"] is not None
    assert 0 < ms["words"] < 1000
    assert ms["good"] is None
    assert "how long space 'good' takes an item is not known: its vectors were imported" in report.notes
    assert [one.inputs for one in report.candidates if len(one.inputs) > 1] == [["words", "good", "poor"]]


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        (["good"], "two candidates or more"),
        (["good", " good "], "two candidates or more"),
        (["good", "nope"], "has no space 'nope'. Spaces: words, good, poor"),
        (["good", ","], "a candidate without a space"),
    ],
)
def test_candidates_that_cannot_be_compared(store: es.Store, inputs: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        es.compare(store, "label", inputs=inputs)


def test_the_command_prints_and_says_json(store: es.Store) -> None:
    path = str(store.path)
    table = run("compare", path, "label", "--inputs", "good", "--inputs", "good,poor", "--cv", "3", "--timed", "0").stdout
    assert "behind, in accuracy" in table
    assert "210 items; 3-fold cross-validation" in " ".join(table.split())
    document = json.loads(run("compare", path, "label", "--timed", "2", "--json").stdout)
    assert {tuple(one["inputs"]) for one in document["candidates"]} >= {("words",), ("good",), ("poor",)}
    assert document["candidates"][0]["behind"] is None
    assert "two candidates" in run("compare", path, "label", "--inputs", "good", code=2).stderr
