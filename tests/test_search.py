"""Search against float64, filters, and queries that cannot be compared."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import embedstore as es
from embedstore.encoders import ENCODERS, EncoderRequest
from embedstore.encoders.hash import HashEncoder
from embedstore.errors import FingerprintError, UsageError
from embedstore.index.exact import ExactIndex
from embedstore.sources import MemorySource


@pytest.mark.parametrize("queries", [1, 3, 4, 64])
@pytest.mark.parametrize("subset", [False, True])
def test_exact_index_equals_float64(queries: int, subset: bool) -> None:
    rng = np.random.default_rng(0)
    base = rng.standard_normal((5000, 48)).astype(np.float16)
    asked = rng.standard_normal((queries, 48))
    positions = np.sort(rng.choice(5000, 700, replace=False)) if subset else np.arange(5000)
    index = ExactIndex(base)
    scores, found = index.search(asked, 10, subset=positions if subset else None)
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)  # noqa: E731
    expected = unit(asked) @ unit(base[positions].astype(np.float64)).T
    order = np.argsort(-expected, axis=1)[:, :10]
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
        ({"text": "a", "fusion": "best"}, "fusion should be one of score, rrf"),
        ({"text": "a", "diversity": 2}, "diversity should lie between"),
        ({"text": "a", "offset": -1}, "offset must be at least 0"),
        ({"text": "a", "recall": 2}, "recall should lie between"),
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
        ({"text": "a", "k": 2.5}, "k should be a whole number"),
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
    assert set(document["took_ms"]) == {"encode", "load", "search"}
