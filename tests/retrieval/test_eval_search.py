"""Retrieval scores against brute force and scikit-learn; what counts as relevant, what is left out, what is refused."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import Telling, telling_store
from sklearn import metrics as sk

import embedstore as es
from embedstore.encoders import ENCODERS
from embedstore.errors import SourceError, UsageError
from embedstore.evaluation.judgements import PairedAnswers, SameValue
from embedstore.retrieval.eval_search import eval_search
from embedstore.sources import MemorySource

Array = np.ndarray[Any, Any]


def cosines(queries: Array, base: Array) -> Array:
    unit = lambda x: x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)  # noqa: E731
    return np.asarray(unit(queries) @ unit(base).T)


def words(vectors: Array) -> list[str]:
    return [" ".join(f"{v:.4f}" for v in row) for row in vectors]


@pytest.fixture
def telling(tmp_path: Path) -> es.Store:
    return telling_store(tmp_path / "t")


def test_a_column_equals_brute_force(telling: es.Store) -> None:
    result = eval_search(telling, relevance="label", k=[3, 10], searcher=es.Searcher(telling))
    table = telling.items.table(["row", "label"]).to_pylist()
    rows = np.array([item["row"] for item in table if item["label"]])
    label = np.array([item["label"] for item in table if item["label"]])
    scores = cosines(telling.space("text").take(rows), telling.space("text").take(rows))
    others = [(scores[i, np.arange(len(rows)) != i], label[np.arange(len(rows)) != i] == label[i]) for i in range(len(rows))]
    first = {k: [same[np.argsort(-s)[:k]] for s, same in others] for k in (3, 10)}
    expected = {
        "map": np.mean([sk.average_precision_score(same, s) for s, same in others]),
        "ndcg@10": np.mean([sk.ndcg_score(same[None], s[None], k=10) for s, same in others]),
        "precision@3": np.mean(first[3]),
        "hit@3": np.mean([hits.any() for hits in first[3]]),
        "recall@10": np.mean([hits.sum() / same.sum() for hits, (_, same) in zip(first[10], others, strict=True)]),
    }
    figures = result.figures
    for name, value in expected.items():
        assert figures.metrics[name].value == pytest.approx(value, abs=2e-3), name
        assert figures.metrics[name].low <= value <= figures.metrics[name].high
    assert (figures.queries, figures.gallery) == (len(rows), len(rows))
    assert figures.chance["precision@3"] == pytest.approx(np.mean([same.mean() for _, same in others]))
    assert result.notes == ["4 items have no label and take no part"]
    assert (result.copies, result.deduplicated) == (0, None)


def test_labels_that_say_nothing_are_at_chance(tmp_path: Path) -> None:
    noise = np.random.default_rng(3).integers(0, 4, 200).astype(str)
    figures = eval_search(telling_store(tmp_path / "t", noise=noise.tolist()), relevance="noise").figures
    assert figures.metrics.keys() == figures.chance.keys()
    for name, score in figures.metrics.items():
        assert score.value == pytest.approx(figures.chance[name], abs=score.high - score.low), name


def test_the_order_of_equal_vectors_is_not_that_of_the_store(tmp_path: Path) -> None:
    """All texts are equal and the labels sorted: a search that returns ties in store order would look far from chance."""
    data = {"id": [f"i{i}" for i in range(400)], "text": ["1 2 3"] * 400, "label": ["a"] * 40 + ["b"] * 360}
    es.embed(MemorySource(data), tmp_path / "t", text=Telling(3, "text", "telling"))
    result = eval_search(tmp_path / "t", relevance="label")
    for name, score in result.figures.metrics.items():
        assert score.value == pytest.approx(result.figures.chance[name], abs=0.05), name
    assert result.copies == 399
    assert result.deduplicated is None
    assert result.notes == ["without copies no query has a relevant item"]


def test_figures_are_of_the_search_that_users_get(tmp_path: Path) -> None:
    """An index that is asked for 1,000 results tries a hundred times as hard as for 10: @k is of a search for k."""
    rng = np.random.default_rng(0)
    data = {"id": [f"i{i}" for i in range(3000)], "text": words(rng.standard_normal((3000, 8)).round(4))}
    data["label"] = ["ab"[i % 2] for i in range(3000)]
    es.embed(MemorySource(data), tmp_path / "t", text=Telling(8, "text", "telling"))
    exact = eval_search(tmp_path / "t", relevance="label", k=(1, 10), queries=300)
    es.index(tmp_path / "t", "text", factory="IVF64,Flat", recall=0.5)
    store = es.Store.open(tmp_path / "t")
    result = eval_search(store, relevance="label", k=(1, 10), queries=300)
    space, searcher = store.space("text"), es.Searcher(store)
    asked = np.sort(np.random.default_rng(0).choice(3000, 300, replace=False))
    _, rows = searcher.nearest(searcher.queries.space("text"), space.take(asked), 10, exclude=asked)
    right = ((rows % 2) == (asked[:, None] % 2)) & (rows >= 0)
    assert result.figures.metrics["precision@10"] != exact.figures.metrics["precision@10"]
    assert result.figures.metrics["hit@1"].value == pytest.approx(right[:, 0].mean())
    assert result.figures.metrics["precision@10"].value == pytest.approx(right.mean())
    assert result.figures.metrics["mrr"].value == pytest.approx(exact.figures.metrics["mrr"].value, abs=1e-9)
    assert re.search(r"map, mrr look at 1,000, figures @k at the first 10, as a search", result.notes[-1])


def test_values_that_occur_once_are_left_out(telling: es.Store) -> None:
    with pytest.raises(UsageError, match="No query has a relevant item in the gallery"):
        eval_search(telling, relevance="n")
    removed = telling.remove(["i0", "i5"])
    figures = eval_search(removed, relevance="label", where="n < 20 or n = 49").figures
    assert figures.gallery == 18  # of 21: two removed, one without a label
    assert figures.queries + figures.without_relevant == 18


def test_a_sample_is_drawn_by_seed(telling: es.Store) -> None:
    runs = [eval_search(telling, relevance="label", queries=20, seed=seed) for seed in (1, 1, 2)]
    assert runs[0].figures == runs[1].figures != runs[2].figures
    assert runs[0].figures.queries == 20
    assert runs[0].figures.gallery == 196
    assert runs[0].notes[-1] == "20 of 196 queries, drawn with seed 1"


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The encoder that `telling_store` says its texts are from can be loaded by its name."""
    monkeypatch.setitem(ENCODERS._extra, "telling", lambda request: Telling(3, request.modality, "telling"))


@pytest.mark.usefixtures("encoder")
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_text_queries_with_grades(telling: es.Store, tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(0)
    queries = rng.standard_normal((30, 3))
    texts = words(queries)
    grades = rng.integers(0, 4, (30, 200)) * (rng.random((30, 200)) < 0.05)
    grades[:, 7] = 2
    pairs = [{"query": texts[q], "id": f"i{i}", "grade": float(grades[q, i])} for q, i in zip(*np.nonzero(grades), strict=True)]
    pairs.append({**pairs[0], "grade": 0.5})  # the same pair again: its highest grade counts
    path = write_pairs(tmp_path / f"pairs{suffix}", pairs)
    result = eval_search(telling, pairs=path, k=(1, 10))
    rows = telling.items.rows_of([f"i{i}" for i in range(200)])
    scores = cosines(np.array([[float(v) for v in text.split()] for text in texts]), telling.space("text").take(rows))
    metrics = result.figures.metrics
    assert metrics["ndcg@10"].value == pytest.approx(sk.ndcg_score(grades, scores, k=10), abs=2e-3)
    assert metrics["map"].value == pytest.approx(sk.label_ranking_average_precision_score(grades > 0, scores), abs=2e-3)
    assert (result.source, result.target, result.figures.queries, result.figures.gallery) == ("text", "text", 30, 200)
    assert result.figures.relevant == pytest.approx((grades > 0).sum(axis=1).mean())


def write_pairs(path: Path, rows: list[dict[str, Any]]) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    delimiter = "\t" if path.suffix == ".tsv" else ","
    lines = [delimiter.join(rows[0]), *(delimiter.join(map(str, row.values())) for row in rows)]
    path.write_text("\n".join(map(json.dumps, rows) if path.suffix == ".jsonl" else lines) + "\n")
    return path


def test_item_queries(telling: es.Store, tmp_path: Path) -> None:
    """The nearest other item is the answer to half of the queries, the second nearest to the rest."""
    rows = telling.items.rows_of([f"i{i}" for i in range(200)])
    scores = cosines(telling.space("text").take(rows), telling.space("text").take(rows))
    order = np.argsort(-scores - 9 * np.eye(200) * -2, axis=1)  # itself last
    pairs = [{"query_id": f"i{q}", "id": f"i{order[q, q % 2]}"} for q in range(10)]
    pairs += [{"query_id": "i0", "id": "i0"}, {"query_id": "i150", "id": f"i{order[150, 0]}"}]
    path = write_pairs(tmp_path / "p.csv", pairs)
    result = eval_search(telling, pairs=path, where="n <> 150", k=1)
    assert result.figures.metrics["hit@1"].value == 0.5
    assert result.figures.metrics["mrr"].value == 0.75
    assert (result.figures.queries, result.figures.without_relevant) == (10, 1)
    assert result.notes[0].startswith("2 of 12 pairs take no part")


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("query_id,id\ni1,i2\ni3,nobody\n", SourceError, r"id 'nobody' of row 2 is no item of"),
        ("query_id,id\nnobody,i2\nnoone,i3\n", SourceError, r"query_id 'nobody' of row 1 is no item of .* \(2 such rows\)"),
        ("query_id,id\ni1,\n", SourceError, "row 1 has no id"),
        ("query_id,id,grade\ni1,i2,0\n", SourceError, "grade of row 1 should be a number above 0. Got '0'"),
        ("query_id,id,grade\ni1,i2,good\n", SourceError, "Got 'good'"),
        ("query_id,id,grade\ni1,i2,inf\n", SourceError, "Got 'inf'"),
        ("query_id,id\n", SourceError, "has no rows"),
        ("", SourceError, "is empty"),
        ("query_id,id\na,b,c\n", SourceError, "line 2 has 3 values, but the header has 2"),
        ("words,id\na,i1\n", UsageError, r"should have a column 'id' and one of 'query' .* Columns: words, id"),
        ("query,query_id,id\na,i1,i1\n", UsageError, "one of 'query'"),
        ("query_id,id\ni1,i1\n", UsageError, "No query has a relevant item"),
    ],
)
def test_pairs_that_cannot_be_right(telling: es.Store, tmp_path: Path, text: str, error: type[Exception], message: str) -> None:
    path = tmp_path / "p.csv"
    path.write_text(text)
    with pytest.raises(error, match=message) as raised:
        eval_search(telling, pairs=path)
    assert "\n" not in str(raised.value)


def test_ids_in_jsonl_stay_as_they_are_written(tmp_path: Path) -> None:
    from embedstore.retrieval.judged_pairs import read_pairs

    path = write_pairs(tmp_path / "p.jsonl", [{"query": "2020-01-01 00:30", "id": "007"}, {"query": 'say "x, y"', "id": 7}])
    read = read_pairs(path)
    assert (read.queries, read.ids) == (["2020-01-01 00:30", 'say "x, y"'], ["007", "7"])
    assert read.grades.tolist() == [1, 1]


def test_pairs_in_a_parquet_may_be_bytes(tmp_path: Path) -> None:
    from embedstore.retrieval.judged_pairs import read_pairs
    from embedstore.training.pair_table import _from_table

    pairs = pa.table({"query": ["café".encode(), b"a\\b"], "id": [b"\xc3\xa9", b"7"]})
    pq.write_table(pairs, tmp_path / "p.parquet")
    read = read_pairs(tmp_path / "p.parquet")
    assert (read.queries, read.ids) == (["café", "a\\b"], ["é", "7"])
    assert _from_table(tmp_path / "p.parquet", ["query", "id"]) == [("café", "é"), ("a\\b", "7")]
    pq.write_table(pairs.set_column(1, "id", pa.array([b"\xff", b"7"])), tmp_path / "p.parquet")
    with pytest.raises(SourceError, match=r"p\.parquet cannot be read as parquet: .*UTF8"):
        read_pairs(tmp_path / "p.parquet")


def pair_store(path: Path, images: Array, texts: Array, alignment: str | None = "pair") -> es.Store:
    """Two modalities whose payloads tell their vectors; "images" are files of numbers."""
    files = [path.parent / f"{i}.jpg" for i in range(len(images))]
    for file, line in zip(files, words(images), strict=True):
        file.write_text(line)
    encoders = {}
    for modality in ("image", "text"):
        encoders[modality] = Telling(images.shape[1], modality, "telling")
        encoders[modality].spec = replace(encoders[modality].spec, alignment=alignment)
    data = {
        "id": [f"i{i}" for i in range(len(images))],
        "image": list(map(str, files)),
        "text": words(texts),
        "label": ["ab"[i % 2] for i in range(len(images))],
    }
    es.embed(MemorySource(data), path, **encoders)
    return es.Store.open(path)


def test_from_one_space_to_another(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.standard_normal((120, 6))
    texts = images + rng.standard_normal((120, 6))
    store = pair_store(tmp_path / "p", images, texts)
    result = eval_search(store, source="text", target="image")
    scores = cosines(store.space("text").vectors(), store.space("image").vectors())
    rank = (scores > np.diag(scores)[:, None]).sum(axis=1) + 1
    metrics = result.figures.metrics
    assert set(metrics) == {*(f"{name}@{k}" for name in ("recall", "ndcg") for k in (1, 5, 10)), "map", "mrr"}
    for k in (1, 5, 10):
        assert metrics[f"recall@{k}"].value == pytest.approx((rank <= k).mean())
        assert result.figures.chance[f"recall@{k}"] == pytest.approx(k / 120)
    assert metrics["mrr"].value == pytest.approx((1 / rank).mean())
    assert metrics["map"].value == pytest.approx(metrics["mrr"].value)
    assert (result.mode, result.figures.gallery, result.deduplicated) == ("items", 120, None)
    across = eval_search(store, relevance="label", source="text", target="image")
    assert (across.figures.gallery, across.figures.relevant) == (120, 59)  # of 60, without itself


def test_copies_are_as_right_as_the_item_and_are_left_out_once(tmp_path: Path) -> None:
    """Items 0 and 1 share an image, items 2 and 3 a text; texts are their images, so the first result is always right."""
    images = np.random.default_rng(0).standard_normal((20, 6)).round(2)
    texts = images.copy()
    images[1] = images[0]
    texts[1] = texts[0] + 0.01
    texts[3] = texts[2]
    result = eval_search(pair_store(tmp_path / "p", images, texts), source="text", target="image", k=1)
    assert result.figures.metrics["recall@1"].value == 1
    assert result.figures.relevant == 24 / 20
    once = result.deduplicated
    assert once is not None
    assert (result.copies, once.gallery, once.queries, once.relevant) == (2, 18, 18, 1)
    assert once.metrics["recall@1"].value == 1
    assert once.chance["recall@1"] == pytest.approx(1 / 18)


def test_spaces_without_a_common_alignment_are_refused(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).standard_normal((5, 4))
    store = pair_store(tmp_path / "p", vectors, vectors, alignment=None)
    for relevance in (None, "label"):
        with pytest.raises(UsageError, match=r"'text' cannot be compared with those of 'image'.*embedstore align") as error:
            eval_search(store, source="text", target="image", relevance=relevance)
        assert "'text' has none and 'image' has none" in str(error.value)
    with pytest.raises(UsageError, match=r"Say which space to search: --space NAME\. Spaces of .*: image, text"):
        eval_search(store, relevance="label")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "Say what is relevant: --relevance COLUMN, --pairs FILE, or --from SPACE --to SPACE"),
        ({"source": "text"}, "In space 'text' alone every item finds itself"),
        ({"relevance": "label", "pairs": "p.csv"}, "not by both"),
        ({"relevance": "nope"}, "no metadata column 'nope'. Columns: label, n"),
        ({"relevance": "label", "target": "nope"}, "no space 'nope'. Spaces: text"),
        ({"relevance": "label", "k": 0}, "k must be at least 1"),
        ({"relevance": "label", "k": ()}, "k must be at least 1"),
        ({"relevance": "label", "k": 2.5}, "k must be a whole number"),
        ({"relevance": "label", "queries": 0}, "queries must be at least 1. Got 0"),
        ({"relevance": "label", "seed": -1}, "seed must be at least 0"),
        ({"relevance": "label", "where": "false"}, "nothing to score"),
        ({"pairs": "p.txt"}, "expected a file of pairs ending in .csv"),
    ],
)
def test_usage_errors(telling: es.Store, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        eval_search(telling, **options)


def test_command(telling: es.Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from embedstore_cli.main import main

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["embedstore", "eval-search", str(telling.path), *arguments])
        with pytest.raises(SystemExit) as done:
            main()
        assert not done.value.code
        return capsys.readouterr().out

    document = json.loads(run("--relevance", "label", "--space", "text", "-k", "1,5", "-k", "20", "--queries", "50", "--json"))
    assert {"queries", "gallery", "without_relevant", "metrics", "chance", "deduplicated", "seconds", "notes"} <= set(document)
    assert document["metrics"]["recall@20"].keys() == {"value", "low", "high"}
    table = run("--relevance", "label")
    assert "chance" in table
    assert "196 queries" in table
    assert "gallery of 196" in table


def test_judgements_by_two_values_count_an_item_once() -> None:
    rng = np.random.default_rng(0)
    gallery = np.arange(0, 60, 2)
    values, asked = rng.integers(0, 5, (30, 2)), rng.integers(0, 5, (8, 2))
    same = (values[None] == asked[:, None]).any(axis=2)
    judged = SameValue(gallery, values, asked, np.zeros(8, bool))
    assert judged.relevant.tolist() == same.sum(axis=1).tolist()
    rows = np.concatenate([np.tile(gallery, (8, 1)), np.full((8, 2), -1)], axis=1)
    np.testing.assert_array_equal(judged.grades(slice(0, 8), rows), np.pad(same, ((0, 0), (0, 2))))


def test_paired_answers() -> None:
    judged = PairedAnswers.of(np.array([1, 0, 1, 1]), np.array([5, 2, 0, 5]), np.array([1.0, 2.0, 4.0, 3.0]), 2)
    assert judged.relevant.tolist() == [1, 2]
    assert judged.total.tolist() == [2, 7]
    assert judged.ideal(3).tolist() == [[2, 0, 0], [4, 3, 0]]
    assert judged.grades(slice(1, 2), np.array([[5, 2, -1, 0, 99]])).tolist() == [[3, 0, 0, 4, 0]]
