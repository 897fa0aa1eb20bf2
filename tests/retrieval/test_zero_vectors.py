"""A vector of zeros has no direction: it is refused as a query, or counted, wherever vectors are searched or compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import embedstore as es
from embedstore.errors import UsageError
from embedstore.retrieval.batch import search_batch
from embedstore.retrieval.eval_search import eval_search


@pytest.fixture
def store(tmp_path: Path) -> es.Store:
    """Nine items in two classes; those with the ids 5 and 7 have vectors of zeros."""
    vectors = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    vectors[[5, 7]] = 0
    es.import_vectors(vectors, tmp_path / "s", modality="text", metadata={"label": [str(i % 2) for i in range(9)]})
    return es.Store.open(tmp_path / "s")


@pytest.mark.parametrize(
    "query", [{"id": "5"}, {"like": ["1", "5"]}, {"like": ["1"], "unlike": ["7"]}, {"vector": np.zeros(4)}]
)
def test_zeros_are_no_query(query: dict[str, object], store: es.Store) -> None:
    with pytest.raises(UsageError, match="all zeros; it has no direction to search in"):
        es.search(store, **query)


def test_an_id_is_searched_in_a_space_where_it_has_a_direction(store: es.Store) -> None:
    es.import_vectors(np.eye(9, 6, dtype=np.float32) + 0.1, store.path, space="more", modality="text")
    assert es.search(store.path, id="5", k=2).space == "more"
    with pytest.raises(UsageError, match="item '5' in space 'text' is all zeros"):
        es.search(store.path, id="5", space="text")


def test_examples_that_cancel_are_refused(tmp_path: Path) -> None:
    es.import_vectors(np.float32([[1, 0], [-1, 0], [0, 1]]), tmp_path / "s", modality="text")
    with pytest.raises(UsageError, match="cancel one another out"):
        es.search(tmp_path / "s", like=["0", "1"])


def test_a_batch_over_a_space_counts_them(store: es.Store, tmp_path: Path) -> None:
    report = search_batch(store, "text", tmp_path / "out.parquet", k=3)
    assert (report.queries, report.zeros, report.to_dict()["zeros"]) == (7, 2, 2)
    assert "2 items with a vector of zeros not asked" in str(report)
    assert set(pq.read_table(tmp_path / "out.parquet").column("query").to_pylist()) == set("0123468")
    with pytest.raises(UsageError, match="Query 1 is all zeros"):
        search_batch(store, np.float32([[1, 0, 0, 0], [0, 0, 0, 0]]), tmp_path / "x.parquet")


def test_eval_search_asks_the_others(store: es.Store, tmp_path: Path) -> None:
    report = eval_search(store, relevance="label")
    assert "2 items are no queries, for their vectors in text are all zeros" in report.notes
    assert report.to_dict()["queries"] == 7
    (tmp_path / "pairs.csv").write_text("query_id,id\n0,2\n5,3\n")
    report = eval_search(store, pairs=tmp_path / "pairs.csv")
    assert report.to_dict()["queries"] == 1
    assert any(note.startswith("1 of 2 pairs take no part: an item has no vector or one of zeros") for note in report.notes)


def test_they_are_copies_of_nothing(store: es.Store) -> None:
    for exact_only in (False, True):
        report = es.find_duplicates(store, exact_only=exact_only)
        assert report.clusters == []
        assert "2 items have imported vectors of zeros, which are like nothing." in report.notes
