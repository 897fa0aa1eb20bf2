"""Search over several vectors an item: equal to comparing everything in float64, exactly or as near as the index says."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from words import DIM, Words, embedded, texts, word_vector

import embedstore as es
from embedstore._core.unit import unit_rows
from embedstore.retrieval.batch import search_batch
from embedstore.retrieval.search_options import SearchOptions
from embedstore.retrieval.searcher import Searcher
from embedstore.retrieval.several_vectors import best_items
from embedstore.retrieval.together import answer_all
from embedstore.sources import MemorySource

N = 400


@pytest.fixture(scope="module")
def given() -> list[str]:
    return texts(N, seed=4)


@pytest.fixture(scope="module")
def store(given: list[str], tmp_path_factory: pytest.TempPathFactory) -> es.Store:
    return embedded(tmp_path_factory.mktemp("pieces") / "s", given, n=list(range(N)))


def stored(text: str) -> Any:
    vectors = np.stack([word_vector(word) for word in text.split()]).astype(np.float16).astype(np.float64)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def max_sims(query: Any, given: list[str]) -> Any:
    """Of a query (q, dim) to each text, in float64."""
    return np.array([(query @ stored(text).T).max(axis=1).mean() for text in given])


def unit(vector: Any) -> Any:
    return vector / np.linalg.norm(vector)


def test_a_vector_finds_the_items_with_the_nearest_pieces(store: es.Store, given: list[str]) -> None:
    for seed in range(5):
        query = np.random.default_rng(seed).normal(size=DIM)
        found = es.search(store, vector=query, k=30)
        best = max_sims(unit(query)[None], given)
        assert [hit.score for hit in found.results] == pytest.approx(np.sort(best)[::-1][:30], abs=2e-3)
        for hit in found.results:
            own = given[hit.metadata["n"]]
            near = int((stored(own) @ unit(query)).argmax())
            assert hit.piece is not None
            assert own.split()[hit.piece.number] == own.split()[near]
            assert (hit.piece.unit, hit.piece.start, hit.piece.end) == ("word", hit.piece.number, hit.piece.number + 1)
            assert hit.score == pytest.approx(best[hit.metadata["n"]], abs=2e-3)


def test_no_more_pieces_are_looked_at_than_decide_it(store: es.Store, given: list[str]) -> None:
    """The first look of each vector is for twice the pieces of k items; it goes on until no unseen item can be better."""
    space, searcher = store.space("text"), Searcher(store)
    each = -(-len(space.raw_rows) // len(space))
    for seed in range(5):
        query = unit_rows(np.random.default_rng(seed).normal(size=(3, DIM)).astype(np.float32))
        looks: list[int] = []

        def search(at: Any, deep: int, query: Any = query, looks: list[int] = looks) -> Any:
            looks.append(deep)
            return searcher._finder(searcher.queries.space("text"), query, None, None)(at, deep)

        rows, scores = best_items(search, searcher.queries.space("text"), query, 10)
        assert looks[0] == 2 * 10 * each
        assert all(later == min(2 * before, len(space.raw_rows)) for before, later in pairwise(looks))
        best = max_sims(query.astype(np.float64), given)
        assert scores == pytest.approx(np.sort(best)[::-1][:10], abs=2e-3)
        assert best[rows] == pytest.approx(scores, abs=2e-3)


def test_filters_offsets_and_bounds_count_items(store: es.Store, given: list[str]) -> None:
    query = word_vector("w3")
    best = max_sims(unit(query.astype(np.float64))[None], given)
    some = es.search(store, vector=query, k=1000, where="n < 100")
    assert len({hit.id for hit in some.results}) == len(some.results) == 100
    page = es.search(store, vector=query, k=5, offset=95, where="n < 100")
    assert [hit.id for hit in page.results] == [hit.id for hit in some.results][95:]
    every = es.search(store, vector=query, k=1000)
    assert len(every.results) == N
    near = es.search(store, vector=query, k=1000, min_score=0.99)
    assert {hit.id for hit in near.results} == {f"i{i}" for i in np.flatnonzero(best > 0.99)}


def test_an_item_is_compared_by_all_of_its_pieces(store: es.Store, given: list[str]) -> None:
    for item in (0, 17, 101):
        found = es.search(store, id=f"i{item}", k=25)
        best = max_sims(stored(given[item]), given)
        best[item] = -1
        assert f"i{item}" not in [hit.id for hit in found.results]
        assert [hit.score for hit in found.results] == pytest.approx(np.sort(best)[::-1][:25], abs=2e-3)


def test_an_index_over_pieces_says_its_recall_and_keeps_it(tmp_path: Path) -> None:
    given = texts(N, seed=4, words=4000)
    store = embedded(tmp_path / "s", given, n=list(range(N)))
    report = es.index(store, factory="HNSW16", recall=0.9)
    assert report.n == sum(len(text.split()) for text in given)
    searcher = Searcher(store, resident=True)
    hits, all_of_them = 0, 0
    for item in range(0, N, 8):
        exact = [hit.id for hit in searcher.search(id=f"i{item}", k=10, recall=1.0).results]
        approximate = searcher.search(id=f"i{item}", k=10)
        hits += len(set(exact) & {hit.id for hit in approximate.results})
        all_of_them += len(exact)
    assert hits >= 0.9 * all_of_them
    assert not approximate.index["exact"]


def test_many_queries_and_the_graph_of_all_items(store: es.Store, given: list[str], tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    queries = np.random.default_rng(1).normal(size=(20, DIM)).astype(np.float32)
    report = search_batch(store, queries, tmp_path / "n.parquet", k=5)
    assert report.neighbours == 100
    table = pq.read_table(tmp_path / "n.parquet").to_pydict()
    for i, query in enumerate(unit_rows(queries)):
        best = np.sort(max_sims(query[None].astype(np.float64), given))[::-1][:5]
        assert table["score"][5 * i : 5 * i + 5] == pytest.approx(best, abs=2e-3)


def test_several_queries_are_added_up_as_vectors(store: es.Store) -> None:
    both = es.search(store, id=["i0", "i1"], k=3)
    assert len(both.results) == 3
    assert all(hit.piece for hit in both.results)


def test_readers_of_single_vectors_see_the_mean(store: es.Store, given: list[str]) -> None:
    space = store.spaces["text"]
    means = np.stack([np.mean([word_vector(word) for word in text.split()], axis=0) for text in given])
    assert np.allclose(space.vectors(), means, atol=2e-3)
    assert len(space.vectors()) == len(space.rows) == N


def test_a_store_of_nothing_and_an_item_of_one_piece(tmp_path: Path) -> None:
    store = embedded(tmp_path / "s", ["w1"])
    found = es.search(store, id="i0", k=3)
    assert found.results == []
    found = es.search(store, vector=word_vector("w1"), k=3)
    assert [(hit.id, hit.piece.number if hit.piece else None) for hit in found.results] == [("i0", 0)]
    empty = es.Store.open(tmp_path / "s").remove(["i0"])
    assert es.search(empty, vector=word_vector("w1"), k=3).results == []


def test_all_items_as_queries_are_asked_by_all_of_their_pieces(store: es.Store, given: list[str], tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    search_batch(store, "text", tmp_path / "n.parquet", k=4)
    table = pq.read_table(tmp_path / "n.parquet").to_pydict()
    for item in range(0, N, 40):
        best = max_sims(stored(given[item]), given)
        best[item] = -1
        mine = [score for query, score in zip(table["query"], table["score"], strict=True) if query == f"i{item}"]
        assert mine == pytest.approx(np.sort(best)[::-1][:4], abs=2e-3)


def test_pieces_that_cancel_one_another_are_a_query_all_the_same(tmp_path: Path) -> None:
    class Opposite(Words):
        def encode_pieces(self, batch: Any) -> Any:
            vectors, pieces = super().encode_pieces(batch)
            pieces.vectors[1::2] = -pieces.vectors[::2]
            return 0 * vectors, pieces

    es.embed(MemorySource({"id": ["a", "b"], "text": ["w1 w2", "w1 w3"]}), tmp_path / "s", text=Opposite())
    (found,) = es.search(tmp_path / "s", id="a").results
    assert (found.id, round(found.score, 3)) == ("b", 1.0)


def test_a_space_without_any_piece_left_finds_nothing(tmp_path: Path) -> None:
    store = embedded(tmp_path / "s", ["w1 w2", "w3"]).remove(["i0", "i1"])
    es.compact(store)
    assert es.search(tmp_path / "s", vector=word_vector("w1")).results == []


def test_texts_that_are_asked_together_get_the_answers_of_each_alone(tmp_path: Path) -> None:
    es.embed(MemorySource({"id": ["a", "b", "c"], "text": ["x", "y", "z"]}), tmp_path / "s", text="hash:16")
    searcher = Searcher(es.Store.open(tmp_path / "s"))
    texts_asked = [SearchOptions(text=text) for text in ("x", "y")]
    together = answer_all(searcher, texts_asked)
    alone = [searcher.answer(one) for one in texts_asked]
    assert [one.results for one in together] == [one.results for one in alone]  # type: ignore[union-attr]
