"""Search against float64, filters, and queries that cannot be compared."""

from __future__ import annotations

import csv
import gc
import json
import pickle
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import Telling, run

import embedstore as es
from embedstore.encoders import ENCODERS, EncoderRequest
from embedstore.encoders.hash import HashEncoder
from embedstore.errors import FingerprintError, PayloadError, SourceError, UsageError
from embedstore.indexing.exact import ExactIndex
from embedstore.retrieval.fusion import RRF, folded
from embedstore.sources import MemorySource


@pytest.mark.parametrize("queries", [1, 3, 4, 64])
@pytest.mark.parametrize("subset", [False, True])
def test_exact_index_equals_float64(queries: int, subset: bool) -> None:
    rng = np.random.default_rng(0)
    base = rng.standard_normal((20_000, 48)).astype(np.float16)
    asked = rng.standard_normal((queries, 48))
    positions = np.sort(rng.choice(20_000, 700, replace=False)) if subset else np.arange(20_000)
    index = ExactIndex(base)
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)  # noqa: E731
    expected = unit(asked) @ unit(base[positions].astype(np.float64)).T
    order = np.argsort(-expected, axis=1)[:, :10]
    for _ in range(3):  # the second search keeps columns, the third finds them
        scores, found = index.search(asked, 10, subset=positions if subset else None)
        np.testing.assert_array_equal(found, positions[order])
        np.testing.assert_allclose(scores, np.take_along_axis(expected, order, axis=1), atol=1e-5)


def test_exact_index_edges() -> None:
    index = ExactIndex(np.concatenate([np.zeros((2, 4)), np.ones((1, 4))]))
    scores, found = index.search(np.ones((1, 4)), 10)
    assert scores.shape == (1, 3)
    assert found[0, 0] == 2
    np.testing.assert_allclose(scores[0], [1, 0, 0], atol=1e-6)
    assert index.search(np.ones((2, 4)), 5, subset=np.array([], dtype=int))[0].shape == (2, 0)


def test_by_text_image_id_and_vector_agree(store: es.Store, table: Path) -> None:
    by_text = es.search(store, text="text 4", k=3)
    assert (by_text.results[0].id, by_text.space) == ("item-04", "text")
    assert by_text.results[0].score == pytest.approx(1, abs=1e-3)
    assert by_text.results[0].metadata == {"label": "even", "price": 6.0}
    by_image = es.search(store, image=table.parent / "images" / "4.png", k=3)
    assert (by_image.results[0].id, by_image.space) == ("item-04", "image")
    vector = store.space("text").take(store.items.rows_of(["item-04"]))[0]
    declared = es.QueryVector(vector, store.space("text").fingerprint)
    by_vector = es.search(store, vector=declared, k=3)
    assert [h.id for h in by_vector.results] == [h.id for h in by_text.results]
    by_id = es.search(store, id="item-04", space="text", k=2)
    assert [h.id for h in by_id.results] == [h.id for h in by_text.results[1:]]  # without itself
    assert [h.rank for h in by_id.results] == [1, 2]


@pytest.mark.parametrize(
    "asked",
    [
        {"text": "text 4"},
        {"text": "text 4", "offset": 3},
        {"text": "text 4", "diversity": 0.5},
        {"text": "text 4", "group_by": "label"},
        {"text": "text 4", "fold": 0.5},
        {"id": "item-04", "spaces": {"image": 1.0, "text": 1.0}},
        {"like": ["item-01"], "unlike": ["item-02"], "space": "text"},
        {"id": "item-04", "space": "text", "where": "label = 'odd'"},
    ],
    ids=str,
)
def test_hits_say_their_rows(store: es.Store, asked: dict[str, Any]) -> None:
    store = store.remove(["item-00"])
    found = es.search(store, k=5, **asked).results
    assert found
    assert [hit.row for hit in found] == store.items.rows_of([hit.id for hit in found]).tolist()


def test_where_returns_min_k_matching(store: es.Store) -> None:
    assert len(es.search(store, text="x", k=5, where="label = 'odd'").results) == 5
    found = es.search(store, text="x", k=50, where="label = 'odd' AND price > 9")
    assert sorted(h.id for h in found.results) == ["item-07", "item-09", "item-11"]
    assert es.search(store, text="x", where="false").results == []
    removed = store.remove(["item-07"])
    assert "item-07" not in [h.id for h in es.search(removed, text="x", k=50).results]


def test_foreign_vectors_are_refused_with_both_fingerprints(store: es.Store, tmp_path: Path) -> None:
    foreign = HashEncoder(16, "image").spec.fingerprint
    path = tmp_path / "q.npz"
    es.QueryVector(np.ones(16), foreign).save(path)
    with pytest.raises(FingerprintError) as error:
        es.search(store, vector=es.QueryVector.load(path))
    assert foreign in str(error.value)
    assert store.space("text").fingerprint in str(error.value)
    with pytest.raises(FingerprintError, match=r"no declared fingerprint.*fingerprint [0-9a-f]{16}"):
        es.search(store, vector=np.ones(7))


def test_an_undeclared_vector_is_noted(store: es.Store) -> None:
    result = es.search(store, vector=np.ones(16))
    assert result.note is not None
    assert "does not say which encoder made it" in result.note
    assert "note" in result.to_dict()


def test_another_model_under_the_same_name_is_refused(store: es.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENCODERS._extra, "hash", lambda request: HashEncoder(17, request.modality, request.name))
    with pytest.raises(FingerprintError, match="that name now loads hash:16"):
        es.search(store, text="x")


def test_queries_that_cannot_be_compared_say_what_can(store: es.Store, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"A text cannot be compared with space 'image' \(hash:32, image only\)") as error:
        es.search(store, text="x", space="image")
    for way in ("--image FILE", "--id ID", "--space text"):
        assert way in str(error.value)
    es.embed(MemorySource({"id": ["a"], "text": ["b"]}), tmp_path / "t", text="hash")
    with pytest.raises(UsageError, match=r"An image cannot be compared with space 'text'.*--text WORDS.*--image clip"):
        es.search(tmp_path / "t", image="x.png")


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({}, "Say what to search for"),
        ({"text": ["a", "b"], "weights": [1.0]}, "2 queries but 1 weights"),
        ({"text": "a", "weights": [0.0]}, "not all zero"),
        ({"text": "a", "weights": [1e39]}, "numbers that float32 holds"),
        ({"text": "a", "weights": ["x"]}, "weights must be numbers"),
        ({"text": "a", "wheer": "n < 3"}, "A search has no option 'wheer'. It has: text, image"),
        ({"text": b"a"}, r"text must be a string or strings. Got b'a'"),
        ({"image": 3}, "image must be a path or paths. Got 3"),
        ({"text": "a", "diversity": None}, "diversity must be a number. Got None"),
        ({"text": "a", "min_score": float("nan")}, "min_score must be a number"),
        ({"text": "a", "fusion": "best"}, "fusion must be one of score, rrf"),
        ({"text": "a", "diversity": 2}, "diversity must lie between"),
        ({"text": "a", "offset": -1}, "offset must be at least 0"),
        ({"text": "a", "recall": 2}, "recall must lie between"),
        ({"text": "a", "group_by": "nope"}, "No column is called 'nope'"),
        ({"unlike": ["item-01"]}, "at least one --like"),
        ({"text": "  "}, "empty"),
        ({"text": "a", "k": 0}, "k must be at least 1"),
        ({"id": "nobody"}, "No item has the id 'nobody'"),
        ({"id": "item-03", "space": "text"}, "has no vector in text"),
        ({"text": "a", "space": "nope"}, "no space 'nope'. Spaces: image, text"),
        ({"text": "a", "columns": ["nope"]}, "No column is called 'nope'"),
        ({"vector": np.full(16, np.nan)}, "NaN, infinity"),
        ({"vector": np.full(16, 1e300)}, "float32 cannot hold"),
        ({"vector": np.zeros(16)}, "has no direction"),
        ({"text": "a", "k": 2.5}, "k must be a whole number"),
        ({"vector": np.ones((2, 16))}, "should be numbers of shape"),
    ],
)
def test_usage_errors(store: es.Store, query: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words.replace(".", r"\.")):
        es.search(store, **query)  # type: ignore[arg-type]


def test_aligned_spaces_find_images_by_text(tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An encoder with two modalities in one alignment: a text query goes to the image space, encoded by the text side."""

    class Aligned(HashEncoder):
        def __init__(self, request: EncoderRequest) -> None:
            super().__init__(8, request.modality, request.name)
            from dataclasses import replace

            self.spec = replace(self.spec, alignment="pair")

    monkeypatch.setitem(ENCODERS._extra, "pair", Aligned)
    es.embed(table, tmp_path / "p", image="pair")
    assert es.search(tmp_path / "p", text="a dog", k=2).space == "image"


def test_json_document(store: es.Store) -> None:
    document = json.loads(json.dumps(es.search(store, text="text 1", k=1).to_dict()))
    assert document["results"][0].keys() == {"rank", "id", "score", "label", "price"}
    assert document["index"] == {"type": "flat", "exact": True, "recall": 1.0, "plan": "exact"}
    assert set(document["took_ms"]) == {"encode", "load", "search", "fetch"}


M = 120


def mixed_store(path: Path) -> es.Store:
    """120 items in two spaces of six and four numbers, with a few groups; some lack the second."""
    rng = np.random.default_rng(0)

    def texts(dim: int) -> list[str]:
        return [" ".join(f"{v:.3f}" for v in row) for row in rng.standard_normal((M, dim)) + 0.3]

    data: dict[str, Any] = {"id": [f"i{i}" for i in range(M)], "text": texts(6), "label": [f"g{i % 7}" for i in range(M)]}
    es.embed(MemorySource(data | {"n": list(range(M))}), path, text={"one": Telling(6, "text", "one")})
    store = es.Store.open(path)
    half = {"id": data["id"][:90], "text": data["text"][:90], "label": data["label"][:90], "n": list(range(90))}
    es.embed(MemorySource(half), path, text={"two": Short("two")})
    return store.refresh()


class Short(Telling):
    """The first four numbers, turned round."""

    def __init__(self, name: str) -> None:
        super().__init__(4, "text", name)

    def encode(self, batch):  # type: ignore[no-untyped-def]
        return super().encode(batch)[:, 3::-1] ** 2 - 0.5


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> es.Store:
    return mixed_store(tmp_path_factory.mktemp("mixed") / "m.store")


def unit(store: es.Store, space: str) -> np.ndarray[Any, Any]:
    """Unit vectors (M, dim) in float64 by number of the item; NaN where there is none."""
    held = store.space(space)
    out = np.full((M, held.dim), np.nan)
    vectors = np.asarray(held.vectors(), np.float64)
    out[held.rows] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return out


def ids(result: es.SearchResult) -> list[str]:
    return [hit.id for hit in result.results]


def named(order: Any) -> list[str]:
    return [f"i{i}" for i in order]


def test_several_queries_in_one_space_add_up(mixed: es.Store) -> None:
    one = unit(mixed, "one")
    asked = 2.0 * one[3] - 0.5 * one[8]
    scores = one @ asked / np.linalg.norm(asked)
    scores[[3, 8]] = -9
    result = es.search(mixed, id=["i3", "i8"], weights=[2.0, -0.5], space="one", k=12)
    assert ids(result) == named(np.argsort(-scores)[:12])
    np.testing.assert_allclose([h.score for h in result.results], np.sort(scores)[::-1][:12], atol=1e-4)


def test_like_and_unlike_are_rocchio(mixed: es.Store) -> None:
    one = unit(mixed, "one")
    asked = one[[1, 2]].mean(axis=0) - 0.5 * one[[5, 6, 7]].mean(axis=0)
    scores = one @ asked / np.linalg.norm(asked)
    scores[[1, 2, 5, 6, 7]] = -9
    result = es.search(mixed, like=["i1", "i2"], unlike=["i5", "i6", "i7"], space="one", k=15)
    assert ids(result) == named(np.argsort(-scores)[:15])
    plain = es.search(mixed, like=["i1", "i2"], space="one", k=115)
    place = {hit.id: hit.score for hit in plain.results}
    away = {hit.id: hit.score for hit in es.search(mixed, like=["i1", "i2"], unlike=["i50"], space="one", k=115).results}
    near_unlike = named(np.argsort(-(one @ one[50]))[1:6])
    assert np.mean([away[i] - place[i] for i in near_unlike if i in away]) < 0


def two_space_query(store: es.Store) -> tuple[es.Searcher, list[Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Queries i4 in space one and i9 in space two, and their cosines to everything."""
    searcher = es.Searcher(store)
    asked = [searcher.queries.item("i4", "one"), searcher.queries.item("i9", "two")]
    one, two = unit(store, "one"), unit(store, "two")
    return searcher, asked, one @ one[4], two @ two[9]


def fused(store: es.Store, fusion: str, weights: list[float], **query: Any) -> es.SearchResult:
    from dataclasses import replace

    searcher, asked, _, _ = two_space_query(store)
    searcher.asked = lambda query: [replace(a, weight=w) for a, w in zip(asked, weights, strict=True)]  # type: ignore[method-assign]
    return searcher.search(fusion=fusion, **query)


def test_rank_fusion_by_hand(mixed: es.Store) -> None:
    _, _, one, two = two_space_query(mixed)
    points = np.zeros(M)
    for cosines, weight in ((one, 1.0), (two, 3.0)):
        cosines = np.where(np.isin(np.arange(M), [4, 9]), np.nan, cosines)
        order = np.argsort(-cosines)  # NaN last
        order = order[~np.isnan(cosines[order])]
        points[order] += weight / (RRF + 1 + np.arange(len(order)))
    result = fused(mixed, "rrf", [1.0, 3.0], k=20)
    assert ids(result) == named(np.argsort(-points, kind="stable")[:20])
    np.testing.assert_allclose([h.score for h in result.results], np.sort(points)[::-1][:20], atol=1e-6)
    assert result.space == "one + two"


def test_score_fusion_by_hand(mixed: es.Store) -> None:
    _, _, one, two = two_space_query(mixed)
    total = np.zeros(M)
    for cosines, weight in ((one, 1.0), (two, 3.0)):
        usual = cosines[~np.isnan(cosines)]
        total += weight * np.nan_to_num((cosines - usual.mean()) / usual.std())
    total /= 4
    total[[4, 9]] = -9
    result = fused(mixed, "score", [1.0, 3.0], k=20)
    assert ids(result) == named(np.argsort(-total)[:20])
    np.testing.assert_allclose([h.score for h in result.results], np.sort(total)[::-1][:20], atol=2e-3)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> es.Store:
    """4,000 items with vectors at random in two spaces: few are near to both queries, and none is first for both."""
    path, rng = tmp_path_factory.mktemp("wide") / "s", np.random.default_rng(3)
    ids = [f"i{i}" for i in range(4000)]
    for space, dim, missing in (("one", 32, 0), ("two", 24, 400)):
        vectors = rng.standard_normal((4000 - missing, dim)).astype(np.float32)
        es.import_vectors(vectors, path, modality="image", space=space, ids=ids[missing:])
    return es.Store.open(path)


@pytest.mark.parametrize("fusion", ["score", "rrf"])
def test_fused_is_what_everything_fused_is(wide: es.Store, fusion: str) -> None:
    """Nothing that is nowhere among the first is lost: against all scores and all ranks, by hand."""
    total, spaces = np.zeros(4000), {"one": 1.0, "two": 1.0}
    for name in spaces:
        space = wide.space(name)
        cosines = np.full(4000, np.nan)
        vectors = space.vectors().astype(np.float64)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        cosines[space.rows] = vectors @ vectors[space.rows.tolist().index(1234)]
        if fusion == "score":
            some = np.random.default_rng(0).choice(space.rows, 1000, replace=False)
            total += np.nan_to_num((cosines - cosines[some].mean()) / cosines[some].std()) / 2
        else:
            cosines[1234] = np.nan
            order = np.argsort(-cosines)[: np.isfinite(cosines).sum()]
            total[order] += 1 / (RRF + 1 + np.arange(len(order)))
    total[1234] = -9
    for how in ({"k": 10}, {"k": 600}, {"k": 10, "offset": 590}):
        result = es.search(wide, id="i1234", spaces=spaces, fusion=fusion, **how)
        expected = np.argsort(-total, kind="stable")[how.get("offset", 0) :][: how["k"]]
        assert ids(result) == named(expected)
        np.testing.assert_allclose([hit.score for hit in result.results], total[expected], atol=1e-4)
        assert result.index["exact"]
    least = float(total[expected[0]])
    found = es.search(wide, id="i1234", spaces=spaces, fusion=fusion, k=600, min_score=least - 1e-6)
    assert ids(found) == named(np.argsort(-total, kind="stable")[:591])


def test_min_score(mixed: es.Store) -> None:
    whole = es.search(mixed, id="i4", space="one", k=M)
    limit = whole.results[9].score
    found = es.search(mixed, id="i4", space="one", k=M, min_score=limit - 1e-6)
    assert ids(found) == ids(whole)[:10]
    assert es.search(mixed, id="i4", space="one", min_score=1.1).results == []
    assert ids(es.search(mixed, id="i4", space="one", k=5, offset=8, min_score=limit - 1e-6)) == ids(whole)[8:10]


@pytest.mark.parametrize("diversity", [0.2, 0.5, 1.0])
def test_diversity_is_maximal_marginal_relevance(mixed: es.Store, diversity: float) -> None:
    one = unit(mixed, "one")
    relevance = one @ one[4]
    left = [i for i in np.argsort(-relevance) if i != 4][:100]
    chosen: list[int] = []
    while len(chosen) < 12:
        worth = [
            (1 - diversity) * relevance[i] - (diversity * max(one[i] @ one[j] for j in chosen) if chosen else 0) for i in left
        ]
        chosen.append(int(left.pop(int(np.argmax(worth)))))
    result = es.search(mixed, id="i4", space="one", k=12, diversity=diversity)
    assert ids(result)[1:] == named(chosen)[1:] or diversity == 1.0  # then the first is any
    assert (ids(result)[0] == named(chosen)[0]) or diversity == 1.0
    np.testing.assert_allclose([h.score for h in result.results], [relevance[int(h.id[1:])] for h in result.results], atol=1e-3)


def test_group_by(mixed: es.Store) -> None:
    order = ids(es.search(mixed, id="i4", space="one", k=M))
    for limit in (1, 2, 40):
        count: dict[int, int] = {}
        expected = []
        for item in order:
            group = int(item[1:]) % 7
            count[group] = count.get(group, 0) + 1
            if count[group] <= limit:
                expected.append(item)
        found = es.search(mixed, id="i4", space="one", k=50, group_by="label", per_group=limit)
        assert ids(found) == expected[:50]


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"group_by": "label", "per_group": 5},
        {"diversity": 0.4},
        {"diversity": 0.4, "group_by": "label", "per_group": 5},
        {"where": "n % 2 = 0"},
        {"where": "n % 2 = 0", "diversity": 0.7},
        {"min_score": 0.1},
    ],
)
def test_pages_are_one_long_page(mixed: es.Store, how: dict[str, Any]) -> None:
    searcher = es.Searcher(mixed)
    whole = searcher.search(id="i4", space="one", k=60, **how)
    for size in (1, 7, 20):
        pages: list[Any] = []
        for offset in range(0, 60, size):
            pages += searcher.search(id="i4", space="one", k=min(size, 60 - offset), offset=offset, **how).results
        assert [(h.rank, h.id, h.score) for h in pages] == [(h.rank, h.id, h.score) for h in whole.results]
    beyond = searcher.search(id="i4", space="one", k=5, offset=500, **how)
    assert beyond.results == []


def test_diverse_pages_go_on_beyond_the_first_pool(mixed: es.Store) -> None:
    found = es.search(mixed, id="i4", space="one", k=M, diversity=0.5)
    assert sorted(ids(found)) == sorted(ids(es.search(mixed, id="i4", space="one", k=M)))


def indexed_store(path: Path) -> es.Store:
    from embedstore.retrieval.index import index

    store = mixed_store(path)
    index(store, "one", factory="IVF8,SQ8", recall=0.6)
    return store


def test_the_least_certain_search_is_told(tmp_path: Path) -> None:
    """Of two spaces joined, one has an index: the answer is not called exact."""
    store = indexed_store(tmp_path / "s")
    for fusion in ("score", "rrf"):
        result = fused(store, fusion, [1.0, 1.0], k=5)
        assert not result.index["exact"]
        assert result.index["type"] == "IVF8,SQ8"
        assert 0.6 <= result.index["low"] <= result.index["recall"] <= 1
        assert fused(store, fusion, [1.0, 1.0], k=5, recall=1.0).index["exact"]


def test_recall_of_one_is_exact(tmp_path: Path) -> None:
    store = indexed_store(tmp_path / "s")
    one = unit(store, "one")
    scores = one @ one[4]
    scores[4] = -9
    result = es.search(store, id="i4", space="one", k=20, recall=1)
    assert result.index["exact"]
    assert ids(result) == named(np.argsort(-scores)[:20])
    document = es.search(store, id="i4", space="one", k=20).to_dict()
    assert document["index"].keys() == {"type", "exact", "recall", "low", "at", "plan"}


def read_back(path: Path) -> list[tuple[str, int, str, float]]:
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        rows = pq.read_table(path).to_pylist()
    elif path.suffix == ".csv":
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    else:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [(r["query"], int(r["rank"]), r["id"], float(r["score"])) for r in rows]


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_batches_equal_brute_force(mixed: es.Store, tmp_path: Path, suffix: str) -> None:
    one = unit(mixed, "one")
    queries = np.random.default_rng(1).standard_normal((30, 6))
    np.save(tmp_path / "q.npy", queries)
    report = es.search_batch(mixed, tmp_path / "q.npy", tmp_path / f"out{suffix}", k=4, where="n < 50")
    scores = (queries / np.linalg.norm(queries, axis=1, keepdims=True)) @ one[:50].T
    best = np.argsort(-scores, axis=1)[:, :4]
    found = read_back(tmp_path / f"out{suffix}")
    assert [row[:3] for row in found] == [(str(q), r + 1, f"i{best[q, r]}") for q in range(30) for r in range(4)]
    np.testing.assert_allclose([row[3] for row in found], np.take_along_axis(scores, best, 1).ravel(), atol=1e-4)
    assert (report.queries, report.neighbours, report.space, report.index["exact"]) == (30, 120, "one", True)
    assert not list(tmp_path.glob("*.tmp"))


def test_the_neighbour_graph_leaves_out_each_item_itself(mixed: es.Store, tmp_path: Path) -> None:
    two = unit(mixed, "two")[:90]
    es.search_batch(mixed, "two", tmp_path / "graph.parquet", k=5)
    found = read_back(tmp_path / "graph.parquet")
    scores = two @ two.T
    np.fill_diagonal(scores, -9)
    assert len(found) == 90 * 5
    assert all(query != item for query, _, item, _ in found)
    np.testing.assert_allclose([row[3] for row in found], np.sort(scores, axis=1)[:, :-6:-1].ravel(), atol=1e-3)


@pytest.mark.parametrize(
    ("queries", "out", "words"),
    [
        ("one", "x.txt", "one of .csv, .parquet, .jsonl"),
        ("one", None, "Say where to write"),
        ("nowhere.npy", "x.csv", "neither a file nor a space. Spaces: one, two"),
        (np.ones((2, 5)), "x.csv", "Queries of 5 numbers fit 0 spaces"),
        (np.ones(6), "x.csv", "shape (m, dim)"),
        (np.full((2, 6), np.nan), "x.csv", "Query 0 holds NaN"),
    ],
)
def test_batches_that_cannot_be(mixed: es.Store, tmp_path: Path, queries: Any, out: str | None, words: str) -> None:
    with pytest.raises(UsageError) as error:
        es.search_batch(mixed, queries, out and tmp_path / out)
    assert words in str(error.value)
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".csv"]


def test_nearest_among_and_without(mixed: es.Store) -> None:
    one = unit(mixed, "one")
    searcher, space = es.Searcher(mixed), mixed.space("one")
    rows = np.arange(10, 40)
    scores, found = searcher.nearest(space, one[:5], 40, exclude=np.array([10, 11, -1, 100, 12]), among=rows)
    assert (found[:, 30:] == -1).all()
    assert np.isnan(scores[:, 30:]).all()
    for i, own in enumerate([10, 11, -1, 100, 12]):
        kept = [r for r in rows if r != own]
        order = np.argsort(-(one[kept] @ one[i]))
        assert found[i, : len(kept)].tolist() == [kept[j] for j in order]


def test_text_finds_images_through_an_alignment(tmp_path: Path) -> None:
    """Aligned spaces are searched like any other, with an index of their own, by text."""
    rng = np.random.default_rng(0)
    hidden = rng.standard_normal((M, 4))
    turned = hidden @ rng.standard_normal((4, 4))

    def payloads(vectors: np.ndarray[Any, Any]) -> list[str]:
        return [" ".join(f"{v:.3f}" for v in row) for row in vectors + 0.01 * rng.standard_normal(vectors.shape)]

    files = []
    for i, payload in enumerate(payloads(turned)):
        (tmp_path / f"{i}.txt").write_text(payload)
        files.append(str(tmp_path / f"{i}.txt"))
    data = {"id": [f"i{i}" for i in range(M)], "text": payloads(hidden), "image": files}
    es.embed(MemorySource(data), tmp_path / "s", text=Telling(4, "text", "told"), image=Telling(4, "image", "seen"))
    from embedstore.retrieval.index import index

    es.align(tmp_path / "s", "text", "image")
    store = es.Store.open(tmp_path / "s")
    searcher = es.Searcher(store)
    source, target = (searcher.queries.space(name) for name in ("aligned.text", "aligned.image"))
    texts, images = (np.asarray(space.vectors(), np.float64) for space in (source, target))
    scores, rows = searcher.nearest(target, source.vectors(), 3)
    np.testing.assert_array_equal(rows, np.argsort(-(texts @ images.T), axis=1)[:, :3])
    assert np.mean(rows[:, 0] == np.arange(M)) > 0.9
    report = index(store, "aligned.image", factory="IVF4,SQ8", recall=0.6)
    assert {"held out", "aligned.text → aligned.image"} <= report.levels[0].recall.keys()
    again = es.Searcher(store)
    approximate, _ = again.nearest(target, source.vectors(), 3)
    assert again.answered()["type"] == "IVF4,SQ8"
    assert np.mean(approximate >= scores[:, 2:] - 1e-5) >= 0.6
    assert es.verify(store).clean


def test_command_line(mixed: es.Store, tmp_path: Path) -> None:
    options = ["--id", "i4", "--id", "i9", "--weights", "1,0.5", "--space", "one", "--group-by", "label", "--diversity", "0.3"]
    done = run("search", mixed.path, *options, "-k", 3, "--offset", 2, "--where", "n < 60", "--columns", "n", "--json")
    document = json.loads(done.stdout)
    expected = es.search(
        mixed, id=["i4", "i9"], weights=[1, 0.5], space="one", group_by="label", diversity=0.3, k=3, offset=2, where="n < 60"
    )
    assert [hit["id"] for hit in document["results"]] == ids(expected)
    assert document["results"][0].keys() == {"rank", "id", "score", "n"}
    assert document["results"][0]["rank"] == 3
    assert document.keys() == {"results", "space", "took_ms", "index"}
    out = run("search", mixed.path, "--batch", "two", "--out", tmp_path / "g.csv", "-k", 2).stdout
    assert "90 queries in space 'two' (exact)" in out
    assert len((tmp_path / "g.csv").read_text().splitlines()) == 181


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--id", "i4", "--weights", "a,b"], "--weights should be numbers separated by commas"),
        (["--id", "i4", "--out", "x.csv"], "--out belongs to --batch"),
        (["--batch", "two", "--out", "x.csv", "--text", "a", "--columns", "n"], "leave out --text, --columns."),
        (["--batch", "one"], "Say where to write the neighbours"),
        (["--unlike", "i4"], "at least one --like"),
    ],
)
def test_command_line_refusals(mixed: es.Store, arguments: list[str], words: str) -> None:
    done = run("search", mixed.path, *arguments, code=2)
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_weights_below_zero_search_away_in_one_space_and_are_refused_across_spaces(mixed: es.Store) -> None:
    one = unit(mixed, "one")
    found = es.search(mixed, id="i4", weights=[-1.0], space="one", k=5)
    assert ids(found) == named([i for i in np.argsort(one @ one[4]) if i != 4][:5])
    with pytest.raises(UsageError, match="cancel one another out"):
        es.search(mixed, vector=one[4], like=["i4"], weights=[1.0, -1.0], space="one")
    with pytest.raises(UsageError, match=r"Weights below 0 need queries in one space"):
        es.search(mixed, id=["i4", "i9"], weights=[1.0, -1.0], space="one", fusion="rrf")


@pytest.mark.parametrize("fusion", ["rrf", "score"])
@pytest.mark.parametrize("how", [{}, {"where": "n % 3 > 0"}, {"diversity": 0.5}, {"group_by": "label", "per_group": 9}])
def test_pages_of_joined_queries_fit_together(
    mixed: es.Store, fusion: str, how: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedstore.retrieval.several_queries.DEEP", 7)
    monkeypatch.setattr("embedstore.retrieval.several_queries.ROOTS", 0.7)
    whole = ids(fused(mixed, fusion, [1.0, 3.0], k=M, **how))
    assert len(whole) == len(set(whole))
    pages = [ids(fused(mixed, fusion, [1.0, 3.0], k=8, offset=lo, **how)) for lo in range(0, len(whole), 8)]
    assert [item for page in pages for item in page] == whole


def test_a_weight_of_zero_leaves_a_query_out(mixed: es.Store) -> None:
    assert (
        ids(fused(mixed, "score", [1.0, 0.0], k=9))
        == [i for i in ids(es.search(mixed, id="i4", space="one", k=10)) if i != "i9"][:9]
    )


def test_diversity_keeps_items_that_the_first_space_lacks(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    texts = [f"text {i}" if i % 2 else None for i in range(40)]
    images = [f"{tmp_path}/{i}.png" for i in range(40)]
    for i, path in enumerate(images):
        Path(path).write_bytes(rng.bytes(20 + i))
    source = MemorySource({"id": [str(i) for i in range(40)], "text": texts, "image": images})
    es.embed(source, tmp_path / "s", text="hash:8", image="hash:8")
    asked: dict[str, Any] = {"text": "text 7", "image": images[4], "k": 40}
    assert len(es.search(tmp_path / "s", **asked).results) == 40
    assert len(es.search(tmp_path / "s", **asked, diversity=0.3).results) == 40


@pytest.mark.parametrize("most", [5, 300, 3000])
def test_folding_is_that_of_one_after_the_other(most: int) -> None:
    """In blocks, of 1,500 vectors round 600 places: each goes by the first one before it that stands and is near."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((600, 16))
    vectors = centres[rng.integers(0, 600, 1500)] + 0.15 * rng.standard_normal((1500, 16))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    standing: list[int] = []
    expected = np.arange(1500)
    for place in range(1500):
        near = [head for head in standing if unit[head] @ unit[place] >= 0.9]
        if near:
            expected[place] = near[0]
        elif len(standing) < most:
            standing.append(place)
    np.testing.assert_array_equal(folded(vectors, 0.9, most), expected)
    assert min(most, 500) <= len(standing) < 700


def test_metadata_called_like_a_hit_s_own_values_keeps_its_own_name(tmp_path: Path) -> None:
    source = MemorySource({"id": ["a"], "text": ["b"], "rank": [7], "rank_": [8], "score": [9]})
    es.embed(source, tmp_path / "s", text="hash:8")
    (hit,) = es.search(tmp_path / "s", text="b").to_dict()["results"]
    assert (hit["rank"], hit["rank__"], hit["rank_"], hit["score_"]) == (1, 7, 8, 9)


def test_threads_share_a_searcher(mixed: es.Store) -> None:
    searcher = es.Searcher(mixed)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: searcher.search(id=f"i{i % 20}", space="one", where=f"n > {i % 9}"), range(80)))
    assert all(result.index["exact"] for result in found)


def test_filters_that_are_kept_are_bounded_by_their_bytes(mixed: es.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of these filters has 120 rows of 8 bytes; the last two fit, and answers are the same."""
    monkeypatch.setattr("embedstore.retrieval.filters_kept.KEPT_BYTES", 2000)
    searcher = es.Searcher(mixed)
    expected = ids(searcher.search(id="i4", space="one", k=5))
    for number in range(6):
        assert ids(searcher.search(id="i4", space="one", k=5, where=f"n > -{number + 1}")) == expected
    masks, rows = searcher.filters._masks, searcher.filters._matches
    assert list(rows) == ["n > -5", "n > -6"]
    assert sum(kept.nbytes for kept in masks.values()) <= 2000
    monkeypatch.setattr("embedstore.retrieval.filters_kept.KEPT_BYTES", 1)
    assert ids(searcher.search(id="i4", space="one", k=5, where="n > -9")) == expected
    assert (len(masks), list(rows)) == (1, ["n > -9"]), "the last one is kept, whatever its size"


def test_what_a_store_keeps_for_searches(store: es.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """One searcher, until an index or a head changes; its encoders go on; what exact search keeps is bounded."""
    monkeypatch.setattr("embedstore.retrieval.search.KEPT_BYTES", 0)
    first = es.search(store, text="text 4", k=3)
    (kept,) = store.kept.values()
    encoders = dict(kept.queries.encoders)
    for _ in range(3):
        assert es.search(store, text="text 4", k=3).results == first.results
    assert list(store.kept.values()) == [kept]
    assert kept.index(kept.queries.space("text")).index._planner.exact._kept is None
    es.train(store, "label", inputs=["text"], head="ridge", name="h", report=False)
    assert es.search(store, text="text 4", k=3).results == first.results
    (later,) = store.kept.values()
    assert later is not kept
    assert encoders
    assert all(later.queries.encoders[key] is encoder for key, encoder in encoders.items())


def test_a_store_that_was_searched_can_be_pickled(store: es.Store) -> None:
    found = es.search(store, id="item-04", space="text", k=3)
    again = pickle.loads(pickle.dumps(store))
    assert es.search(again, id="item-04", space="text", k=3).results == found.results


def test_a_slow_filter_holds_up_no_other_search(store: es.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    searcher, asked, go_on = es.Searcher(store), threading.Event(), threading.Event()
    real = store.where

    def slow(expression: str) -> Any:
        asked.set()
        assert go_on.wait(30)
        return real(expression)

    monkeypatch.setattr(store, "where", slow)
    with ThreadPoolExecutor(1) as pool:
        filtered = pool.submit(lambda: searcher.search(id="item-04", space="text", where="price > 1"))
        assert asked.wait(30)
        assert searcher.search(id="item-04", space="text", k=2).results
        go_on.set()
        assert filtered.result().results


@pytest.mark.parametrize("indexed", [False, True], ids=["exact", "indexed"])
def test_a_store_that_was_searched_goes_when_it_is_dropped(tmp_path: Path, indexed: bool) -> None:
    """With its lease, its open files and what it kept, without a look for cycles."""
    path, columns = tmp_path / "s", {"id": [f"i{n}" for n in range(400)], "text": [f"t{n}" for n in range(400)]}
    es.embed(MemorySource({**columns, "n": list(range(400))}), path, text=HashEncoder(16, "text", "hash:16"))
    if indexed:
        assert es.index(path, "text", factory="HNSW32", recall=0.5, at=1).type != "flat"
    gc.collect()
    gc.disable()
    try:
        for ask in (
            lambda opened: es.search(opened, text="t4", k=3, where="n > 1"),
            lambda opened: es.search(opened, id="i4", diversity=0.5, group_by="n"),
            lambda opened: es.Searcher(opened, resident=True).search(id="i4"),
            lambda opened: es.search_batch(opened, "text", tmp_path / "found.csv", k=2),
            lambda opened: opened.view(inputs=["text"]).inputs,
            lambda opened: opened.space("text").raw.take(np.arange(2)),
        ):
            opened = es.Store.open(path)
            ask(opened)
            parts = [weakref.ref(part) for part in (opened, opened.files, opened.space("text"), *opened.kept.values())]
            del opened
            assert [part() for part in parts] == [None] * len(parts)
    finally:
        gc.enable()


def test_a_searcher_keeps_its_store(store: es.Store) -> None:
    searcher = es.Searcher(es.Store.open(store.path))
    gc.collect()
    assert searcher.search(id="item-04", space="text", k=2).results
    assert isinstance(searcher.store, es.Store)


def test_a_file_that_is_no_query_is_named(store: es.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def prepare(self: HashEncoder, payload: bytes) -> bytes:
        raise PayloadError("decode", f"not an image: starts with {payload[:10]!r}")

    monkeypatch.setattr(HashEncoder, "prepare", prepare)
    folder = store.path.parent
    (folder / "words.png").write_bytes(b"no picture")
    for given, words in {
        "word.png": rf"{folder}/word\.png does not exist\. Similar names in {folder}: words\.png\.",
        "words.png": rf"{folder}/words\.png: not an image: starts with b'no picture'",
        "images": rf"{folder}/images is not a regular file",
    }.items():
        with pytest.raises(SourceError, match=words):
            es.search(store, image=folder / given)


def test_a_filter_that_nothing_passes_is_named(store: es.Store) -> None:
    with pytest.raises(UsageError, match=rf"No item of {store.path} is left: none matches --where 'price > 1000'\."):
        store.view(inputs=["text"], where="price > 1000")
    assert es.search(store, text="a", where="price > 1000").results == []
