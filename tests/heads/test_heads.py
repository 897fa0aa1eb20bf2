"""The linear head against scikit-learn, masks, saving, training on a store, prediction."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers import Telling, telling_store, write_csv, write_image
from sklearn.linear_model import LogisticRegression

import embedstore as es
from embedstore._core.encoding import sealed
from embedstore._core.splits import hashed_split, stratified_folds
from embedstore.errors import CorruptStoreError, FingerprintError, HeadError, UsageError
from embedstore.heads import knn
from embedstore.heads.base import Data, log_softmax
from embedstore.heads.solvers.design_matrix import Standardizer
from embedstore.heads.solvers.logistic import LogisticProblem
from embedstore.sources import MemorySource


def problem(n: int = 400, d: int = 60, c: int = 5, seed: int = 0) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Features with a decaying spectrum and noisy labels."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)) * (np.arange(1, d + 1) ** -0.4) + 0.3
    logits = (X - X.mean(axis=0)) @ rng.standard_normal((d, c))
    y = (2 * logits / logits.std() + rng.gumbel(size=(n, c))).argmax(axis=1)
    return X.astype(np.float32), y


def objective(X: Any, y: Any, weight: Any, bias: Any, alpha: float) -> float:
    """Mean cross-entropy + alpha/2 ‖W‖², in float64."""
    log_p = log_softmax(X.astype(np.float64) @ weight.astype(np.float64) + bias.astype(np.float64))
    return float(-log_p[np.arange(len(y)), y].mean() + alpha / 2 * (weight.astype(np.float64) ** 2).sum())


@pytest.mark.parametrize("shape", [(400, 60, 5), (60, 300, 3), (500, 20, 2)])
@pytest.mark.parametrize("alpha", [1.0, 0.01, 0.0005])
def test_objective_equals_scikit_learn(shape: tuple[int, int, int], alpha: float) -> None:
    """Within 1e-6 relative (the promise is 1e-4), and the same probabilities."""
    X, y = problem(*shape)
    ours = LogisticProblem(X, y, shape[2]).solve(alpha, tolerance=1e-7)
    theirs = LogisticRegression(C=1 / (alpha * len(y)), tol=1e-10, max_iter=20_000).fit(X.astype(np.float64), y)
    if shape[2] == 2:  # scikit-learn's binary model has one weight vector: half the penalty of a symmetric pair
        weight = np.concatenate([-theirs.coef_, theirs.coef_]).T / 2
        binary = LogisticRegression(C=2 / (alpha * len(y)), tol=1e-10, max_iter=20_000).fit(X.astype(np.float64), y)
        weight, bias = np.concatenate([-binary.coef_, binary.coef_]).T / 2, np.array([-1, 1]) * binary.intercept_ / 2
    else:
        weight, bias = theirs.coef_.T, theirs.intercept_
    best = objective(X, y, weight, bias, alpha)
    assert objective(X, y, ours.weight, ours.bias, alpha) <= best * (1 + 1e-6)
    assert ours.objective == pytest.approx(best, rel=1e-5)
    np.testing.assert_allclose(log_softmax(X @ ours.weight + ours.bias), log_softmax(X @ weight + bias), atol=0.02)


@pytest.mark.slow
@pytest.mark.offline_models
def test_objective_on_real_features(demo_store: Path) -> None:
    """Within 1e-4 of scikit-learn on 600 embedded images and texts."""
    view = es.Store.open(demo_store).view(inputs=["image", "text"], target="label")
    assert view.target is not None
    codes = np.unique(view.target, return_inverse=True)[1]
    data = Data(view.inputs, view.present, codes)
    features = Standardizer().fit(data).transform(data)
    for alpha in (0.3, 0.03):
        theirs = LogisticRegression(C=1 / (alpha * len(codes)), tol=1e-8, max_iter=10_000).fit(features.astype(float), codes)
        best = objective(features, codes, theirs.coef_.T, theirs.intercept_, alpha)
        ours = LogisticProblem(features, codes, 12).solve(alpha)
        assert abs(objective(features, codes, ours.weight, ours.bias, alpha) - best) <= 1e-4 * best


def two_inputs(n: int = 300, seed: int = 0) -> tuple[dict[str, Any], dict[str, Any], np.ndarray[Any, Any]]:
    """Two inputs that each tell half of the label; some are missing, and hold NaN there."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 4, n)
    inputs = {
        "a": np.eye(2)[y % 2].repeat(4, 1) + rng.normal(0, 0.5, (n, 8)),
        "b": np.eye(2)[y // 2].repeat(5, 1) + rng.normal(0, 0.5, (n, 10)),
    }
    present = {"a": rng.random(n) < 0.9, "b": rng.random(n) < 0.8}
    present["a"] |= ~present["b"]
    for name in inputs:
        inputs[name][~present[name]] = np.nan
    return inputs, present, np.array(["zero", "one", "two", "three"], dtype=object)[y]


class TestLinearHead:
    def fitted(self) -> es.LinearHead:
        X, present, y = two_inputs()
        v = two_inputs(seed=1)
        return es.LinearHead().fit(X, y, present=present, validation=(v[0], v[2], v[1]))

    def test_learns_and_uses_what_is_present(self) -> None:
        head = self.fitted()
        X, present, y = two_inputs(seed=2)
        accuracy = (head.predict(X, present=present) == y).mean()
        assert accuracy > 0.75
        probabilities = head.predict_proba(X, present=present)
        assert probabilities.shape == (300, 4)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1)
        only_a = {"a": present["a"], "b": np.zeros(300, bool)}
        assert 0.35 < (head.predict(X, present=only_a) == y)[present["a"]].mean() < accuracy

    def test_same_seed_same_model(self) -> None:
        a, b = self.fitted(), self.fitted()
        np.testing.assert_array_equal(a.weight_, b.weight_)
        assert a.alpha_ == b.alpha_

    def test_constant_features_and_one_array(self) -> None:
        X, y = problem()
        X[:, 3] = 7
        head = es.LinearHead(alpha=0.01).fit(X, y)
        assert np.isfinite(head.weight_).all()
        assert head.predict(X[:1]).shape == (1,)
        assert head.classes_.tolist() == [0, 1, 2, 3, 4]

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda X, y: ({"x": X}, y[:-1]), "y should have 400 labels"),
            (lambda X, y: ({"x": X}, np.zeros(400)), "needs items of two classes"),
            (lambda X, y: ({"x": np.where(np.arange(60) == 2, np.nan, X)}, y), "Input 'x' holds NaN or infinity in item 0"),
            (lambda X, y: ({"x": X[:, 0]}, y), r"Input 'x' should have shape \(n, d\)"),
            (lambda X, y: ({"x": X, "z": X[:5]}, y), "different numbers of items"),
        ],
    )
    def test_bad_input_is_refused(self, change: Any, words: str) -> None:
        X, y = change(*problem())
        with pytest.raises(HeadError, match=words):
            es.LinearHead(alpha=0.1).fit(X, y)

    def test_alpha_is_chosen_on_a_part_set_aside(self) -> None:
        X, y = problem()
        head = es.LinearHead().fit(X, y)
        assert head.alpha_ in head.alphas
        assert head.objective_ < np.log(5)

    def test_other_inputs_are_refused(self) -> None:
        with pytest.raises(HeadError, match=r"The head takes inputs \['a', 'b'\]\. Got \['a'\] instead"):
            self.fitted().predict({"a": np.zeros((2, 8))})


def test_splits_do_not_move() -> None:
    ids = [f"item {i}" for i in range(2000)]
    split = dict(zip(ids, hashed_split(ids), strict=True))
    more = dict(zip(reversed([*ids, "new"]), hashed_split([*reversed([*ids, "new"])]), strict=True))
    assert all(more[i] == split[i] for i in ids)
    shares = {name: np.mean([s == name for s in split.values()]) for name in ("train", "val", "test")}
    assert shares == pytest.approx({"train": 0.7, "val": 0.15, "test": 0.15}, abs=0.03)
    labels = np.repeat(np.array(["a", "b", "c"], dtype=object), [30, 100, 7])
    folds = stratified_folds(labels, ids[:137], 5)
    for label, n in (("a", 30), ("b", 100), ("c", 7)):
        counts = np.bincount(folds[labels == label], minlength=5)
        assert counts.sum() == n
        assert np.ptp(counts) <= 1


def test_train_on_a_store(tmp_path: Path) -> None:
    store = telling_store(tmp_path / "s")
    report = es.train(store, "label")
    assert report.metrics["accuracy"].value > report.baselines["majority"]["accuracy"].high
    assert "4 items have no label and were left out" in report.notes
    document = json.loads(json.dumps(report.to_dict()))
    assert {"head", "metrics", "baselines", "seconds"} <= document.keys()
    assert document["metrics"]["accuracy"].keys() == {"value", "low", "high"}
    folder = tmp_path / "s" / "heads" / "label"
    split = pq.read_table(next(folder.glob("split-*.parquet"))).to_pylist()
    assert {row["split"] for row in split} == {"train", "val", "test"}
    assert sum(row["split"] == "test" for row in split) == report.items["test"]
    assert not list(folder.glob("*.pkl"))
    again = es.train(store, "label", cv=4, name="again")
    assert again.evaluation == "4-fold cross-validation over 196 items"
    assert store.heads == ["again", "label"]
    assert es.verify(store).clean


def test_a_split_column_wins(tmp_path: Path) -> None:
    store = telling_store(tmp_path / "s", split=["test" if i < 40 else "train" for i in range(200)])
    report = es.train(store, "label")
    assert report.items["test"] == 39  # one of the 40 has no label
    assert report.evaluation == "39 test items, split by column 'split'"


def test_predict_on_stored_items_equals_the_head(tmp_path: Path) -> None:
    store = telling_store(tmp_path / "s")
    es.train(store, "label")
    every = es.predict(store, "label")
    assert len(every.ids) == 200
    some = es.predict(store, "label", ids=["i5", "i2"])
    assert some.ids.tolist() == ["i5", "i2"]
    np.testing.assert_array_equal(some.probabilities, every.probabilities[[5, 2]])
    assert es.predict(store, "label", where="n < 3").ids.tolist() == ["i0", "i1", "i2"]
    with pytest.raises(UsageError, match=r"has no head 'nope'\. Heads: label"):
        es.predict(store, "nope")


def test_predict_on_new_files_equals_stored_items(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = []
    for i in range(60):
        write_image(tmp_path / "images" / f"{i}.png", seed=i)
        rows.append({"id": str(i), "image": f"images/{i}.png", "text": f"t{i}", "label": "ab"[i % 2]})
    es.embed(write_csv(tmp_path / "t.csv", rows), tmp_path / "s", image="hash:8", text="hash:8", dtype="float32")
    es.train(tmp_path / "s", "label", cv=3)
    stored = es.predict(tmp_path / "s", "label", ids=["0", "1", "2"])
    new = es.predict(tmp_path / "s", "label", write_csv(tmp_path / "new.csv", rows[:3]))
    np.testing.assert_allclose(new.probabilities, stored.probabilities, atol=1e-6)
    (tmp_path / "images" / "1.png").write_bytes(b"")
    alone = es.predict(tmp_path / "s", "label", tmp_path / "images" / "0.png")
    assert alone.ids.tolist() == ["0.png"]
    assert len(es.Store.open(tmp_path / "s")) == 60


def test_other_vectors_are_refused(tmp_path: Path) -> None:
    store = telling_store(tmp_path / "s")
    es.train(store, "label")
    es.embed(MemorySource({"id": ["i0"], "text": ["1 2 3"]}), tmp_path / "o", text=Telling(3, "text", "telling"))
    path = next((tmp_path / "s").glob("heads/label/head.json"))
    document = json.loads(path.read_text())
    document["inputs"]["text"]["encoder"]["pooling"] = "other"
    path.write_text(json.dumps(sealed(document)))
    with pytest.raises(FingerprintError, match=r"was trained on telling \(fingerprint .*\) for input 'text'; .* has telling"):
        es.predict(store, "label")


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    store = telling_store(tmp_path / "s")
    es.train(store, "label")
    weights = next((tmp_path / "s").glob("heads/label/weights-*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(bytes(content))
    with pytest.raises(CorruptStoreError, match=r"weights-.*\.safetensors"):
        es.predict(store, "label")
    assert not es.verify(store).clean


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (["same"] * 200, "is 'same' for all"),
        ([f"v{i}" for i in range(200)], "has 200 distinct values over 200 items"),
        ([[1, 2]] * 200, r"is \[1, 2\] for all 200 items; there is nothing to learn"),
        ([{"a": 1}] * 200, "holds dict values"),
        ([""] * 200, "none of them a value in 'odd'"),
    ],
)
def test_targets_that_cannot_be_learned(tmp_path: Path, values: list[Any], words: str) -> None:
    store = telling_store(tmp_path / "s", odd=values)
    with pytest.raises((HeadError, UsageError), match=words):
        es.train(store, "odd")
    assert store.heads == []


def test_unknown_names(tmp_path: Path) -> None:
    store = telling_store(tmp_path / "s")
    with pytest.raises(UsageError, match=r"no metadata column 'nope'\. Columns: label, n"):
        es.train(store, "nope")
    with pytest.raises(UsageError, match=r"No head is called 'nope'\. Known: linear"):
        es.train(store, "label", head="nope")
    with pytest.raises(UsageError, match="has no space 'nope'"):
        es.train(store, "label", inputs=["nope"])
    with pytest.raises(UsageError, match="cv must be between 2"):
        es.train(store, "label", cv=1)


@pytest.mark.parametrize("scores", [1, 1 << 10, 1 << 14, 1 << 24])
@pytest.mark.parametrize(("n", "q", "k"), [(5000, 300, 8), (5, 3, 8), (1000, 7, 1), (40, 40, 40)])
def test_nearest_training_items_are_those_of_all_products(
    scores: int, n: int, q: int, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(knn, "SCORES", scores)
    rng = np.random.default_rng(0)
    known = [rng.normal(size=(n, d)).astype(np.float16) for d in (12, 5)]
    asked, never = rng.normal(size=(q, 17)).astype(np.float32), rng.integers(0, n, q)
    products = asked @ np.concatenate(known, axis=1).astype(np.float32).T
    products[np.arange(q), never] = -np.inf
    near, found = knn.nearest(known, asked, k, never=never)
    assert near.shape == (q, min(k, n))
    np.testing.assert_allclose(found, -np.sort(-products, axis=1)[:, :k], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(products, near, axis=1), found, rtol=1e-4, atol=1e-5)


def test_nearest_neighbours_of_many_take_little_memory() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60_000, 8)).astype(np.float32), np.arange(60_000) % 3
    head = es.make_head("knn", ks=(8,), temperatures=(0.1,), weights="equal").fit(x, y)
    tracemalloc.start()
    head.predict(x[:4096])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 320e6  # all similarities of a block of 2,048 and their order would be 1.5 GB


def test_neighbours_that_tie_are_taken_in_the_order_of_the_items() -> None:
    """Whatever else is asked at once, and however many tie for the last place."""
    from embedstore.heads.knn import nearest

    rng = np.random.default_rng(0)
    known = rng.integers(-2, 3, (300, 3)).astype(np.float16)  # many are the same
    asked = rng.integers(-2, 3, (50, 3)).astype(np.float32)
    near, products = nearest([known], asked, 7)
    every = asked @ known.T.astype(np.float32)
    expected = np.argsort(-every, axis=1, kind="stable")[:, :7]
    np.testing.assert_array_equal(near, expected)
    np.testing.assert_array_equal(products, np.take_along_axis(every, expected, axis=1))
    np.testing.assert_array_equal(nearest([known], asked[3:4], 7)[0], expected[3:4])
