"""Out-of-fold predictions: by models that did not see the item, copies and groups together, kept and checked with the head."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers import Telling, telling_store

import embedstore as es
from embedstore.errors import CorruptStoreError, HeadError, UsageError
from embedstore.evaluation.copies import same_items
from embedstore.heads import HEADS, make_head
from embedstore.heads.held_out import OutOfFold
from embedstore.heads.io import load_head
from embedstore.heads.settled import settled
from embedstore.sources import MemorySource
from embedstore.training.folds import made_folds


def kept_file(store: es.Store, head: str) -> Path:
    folder = store.path / "heads" / head
    return folder / json.loads((folder / "head.json").read_text())["files"]["out-of-fold.parquet"]["file"]


def noise_store(path: Path, n: int = 120, copies: int = 1, **columns: Any) -> es.Store:
    """Vectors that tell nothing of the label, each payload `copies` times with one label."""
    rng = np.random.default_rng(0)
    texts = [" ".join(f"{v:.4f}" for v in row) for row in rng.standard_normal((n, 6))]
    label = rng.choice(["l", "r"], n)
    at = np.arange(n).repeat(copies)
    data = {"id": [f"i{i}" for i in range(len(at))], "text": [texts[i] for i in at], "label": label[at].tolist(), **columns}
    es.embed(MemorySource(data), path, text={"text": Telling(6, "text", "telling")})
    return es.Store.open(path)


@pytest.mark.parametrize("cv", [None, 3])
def test_every_labelled_item_has_one(tmp_path: Path, cv: int | None) -> None:
    store = telling_store(tmp_path / "s")
    result = es.train(store, "label", cv=cv, report=False)
    kept = es.out_of_fold(store, "label")
    view = store.view(inputs=["text"], target="label")
    assert kept.rows.tolist() == view.rows.tolist()
    assert kept.ids.tolist() == view.ids.tolist()
    assert kept.target.tolist() == view.target.tolist()  # type: ignore[union-attr]
    assert kept.classes.tolist() == ["a", "b", "c"]
    np.testing.assert_allclose(kept.probabilities.sum(axis=1), 1, rtol=1e-5)
    assert kept.predicted.tolist() == kept.classes[kept.probabilities.argmax(axis=1)].tolist()
    assert (kept.classes[kept.codes] == kept.target).all()
    hits = (kept.predicted == kept.target)[~kept.crossed if cv is None else kept.crossed]
    assert hits.mean() == pytest.approx(result.metrics["accuracy"].value)
    if cv is None:
        assert ((kept.fold == "test") == (view.split == "test")).all()
        assert result.out_of_fold.keys() == {"items", "folds", "seconds"}
    assert len(set(kept.fold[kept.crossed].tolist())) == (cv or 5)
    assert es.verify(store).clean


@pytest.mark.parametrize("cv", [None, 4])
@pytest.mark.parametrize("grouped", [False, True])
def test_copies_and_groups_are_in_one_fold_and_tell_nothing(tmp_path: Path, cv: int | None, grouped: bool) -> None:
    """Nothing but its copies tells an item's label: seen by their copies, all would be right."""
    owner = [f"o{i // 3}" for i in range(360)]
    store = noise_store(tmp_path / "s", copies=3, owner=owner)
    es.train(store, "label", head="knn", cv=cv, group="owner" if grouped else None, report=False)
    kept = es.out_of_fold(store, "label")
    crossed = kept.crossed
    where = [{f for f, c in zip(kept.fold[i : i + 3], crossed[i : i + 3], strict=True) if c} for i in range(0, 360, 3)]
    assert all(len(folds) <= 1 for folds in where)
    assert (kept.predicted == kept.target)[crossed].mean() < 0.7


def test_numbers_have_no_probabilities(tmp_path: Path) -> None:
    store = telling_store(tmp_path / "s")
    assert es.train(store, "n", report=False).task == "regression"
    kept = es.out_of_fold(store, "n")
    assert kept.probabilities.shape == (200, 0)
    assert kept.predicted.dtype == np.float64
    assert np.isfinite(kept.predicted).all()
    assert kept.alone == {}


def test_what_an_item_lacks_predicts_nothing(tmp_path: Path) -> None:
    texts = [" ".join(f"{v:.3f}" for v in row) for row in np.random.default_rng(1).standard_normal((90, 4))]
    data = {"id": [str(i) for i in range(90)], "text": texts, "label": ["xyz"[i % 3] for i in range(90)]}
    store_path = tmp_path / "s"
    es.embed(MemorySource(data), store_path, text={"a": Telling(4, "text", "a")})
    some = {**data, "text": [t if i % 9 else None for i, t in enumerate(texts)]}
    es.embed(MemorySource(some), tmp_path / "o", text={"a": Telling(4, "text", "a"), "b": Telling(4, "text", "b")})
    es.train(store_path, "label", report=False)
    assert es.out_of_fold(store_path, "label").alone == {}
    es.train(tmp_path / "o", "label", report=False)
    kept = es.out_of_fold(tmp_path / "o", "label")
    assert list(kept.alone) == ["a", "b"]
    again = OutOfFold.from_parquet(kept.to_parquet(), "x")
    assert [again.alone["b"].tolist(), again.fold.tolist()] == [kept.alone["b"].tolist(), kept.fold.tolist()]


def test_a_head_without_them_says_so(tmp_path: Path) -> None:
    store = telling_store(tmp_path / "s")
    result = es.train(store, "label", out_of_fold=0, report=False)
    assert result.out_of_fold == {}
    with pytest.raises(HeadError, match=r"'label' keeps no out-of-fold predictions: .*--out-of-fold 0"):
        es.out_of_fold(store, "label")
    with pytest.raises(UsageError, match="out_of_fold must be 0 or at least 2"):
        es.train(store, "label", out_of_fold=1)
    with pytest.raises(UsageError, match="has no head 'x'"):
        es.out_of_fold(store, "x")


def test_a_changed_file_is_found(tmp_path: Path) -> None:
    """By `verify` and by who reads it; the head predicts without it."""
    store = telling_store(tmp_path / "s")
    es.train(store, "label", report=False)
    path = kept_file(store, "label")
    assert pq.read_schema(path).metadata[b"encoding-type"] == b"embedstore-out-of-fold"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert "differ from what was saved" in es.verify(store).problems[0]
    with pytest.raises(CorruptStoreError, match="differs from what was saved"):
        es.out_of_fold(store, "label")
    assert load_head(store.path / "heads" / "label").head.kind == "linear"


def test_a_class_of_one_item_does_not_stop_training(tmp_path: Path) -> None:
    store = telling_store(tmp_path / "s", n=60, rare=["once" if i == 5 else "often" for i in range(60)])
    result = es.train(store, "rare", report=False, cv=None)
    assert result.out_of_fold == {} or result.out_of_fold["items"] > 0
    assert not result.out_of_fold or es.out_of_fold(store, "rare").classes.tolist() == ["often", "once"][::-1]


@pytest.mark.parametrize("kind", [k for k in HEADS if k not in ("weighted", "gated", "bilinear", "attention", "gbdt")])
def test_a_settled_head_chooses_nothing_again(kind: str) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 150)
    X = {name: np.eye(3)[y].repeat(2, 1) + rng.normal(0, 0.7, (150, 6)) for name in ("a", "b")}
    head = make_head(kind).fit(X, y)
    again = settled(head).fit(X, y)
    assert (again.predict(X) == head.predict(X)).mean() > 0.9
    if kind in ("linear", "ensemble", "auto"):
        alphas = [getattr(h, "alpha_", None) for h in (head, again)]
        assert alphas[0] == alphas[1]
        assert getattr(again, "votes", None) == getattr(head, "votes_", None)


def test_same_items() -> None:
    """0 and 1 share both inputs; 2 has a picture alone, that of 0; 3 and 4 share a text, and their pictures differ."""
    hashes = {"image": np.array([1, 1, 1, 2, 3, 4]), "text": np.array([7, 7, 0, 8, 8, 9])}
    pairs = {name: np.stack([h, h], axis=1).astype(np.uint64) for name, h in hashes.items()}
    present = {"image": np.ones(6, bool), "text": np.array([1, 1, 0, 1, 1, 1], bool)}
    same = same_items(pairs, present)
    assert same[0] == same[1] == same[2]
    assert len(set(same.tolist())) == 4
    joined = same_items(pairs, present, np.array(["a", "b", "c", "d", "e", "a"], object))
    assert joined[0] == joined[5]


def test_without_copies_the_folds_are_as_they_were() -> None:
    from embedstore._core.splits import stratified_folds

    strata, ids = np.arange(50) % 3, np.array([f"i{i}" for i in range(50)], object)
    shuffled = np.random.default_rng(0).permutation(50)
    found = made_folds(strata, ids, shuffled, 4, seed=3, grouped=False)
    assert found.tolist() == stratified_folds(strata, ids.tolist(), 4, seed=3).tolist()
