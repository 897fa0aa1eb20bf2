"""What every head keeps, run for each kind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from threadpoolctl import threadpool_limits

from embedstore.encoders.hash import HashEncoder
from embedstore.errors import HeadError, UsageError
from embedstore.heads import HEADS, Head, head_class, make_head
from embedstore.heads.base import Data, class_folds, set_aside
from embedstore.heads.io import HeadRecord, load_head, save_head


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny problems: threads that wait for one another would cost ten times the work."""
    with threadpool_limits(1):
        yield


QUICK: dict[str, dict[str, Any]] = {
    "weighted": {"epochs": 25, "batch_size": 32, "learning_rate": 0.01},
    "gated": {"epochs": 10, "width": 32, "batch_size": 32},
    "bilinear": {"epochs": 10, "width": 32, "batch_size": 32},
    "attention": {"epochs": 10, "width": 32, "batch_size": 32},
    "gbdt": {"rounds": 30, "components": 6},
    "ensemble": {"members": ("ridge", "knn"), "rounds": 4},
}


def make(kind: str) -> Head:
    return make_head(kind, **QUICK.get(kind, {}))


def data(n: int = 240, seed: int = 0, classes: int = 3) -> tuple[dict[str, Any], np.ndarray[Any, Any], dict[str, Any]]:
    """Two inputs that both tell the class; some items lack one, and hold NaN there."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((classes, 18)) * 1.2
    y = rng.integers(0, classes, n)
    x = centres[y] + rng.standard_normal((n, 18))
    X = {"a": x[:, :10].astype(np.float16), "b": x[:, 10:].astype(np.float32)}
    present = {"a": rng.random(n) < 0.9, "b": rng.random(n) < 0.8}
    present["a"] |= ~present["b"]
    for name in X:
        X[name][~present[name]] = np.nan
    return X, np.array([f"class {k}" for k in range(classes)], dtype=object)[y], present


@pytest.fixture(scope="module", params=list(HEADS))
def fitted(request: pytest.FixtureRequest) -> Head:
    X, y, present = data()
    return make(request.param).fit(X, y, present=present)


def test_shapes_dtypes_and_learning(fitted: Head) -> None:
    X, y, present = data(seed=1)
    p = fitted.predict_proba(X, present=present)
    assert p.shape == (240, 3)
    assert p.dtype == np.float64
    np.testing.assert_allclose(p.sum(axis=1), 1)
    assert fitted.classes_.tolist() == ["class 0", "class 1", "class 2"]
    assert fitted.score(X, y, present=present) > 0.75
    assert fitted.predict_proba({k: v[:0] for k, v in X.items()}).shape == (0, 3)


def test_items_with_one_modality_are_predicted(fitted: Head) -> None:
    X, y, present = data(seed=2)
    for name in X:
        other = next(n for n in X if n != name)
        hidden = {name: present[name], other: np.zeros(240, bool)}
        p = fitted.predict_proba(X, present=hidden)
        assert np.isfinite(p).all()
        if hidden[name].any():
            assert (fitted.predict(X, present=hidden) == y)[hidden[name]].mean() > 0.5


def test_what_is_absent_does_not_matter(fitted: Head) -> None:
    X, _, present = data(seed=3)
    filled = {name: np.where(present[name][:, None], np.nan_to_num(x), 7) for name, x in X.items()}
    np.testing.assert_allclose(
        fitted.predict_proba(X, present=present), fitted.predict_proba(filled, present=present), atol=1e-6
    )


def test_saved_and_loaded_it_predicts_the_same(fitted: Head, tmp_path: Path) -> None:
    X, _, present = data(seed=4)
    specs = {name: HashEncoder(x.shape[1], "text").spec for name, x in X.items()}
    record = HeadRecord("h", "label", specs, fitted, {})
    save_head(tmp_path / "h", record, {})
    suffixes = {path.suffix for path in (tmp_path / "h").iterdir()}
    assert suffixes <= {".json", ".safetensors", ".ubj"}
    again = load_head(tmp_path / "h").head
    assert type(again) is type(fitted)
    np.testing.assert_array_equal(again.predict_proba(X, present=present), fitted.predict_proba(X, present=present))


def test_same_seed_same_model_and_clone(fitted: Head) -> None:
    X, y, present = data()
    again = clone(fitted).fit(X, y, present=present)
    np.testing.assert_allclose(again.predict_proba(X, present=present), fitted.predict_proba(X, present=present), atol=1e-5)
    assert fitted.get_params() == make(fitted.kind).get_params()


@pytest.mark.parametrize("kind", list(HEADS))
def test_odd_data(kind: str) -> None:
    X, y, _ = data(60)
    X = {name: np.nan_to_num(x) for name, x in X.items()}
    with pytest.raises(HeadError, match="needs items of two classes"):
        make(kind).fit(X, np.full(60, "one"))
    broken = {**X, "b": np.where(np.arange(8) == 2, np.inf, X["b"])}
    with pytest.raises(HeadError, match="Input 'b' holds NaN or infinity in item 0"):
        make(kind).fit(broken, y)
    constant = {**X, "a": np.ones_like(X["a"])}
    assert np.isfinite(make(kind).fit(constant, y).predict_proba(constant)).all()
    two = {name: x[:2] for name, x in X.items()}
    assert make(kind).fit(two, np.array(["l", "r"])).predict(two).shape == (2,)
    with pytest.raises(HeadError, match=r"The head takes inputs \['a', 'b'\]"):
        make(kind).fit(X, y).predict({"a": X["a"]})


@pytest.mark.parametrize("kind", list(HEADS))
def test_a_class_of_one_item_and_imbalance(kind: str) -> None:
    X, y, present = data(200)
    y = np.where(np.arange(200) == 0, "rare", y)
    head = make(kind).fit(X, y, present=present)
    assert head.predict_proba(X, present=present).shape == (200, 4)
    X, y, present = data(303, classes=2)
    keep = np.flatnonzero((y == "class 0") | (np.cumsum(y == "class 1") <= 2))
    X, y, present = {k: v[keep] for k, v in X.items()}, y[keep], {k: v[keep] for k, v in present.items()}
    assert np.isfinite(make(kind).fit(X, y, present=present).predict_proba(X, present=present)).all()


@pytest.mark.parametrize("kind", ["linear", "ridge", "knn", "gbdt"])
def test_in_scikit_learn(kind: str) -> None:
    X, y, _ = data()
    plain = np.concatenate([np.nan_to_num(x.astype(np.float32)) for x in X.values()], axis=1)
    assert cross_val_score(make(kind), plain, y, cv=3).mean() > 0.7


def test_unknown_names() -> None:
    with pytest.raises(UsageError, match=r"No head is called 'nope'\. Known: linear, ridge"):
        head_class("nope")
    with pytest.raises(HeadError, match="KnnHead has no parameter 'nope'"):
        make_head("knn").set_params(nope=1)


def test_folds_spread_every_class() -> None:
    codes = np.repeat([0, 1, 2], [50, 7, 1])
    folds = class_folds(codes, 5)
    assert np.bincount(folds[codes == 0]).tolist() == [10] * 5
    assert folds[codes == 2][0] != 0
    fit, val = set_aside(Data({"a": codes[:, None]}, {"a": codes >= 0}, codes))
    assert len(fit) + len(val) == 58
    assert 2 in fit.codes
    assert 2 not in val.codes


@pytest.mark.parametrize("kind", ["attention", "linear"])
def test_several_vectors_an_item(kind: str) -> None:
    """Three frames an item, some absent: attention sees tokens, others their mean."""
    X, y, present = data()
    rng = np.random.default_rng(5)
    frames = np.nan_to_num(X["b"])[:, None] + 0.3 * rng.standard_normal((240, 3, X["b"].shape[1])).astype(np.float32)
    there = present["b"][:, None] & (rng.random((240, 3)) < 0.7)
    frames[~there] = np.nan
    inputs, masks = {"a": X["a"], "b": frames}, {"a": present["a"] | ~there.any(axis=1), "b": there}
    inputs["a"] = np.nan_to_num(inputs["a"])
    head = make(kind).fit(inputs, y, present=masks)
    assert head.dims_ == {"a": 10, "b": 8}
    assert head.score(inputs, y, present=masks) > 0.7
    reordered = {"a": inputs["a"], "b": frames[:, ::-1]}
    flipped = {"a": masks["a"], "b": there[:, ::-1]}
    np.testing.assert_allclose(
        head.predict_proba(reordered, present=flipped), head.predict_proba(inputs, present=masks), atol=1e-4
    )
    with pytest.raises(HeadError, match=r"The mask of input 'b' should have shape \(240, 3\)\. Got \(240, 2\)"):
        head.predict(inputs, present={**masks, "b": there[:, :2]}) if kind == "attention" else make("attention").fit(
            inputs, y, present={**masks, "b": there[:, :2]}
        )


def test_small_classes_still_give_a_validation_set() -> None:
    codes = np.arange(180) % 30
    every = Data({"a": codes[:, None]}, {"a": codes >= 0}, codes)
    fit, held_out = set_aside(every)
    assert 20 <= len(held_out) <= 35
    assert set(fit.codes) == set(range(30))
    assert len(fit) + len(held_out) == 180


@pytest.mark.parametrize("kind", ["knn", "kernel", "linear", "ridge", "late", "gbdt"])
def test_of_an_unknown_item_the_frequencies_are_said(kind: str) -> None:
    """Nothing known, classes 1 : 9: not the rare one."""
    rng = np.random.default_rng(0)
    y = (np.arange(300) % 10 > 0).astype(int)
    X = {"a": np.eye(2)[y] + rng.normal(0, 0.3, (300, 2)), "b": rng.standard_normal((300, 3))}
    head = make(kind).fit(X, y)
    p = head.predict_proba({n: x[:1] for n, x in X.items()}, present={n: np.zeros(1, bool) for n in X})
    assert p[0, 1] > 0.5


def test_odd_arguments() -> None:
    X, y, _ = data(60)
    X = {name: np.nan_to_num(x) for name, x in X.items()}
    for labels, words in ((y[:, None], "60 labels"), (np.where(np.arange(60) == 4, None, y), "no label for item 4")):
        with pytest.raises(HeadError, match=words):
            make("ridge").fit(X, labels)
    with pytest.raises(HeadError, match="y should have 60 labels"):
        make("ridge").fit(X, y, validation=(X, y[:5], None))
    with pytest.raises(HeadError, match="no order among them"):
        make("ridge").fit(X, np.arange(60) % 3, validation=(X, y, None))
    with pytest.raises(HeadError, match="present names 'A', which is not an input"):
        make("ridge").fit(X, y, present={"A": np.ones(60, bool)})
    with pytest.raises(HeadError, match="X holds no input"):
        make("ridge").fit({}, y)
    with pytest.raises(HeadError, match="alpha should be above 0"):
        make_head("linear", alpha=0.0).fit(X, y)
    with pytest.raises(UsageError, match="No head is called 'ridge_regression'"):
        make_head("ridge_regression")
    regressor = make_head("ridge", task="regression")
    regressor.fit(X, np.arange(60.0), validation=({n: x[:1] for n, x in X.items()}, np.ones(1), None))


def test_kernel_of_few_dimensions() -> None:
    """Its kernel matrix is singular as far as rounding can tell."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2300, 4)).astype(np.float32)
    head = make_head("kernel", gammas=(0.3,), lambdas=(1e-3,), landmarks=1024).fit(x, (x[:, 0] > 0).astype(int))
    assert head.score(x, (x[:, 0] > 0).astype(int)) > 0.9
