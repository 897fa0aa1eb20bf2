"""Heads for any number of labels an item: what each keeps, and what scikit-learn says of the same data."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.multiclass import OneVsRestClassifier
from threadpoolctl import threadpool_limits

from embedstore.encoders.hash import HashEncoder
from embedstore.errors import CorruptStoreError, HeadError, UsageError
from embedstore.heads import LABELLERS, KnnLabeller, Labeller, LinearLabeller, make_head
from embedstore.heads.base import Data, HeadState
from embedstore.heads.io import HeadRecord, load_head, save_head
from embedstore.heads.label_sets import best_thresholds, indicators, rarest
from embedstore.heads.solvers.logistic import LogisticProblem
from embedstore.heads.solvers.one_vs_rest import OneVsRestProblem
from embedstore.heads.trees import check_model

QUICK: dict[str, dict[str, Any]] = {
    "weighted": {"epochs": 30, "batch_size": 32, "learning_rate": 0.02},
    "gated": {"epochs": 12, "width": 32, "batch_size": 32, "learning_rate": 0.01},
    "bilinear": {"epochs": 12, "width": 32, "batch_size": 32, "learning_rate": 0.01},
    "attention": {"epochs": 12, "width": 32, "batch_size": 32, "learning_rate": 0.02},
    "gbdt": {"rounds": 40, "components": None},
    "auto": {"steps": ("linear", "knn")},
}
NAMES = np.array(["blue", "green", "red", "sharp"], object)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with threadpool_limits(1):
        yield


def make(kind: str) -> Labeller:
    head = make_head(kind, task="multilabel", **QUICK.get(kind, {}))
    assert isinstance(head, Labeller)
    return head


def drawn(n: int = 300, seed: int = 0) -> tuple[dict[str, Any], Any, dict[str, Any]]:
    """Two inputs, four labels, each told by one of them and weakly by the other; some items lack an input (NaN)."""
    rng = np.random.default_rng(seed)
    y = rng.random((n, 4)) < [0.5, 0.3, 0.3, 0.2]
    codes = np.random.default_rng(9).standard_normal((4, 12)) * 2
    x = (y - 0.3) @ codes + rng.standard_normal((n, 12)) * 0.7
    X = {"a": x[:, :6].astype(np.float16), "b": x[:, 6:].astype(np.float32)}
    present = {"a": rng.random(n) < 0.9, "b": rng.random(n) < 0.8}
    present["a"] |= ~present["b"]
    for name in X:
        X[name][~present[name]] = np.nan
    return X, sets_of(y), present


def sets_of(y: Any) -> Any:
    return np.fromiter((NAMES[row].tolist() for row in y), object, len(y))


@pytest.fixture(scope="module", params=list(LABELLERS))
def fitted(request: pytest.FixtureRequest) -> Labeller:
    X, y, present = drawn()
    return make(request.param).fit(X, y, present=present)


def test_shapes_and_learning(fitted: Labeller) -> None:
    X, y, present = drawn(seed=1)
    assert fitted.classes_.tolist() == NAMES.tolist()
    outputs = fitted.outputs(X, present=present)
    assert (outputs.shape, outputs.dtype, fitted.output_shape) == ((300, 4), np.float64, (4,))
    p = fitted.predict_proba(X, present=present)
    np.testing.assert_allclose(p, 1 / (1 + np.exp(-outputs)), atol=1e-12)
    assert fitted.score(X, y, present=present) > 0.75
    given = fitted.predict(X, present=present)
    assert given.tolist() == [NAMES[row].tolist() for row in p >= fitted.thresholds_]
    assert fitted.predict({name: x[:0] for name, x in X.items()}).tolist() == []
    assert fitted.thresholds_.shape == (4,)


def test_items_with_one_input_are_predicted_and_what_is_absent_does_not_matter(fitted: Labeller) -> None:
    X, _, present = drawn(seed=2)
    filled = {name: np.where(present[name][:, None], np.nan_to_num(x), 7) for name, x in X.items()}
    np.testing.assert_allclose(fitted.outputs(X, present=present), fitted.outputs(filled, present=present), atol=1e-6)
    for name in X:
        alone = {n: present[n] if n == name else np.zeros(300, bool) for n in X}
        assert np.isfinite(fitted.outputs(X, present=alone)).all()


def test_saved_and_loaded_it_gives_the_same_labels(fitted: Labeller, tmp_path: Path) -> None:
    X, _, present = drawn(seed=3)
    specs = {name: HashEncoder(x.shape[1], "text").spec for name, x in X.items()}
    save_head(tmp_path / "heads" / "h", HeadRecord("h", "tags", specs, fitted, {}), {})
    again = load_head(tmp_path / "heads" / "h").head
    assert type(again) is type(fitted)
    np.testing.assert_array_equal(again.outputs(X, present=present), fitted.outputs(X, present=present))
    assert again.predict(X, present=present).tolist() == fitted.predict(X, present=present).tolist()


def test_same_seed_same_model(fitted: Labeller) -> None:
    X, y, present = drawn()
    again = clone(fitted).fit(X, y, present=present)
    np.testing.assert_allclose(again.outputs(X, present=present), fitted.outputs(X, present=present), atol=1e-4)
    np.testing.assert_allclose(again.thresholds_, fitted.thresholds_, atol=1e-4)


@pytest.mark.parametrize("kind", list(LABELLERS))
def test_odd_labels(kind: str) -> None:
    """A label of validation items alone, one of all items, items without labels, one label in all."""
    X, y, _ = drawn(80)
    X = {name: np.nan_to_num(x) for name, x in X.items()}
    everywhere = np.fromiter(([*labels, "always"] for labels in y), object, 80)
    first, second = ({name: x[part] for name, x in X.items()} for part in (slice(0, 60), slice(60, 80)))
    late = np.fromiter(([*labels, "late"] for labels in everywhere[60:]), object, 20)
    head = make(kind).fit(first, everywhere[:60], validation=(second, late, None))
    assert head.classes_.tolist() == ["always", "blue", "green", "late", "red", "sharp"]
    p = head.predict_proba(X)
    assert np.isfinite(p).all()
    assert p[:, 0].mean() > max(0.5, p[:, 3].mean())
    few = make(kind).fit(X, np.fromiter(([["one"], []][i % 2] for i in range(80)), object, 80))
    assert few.predict_proba(X).shape == (80, 1)
    two = {name: x[:2] for name, x in X.items()}
    assert make(kind).fit(two, np.fromiter([["l"], []], object, 2)).predict(two).shape == (2,)
    with pytest.raises(HeadError, match="None of 80 items has a label"):
        make(kind).fit(X, np.fromiter(([] for _ in range(80)), object, 80))


def test_what_is_no_label_set_is_refused() -> None:
    X, y, _ = drawn(20)
    X = {name: np.nan_to_num(x) for name, x in X.items()}
    with pytest.raises(HeadError, match="Item 0 has 'ab' instead"):
        LinearLabeller().fit(X, ["ab"] * 20)
    with pytest.raises(HeadError, match=r"20 collections of labels, one an item\. Got 3"):
        LinearLabeller().fit(X, y[:3])
    with pytest.raises(HeadError, match="no order among them"):
        LinearLabeller().fit(X, [["a"], [1]] * 10)
    with pytest.raises(UsageError, match="several labels there are: linear, knn, weighted"):
        make_head("ridge", task="multilabel")


def test_linear_is_scikit_learns_one_vs_rest() -> None:
    X, y, present = drawn(400)
    fit, rest = np.arange(400) < 300, np.arange(400) >= 300
    take = lambda part: ({n: x[part] for n, x in X.items()}, y[part], {n: m[part] for n, m in present.items()})  # noqa: E731
    (X1, y1, p1), held_out = take(fit), take(rest)
    head = LinearLabeller(alpha=0.01, tolerance=1e-10).fit(X1, y1, present=p1, validation=held_out)
    everything = {n: np.asarray(x, np.float32) for n, x in X.items()}
    truth = indicators(y.tolist(), NAMES)
    features = head.standardizer_.transform(Data(everything, present, truth)).astype(np.float64)
    peer = OneVsRestClassifier(LogisticRegression(C=1 / (0.01 * 400), tol=1e-8, max_iter=2000)).fit(features, truth)
    np.testing.assert_allclose(head.outputs(X, present=present), peer.decision_function(features), atol=5e-3)


def test_labels_fitted_together_are_those_fitted_alone() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 7)).astype(np.float32)
    y = (x @ rng.standard_normal((7, 3)) + rng.standard_normal((200, 3)) > 0.7).astype(np.uint8)
    together = OneVsRestProblem(x, y).solve(0.05, tolerance=1e-10)
    for k in range(3):
        alone = OneVsRestProblem(x, y[:, [k]]).solve(0.05, tolerance=1e-10)
        np.testing.assert_allclose(together.weight[:, [k]], alone.weight, atol=2e-3)
    two = LogisticProblem(x, y[:, 0].astype(np.int64), 2).solve(0.1, tolerance=1e-10)  # its two weights are w and -w
    one = OneVsRestProblem(x, y[:, [0]]).solve(0.05, tolerance=1e-10)
    np.testing.assert_allclose(two.weight[:, 1] - two.weight[:, 0], one.weight[:, 0], atol=2e-3)


def test_the_solver_is_the_same_on_torch() -> None:
    """What a GPU computes, here by torch on the CPU."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((150, 6)).astype(np.float32)
    y = (x @ rng.standard_normal((6, 3)) > 0.5).astype(np.uint8)
    by_numpy, by_torch = (OneVsRestProblem(x, y, device=device).solve(0.05, tolerance=1e-9) for device in ("cpu", "cpu:0"))
    np.testing.assert_allclose(by_numpy.weight, by_torch.weight, atol=1e-4)
    weights, codes = rng.random(150), y[:, 0].astype(np.int64)
    weights /= weights.mean()
    by_numpy, by_torch = (
        LogisticProblem(x, codes, 2, weights=weights, device=device).solve(0.05, tolerance=1e-9) for device in ("cpu", "cpu:0")
    )
    np.testing.assert_allclose(by_numpy.weight, by_torch.weight, atol=1e-4)


def test_thresholds_have_the_best_f1_and_few_positives_share_one() -> None:
    rng = np.random.default_rng(1)
    truth = (rng.random((400, 3)) < [0.3, 0.1, 0.005]).astype(np.uint8)
    log_odds = 2 * truth + rng.standard_normal((400, 3)) - 2
    found = best_thresholds(log_odds, truth)
    p = 1 / (1 + np.exp(-log_odds))
    for k in (0, 1):
        mine = f1_score(truth[:, k], p[:, k] >= found[k])
        assert mine == pytest.approx(max(f1_score(truth[:, k], p[:, k] >= cut) for cut in np.unique(p[:, k])))
    assert truth[:, 2].sum() < 5
    flat = max(np.unique(p), key=lambda cut: f1_score(truth.ravel(), p.ravel() >= cut))
    assert f1_score(truth.ravel(), p.ravel() >= found[2]) == pytest.approx(f1_score(truth.ravel(), p.ravel() >= flat))
    assert best_thresholds(log_odds, np.zeros_like(truth)).tolist() == [0.5, 0.5, 0.5]


def test_thresholds_are_not_those_of_the_items_that_a_head_remembers() -> None:
    """Labels without any signal: an item that were asked about itself would know its labels."""
    rng = np.random.default_rng(0)
    X = {"x": rng.standard_normal((200, 30)).astype(np.float32)}
    y = sets_of(rng.random((200, 4)) < 0.3)
    data = Data(X, {"x": np.ones(200, bool)}, indicators(y.tolist(), NAMES))
    log_odds, truth = KnnLabeller().fit_data(data, data, NAMES)._held_out(data, data)
    assert f1_score(truth, log_odds >= 0, average="micro", zero_division=0) < 0.5


def test_folds_go_by_the_rarest_label() -> None:
    codes = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [1, 0, 0]], np.uint8)
    assert rarest(codes).tolist() == [0, 1, 3, 0]


def test_a_state_with_other_thresholds_is_damaged(tmp_path: Path) -> None:
    X, y, present = drawn(60)
    head = make("knn").fit(X, y, present=present)
    state = head.state()
    with pytest.raises(ValueError, match="3 thresholds for 4 labels"):
        KnnLabeller.from_state(head.get_params(), HeadState({**state.config, "thresholds": [0.5] * 3}, state.tensors))
    head.thresholds_ = head.thresholds_[:3]
    specs = {name: HashEncoder(x.shape[1], "text").spec for name, x in X.items()}
    save_head(tmp_path / "heads" / "h", HeadRecord("h", "tags", specs, head, {}), {})
    with pytest.raises(CorruptStoreError, match="3 thresholds for 4 labels"):
        load_head(tmp_path / "heads" / "h")


def test_trees_of_several_labels_are_looked_at_before_they_are_used() -> None:
    """A model that another machine made: each tree belongs to one of the labels."""
    X, y, present = drawn(120)
    model = make("gbdt").fit(X, y, present=present).state().files["model.ubj"]
    check_model(model)
    xgboost = pytest.importorskip("xgboost")
    text = bytes(xgboost.Booster(model_file=bytearray(model)).save_raw("json")).decode()
    document = json.loads(text)
    document["learner"]["gradient_booster"]["model"]["tree_info"][0] = 4
    with pytest.raises((ValueError, xgboost.core.XGBoostError), match=r"belong to no class of 4|tree_info|group"):
        check_model(json.dumps(document).encode())
