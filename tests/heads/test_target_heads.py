"""Heads for several targets: what each keeps, and what the heads of single targets say of the same data."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from threadpoolctl import threadpool_limits

from embedstore.encoders.hash import HashEncoder
from embedstore.errors import HeadError, UsageError
from embedstore.heads import SEVERAL, GatedHead, GatedTargets, LinearHead, LinearTargets, RidgeRegressor, TargetsHead, make_head
from embedstore.heads.base import HeadState
from embedstore.heads.io import HeadRecord, load_head, save_head
from embedstore.heads.several_targets import coded, strata_of
from embedstore.heads.targets_apart import EachAlone

QUICK: dict[str, dict[str, Any]] = {
    "weighted": {"epochs": 30, "batch_size": 32, "learning_rate": 0.02},
    "gated": {"epochs": 15, "width": 32, "batch_size": 32, "learning_rate": 0.01},
    "bilinear": {"epochs": 15, "width": 32, "batch_size": 32, "learning_rate": 0.01},
    "attention": {"epochs": 10, "width": 16, "batch_size": 64, "learning_rate": 0.02},
    "gbdt": {"rounds": 40, "components": None},
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with threadpool_limits(1):
        yield


def make(kind: str, **params: Any) -> TargetsHead:
    head = make_head(kind, task="several", **{**QUICK.get(kind, {}), **params})
    assert isinstance(head, TargetsHead)
    return head


def drawn(n: int = 300, seed: int = 0) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """A class told by one input and a number told by both; some items lack an input, and some a target."""
    rng = np.random.default_rng(seed)
    k, x = rng.integers(0, 3, n), rng.standard_normal((n, 12))
    x[:, :3] += 3 * np.eye(3)[k]
    price = 1e4 + 500 * (x[:, 4] + x[:, 7]) + 50 * rng.standard_normal(n)
    price[rng.random(n) < 0.2] = np.nan
    label = np.where(rng.random(n) < 0.2, None, np.array(["ash", "elm", "oak"], object)[k])
    X = {"a": x[:, :6].astype(np.float16), "b": x[:, 6:].astype(np.float32)}
    present = {"a": rng.random(n) < 0.95, "b": rng.random(n) < 0.9}
    present["a"] |= ~present["b"]
    for name in X:
        X[name][~present[name]] = np.nan
    return X, {"label": label, "price": price}, present


def without_missing(X: Any, y: Any, present: Any, name: str) -> tuple[Any, Any, Any]:
    """The items that have a target, and it alone."""
    there = np.array([value is not None and value == value for value in y[name]])
    return {k: v[there] for k, v in X.items()}, y[name][there], {k: v[there] for k, v in present.items()}


@pytest.fixture(scope="module", params=list(SEVERAL))
def fitted(request: pytest.FixtureRequest) -> TargetsHead:
    X, y, present = drawn()
    return make(request.param).fit(X, y, present=present)


def test_shapes_and_learning(fitted: TargetsHead) -> None:
    X, y, present = drawn(seed=1)
    assert fitted.targets_ == {"label": "classification", "price": "regression"}
    outputs = fitted.outputs(X, present=present)
    assert (outputs.shape, outputs.dtype, fitted.output_shape) == ((300, 2, 3), np.float64, (2, 3))
    np.testing.assert_allclose(np.exp(outputs[:, 0]).sum(axis=1), 1)
    assert np.isfinite(outputs[:, 1, 0]).all()
    assert np.isnan(outputs[:, 1, 1:]).all()
    said = fitted.predict(X, present=present)
    assert set(said["label"]) <= {"ash", "elm", "oak"}
    assert 8_000 < said["price"].mean() < 12_000
    assert fitted.score(X, y, present=present) > 0.5
    assert fitted.outputs({k: v[:0] for k, v in X.items()}).shape == (0, 2, 3)
    with pytest.raises(HeadError, match="predicts several targets; use outputs, or predict"):
        fitted.predict_proba(X)


def test_what_is_absent_does_not_matter(fitted: TargetsHead) -> None:
    X, _, present = drawn(seed=3)
    filled = {name: np.where(present[name][:, None], np.nan_to_num(x), 7) for name, x in X.items()}
    np.testing.assert_allclose(
        fitted.outputs(X, present=present), fitted.outputs(filled, present=present), rtol=1e-5, atol=1e-5
    )


def test_saved_and_loaded_it_predicts_the_same(fitted: TargetsHead, tmp_path: Path) -> None:
    X, _, present = drawn(seed=4)
    specs = {name: HashEncoder(x.shape[1], "text").spec for name, x in X.items()}
    save_head(tmp_path / "h", HeadRecord("h", "label,price", specs, fitted, {}), {})
    assert {path.suffix for path in (tmp_path / "h").iterdir()} <= {".json", ".safetensors", ".ubj"}
    again = load_head(tmp_path / "h").head
    assert type(again) is type(fitted)
    np.testing.assert_array_equal(again.outputs(X, present=present), fitted.outputs(X, present=present))


def test_same_seed_same_model_and_clone(fitted: TargetsHead) -> None:
    X, y, present = drawn()
    again = clone(fitted).fit(X, y, present=present)
    np.testing.assert_allclose(again.outputs(X, present=present), fitted.outputs(X, present=present), rtol=1e-4, atol=1e-5)


def test_linear_is_the_linear_head_of_each_target() -> None:
    X, y, present = drawn()
    v_X, v_y, v_present = drawn(90, seed=5)
    t_X, _, t_present = drawn(seed=6)
    head = LinearTargets().fit(X, y, present=present, validation=(v_X, v_y, v_present))
    outputs = head.outputs(t_X, present=t_present)
    for k, (name, alone) in enumerate({"label": LinearHead(), "price": RidgeRegressor()}.items()):
        x, values, masks = without_missing(X, y, present, name)
        alone.fit(x, values, present=masks, validation=without_missing(v_X, v_y, v_present, name))
        expected = alone.outputs(t_X, present=t_present)
        np.testing.assert_allclose(outputs[:, k, : expected[0].size], expected.reshape(len(expected), -1), rtol=1e-12)


def test_a_network_of_one_target_is_the_network() -> None:
    """The head that a target has alone, beside which a trunk is judged, is the head of that kind."""
    X, y, present = drawn()
    v_X, v_y, v_present = drawn(90, seed=5)
    params = {"width": 16, "epochs": 4, "batch_size": 64}
    each = EachAlone(GatedTargets(**params)).fit(X, y, present=present, validation=(v_X, v_y, v_present))
    x, labels, masks = without_missing(X, y, present, "label")
    alone = GatedHead(**params).fit(x, labels, present=masks, validation=without_missing(v_X, v_y, v_present, "label"))
    t_X, _, t_present = drawn(seed=6)
    expected = alone.outputs(t_X, present=t_present)
    np.testing.assert_allclose(each.outputs(t_X, present=t_present)[:, 0], expected, atol=1e-5)


def test_attention_gets_the_mean_of_several_vectors() -> None:
    """Like the heads of each target alone that it stands beside."""
    X, y, _ = drawn(120)
    rng = np.random.default_rng(0)
    shifts = rng.normal(0, 1, (3, 1, 6)).astype(np.float32)
    pieces = {name: np.stack([np.nan_to_num(x) + shift for shift in shifts], axis=1) for name, x in X.items()}
    means = {name: x.mean(axis=1) for name, x in pieces.items()}
    said = [make("attention", epochs=2).fit(given, y).outputs(given) for given in (pieces, means)]
    np.testing.assert_allclose(said[0], said[1], atol=1e-4)


def test_a_missing_target_counts_for_nothing() -> None:
    """Items that lack a target have the gradient of the others alone."""
    import torch

    head = make("gated", epochs=1, target_weights=[1.0, 0.5])
    X, y, present = drawn()
    head.fit(X, y, present=present)
    logits = torch.randn(4, 4, requires_grad=True)
    codes = torch.tensor([[0, float("nan")], [float("nan"), 0.3], [2, float("nan")], [float("nan"), float("nan")]])
    head._loss(logits, codes, torch.ones(4)).backward()  # type: ignore[attr-defined]
    assert logits.grad is not None
    assert (logits.grad != 0).tolist() == [[True] * 3 + [False], [False] * 3 + [True], [True] * 3 + [False], [False] * 4]
    error = (logits[1, 3] - 0.3).item()
    assert logits.grad[1, 3].item() == pytest.approx(0.5 * 2 * error)  # the weight, and one item that has it


def test_weights_say_what_the_trunk_serves() -> None:
    """A network as narrow as a pen serves the target that counts."""
    X, y, present = drawn(300)
    t_X, t_y, t_present = drawn(300, seed=7)
    accuracy = {}
    for weight in (0.01, 10.0):
        head = make("gated", target_weights=[weight, 1.0], width=2, dropout=0.0, epochs=8).fit(X, y, present=present)
        said, real, _ = head.predict(t_X, present=t_present)["label"], t_y["label"], None
        there = np.array([value is not None for value in real])
        accuracy[weight] = float((said[there] == real[there]).mean())
    assert accuracy[10.0] > accuracy[0.01]
    with pytest.raises(HeadError, match=r"target_weights should be one for each of label, price\. Got 3"):
        make("gated", target_weights=[1, 2, 3]).fit(X, y, present=present)


def test_a_target_that_cannot_be_learned_is_let_go() -> None:
    """It neither ends the training of the others, nor is it guessed."""
    X, y, present = drawn(700)
    rng = np.random.default_rng(0)
    noise = np.array(["x", "y", "z"], object)[rng.choice(3, 700, p=[0.5, 0.3, 0.2])]
    head = make("gated", epochs=40, patience=3, batch_size=128).fit(X, {**y, "noise": noise}, present=present)
    assert isinstance(head, GatedTargets)
    assert head.unlearned_ == ["noise"]
    t_X, t_y, t_present = drawn(seed=8)
    said = head.predict(t_X, present=t_present)
    assert set(said["noise"]) == {"x"}
    there = np.array([value is not None for value in t_y["label"]])
    assert (said["label"][there] == t_y["label"][there]).mean() > 0.8
    json.dumps(head.state().config, allow_nan=False)


@pytest.mark.parametrize("kind", ["linear", "gated"])
def test_odd_data(kind: str) -> None:
    X, y, _ = drawn(60)
    plain = {name: np.nan_to_num(x) for name, x in X.items()}
    for bad, words in {
        "y should map each target to 60 values. Got ndarray": y["label"],
        "Target 'label' should have 60 values, one an item. Got shape": {"label": y["label"][:9]},
        "Target 'price' is infinite in item 3": {"price": np.where(np.arange(60) == 3, np.inf, 1.0)},
        "Target 'one' needs items of two classes to learn from. Got \\['x'\\]": {"one": np.full(60, "x")},
        "Target 'none' needs items of two classes to learn from. Got none": {"none": np.full(60, None)},
        "Target 'price' needs items with two numbers to learn from. Got 0": {"price": np.full(60, np.nan)},
        "Target 'mixed' holds labels of kinds that have no order": {"mixed": np.array([1, "a"] * 30, object)},
    }.items():
        with pytest.raises(HeadError, match=bad):
            make(kind).fit(plain, words)
    with pytest.raises(HeadError, match=r"The validation items have targets label \(classification\), the others"):
        make(kind).fit(plain, y, validation=(plain, {"label": y["label"]}, None))
    with pytest.raises(HeadError, match="is not fitted yet"):
        make(kind).outputs(plain)
    with pytest.raises(UsageError, match="For several targets there are: linear, knn, weighted"):
        make("ridge")
    one = {"label": np.array(["p", "q"] * 30, object)}
    assert make(kind, **({"epochs": 2} if kind == "gated" else {})).fit(plain, one).predict(plain).dtype.names == ("label",)


def test_a_state_whose_targets_and_classes_disagree_is_damage() -> None:
    X, y, present = drawn()
    head = LinearTargets().fit(X, y, present=present)
    state = head.state()
    for change in ({"targets": {"label": "regression", "price": "regression"}}, {"targets": {}}):
        with pytest.raises(ValueError, match="its targets are"):
            LinearTargets.from_state(head.get_params(), HeadState({**state.config, **change}, state.tensors))


def test_folds_spread_the_rarest_class_of_an_item() -> None:
    y = np.array([("a", "r"), ("a", None), ("b", "s"), (None, None)], [("one", object), ("two", object)])
    classes = np.empty(2, object)
    classes[:] = [np.array(["a", "b"], object), np.array(["r", "s", "t"], object)]
    codes = coded(y, classes)
    np.testing.assert_array_equal(codes, [[0, 0], [0, np.nan], [1, 1], [np.nan, np.nan]])
    strata = strata_of(codes, classes).tolist()
    assert strata[0] != strata[1]
    assert len(set(strata)) == 4
