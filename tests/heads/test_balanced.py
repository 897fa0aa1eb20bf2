"""Heads that help rare classes, beside scikit-learn and imbalanced-learn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from imblearn.over_sampling import SMOTE, RandomOverSampler
from imblearn.under_sampling import RandomUnderSampler
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import balanced_accuracy_score
from sklearn.utils.class_weight import compute_sample_weight
from threadpoolctl import threadpool_limits

from embedstore._core.balances import BALANCES
from embedstore.encoders.hash import HashEncoder
from embedstore.errors import HeadError, MissingDependencyError, UsageError
from embedstore.heads import BalancedHead, GatedHead, GbdtHead, KnnHead, LinearHead, RidgeHead, make_head
from embedstore.heads.balanced import best_threshold, resampled
from embedstore.heads.base import Data
from embedstore.heads.io import HeadRecord, load_head, save_head
from embedstore.heads.solvers.logistic import LogisticProblem
from embedstore.heads.solvers.loo import LooRidge


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with threadpool_limits(1):
        yield


def drawn(n: int = 400, seed: int = 0, shares: tuple[float, ...] = (0.94, 0.06)) -> tuple[dict[str, Any], Any, dict[str, Any]]:
    """Two inputs that both hint at the class; some items lack one."""
    rng = np.random.default_rng(seed)
    y = rng.choice(len(shares), n, p=shares)
    centres = np.random.default_rng(5).standard_normal((len(shares), 8)) * 0.45
    x = (centres[y] + rng.standard_normal((n, 8))).astype(np.float32)
    present = {"a": rng.random(n) < 0.9, "b": rng.random(n) < 0.9}
    present["a"] |= ~present["b"]
    return {"a": x[:, :5], "b": x[:, 5:]}, np.array(["common", "rare", "third"], object)[y], present


def as_data(X: Any, y: Any, present: Any) -> Data:
    return Data(X, present, np.unique(y.astype(str), return_inverse=True)[1].astype(np.int64))


def split(X: Any, y: Any, present: Any, at: int) -> tuple[Any, Any]:
    parts = (slice(0, at), slice(at, None))
    return tuple(({k: x[p] for k, x in X.items()}, y[p], {k: m[p] for k, m in present.items()}) for p in parts)


def kind_for(balance: str) -> str:
    return "gated" if balance == "focal" else "linear"


@pytest.mark.parametrize("balance", [name for name in BALANCES if name != "focal"])
def test_rare_items_are_found_more_often(balance: str) -> None:
    X, y, present = drawn(seed=1)
    again, truth, there = drawn(600, seed=2)
    heads = LinearHead(), BalancedHead("linear", balance)
    plain, helped = (head.fit(X, y, present=present).predict(again, present=there) for head in heads)
    rare = truth == "rare"
    assert (helped == truth)[rare].mean() > (plain == truth)[rare].mean() + 0.1
    assert balanced_accuracy_score(truth, helped) > balanced_accuracy_score(truth, plain)


def test_the_focal_loss_is_that_of_the_paper() -> None:
    import torch

    logits, codes = torch.tensor([[2.0, 0.0], [0.0, 0.5]]), torch.tensor([0, 0])
    own = logits.softmax(1)[:, 0]
    head, plain = GatedHead(focal=2.0, label_smoothing=0.0), GatedHead(label_smoothing=0.0)
    expected = -((1 - own) ** 2 * own.log()).mean()
    assert head._loss(logits, codes, torch.ones(2)).item() == pytest.approx(expected.item())
    assert plain._loss(logits, codes, torch.ones(2)).item() == pytest.approx(-own.log().mean().item())


@pytest.mark.parametrize("balance", BALANCES)
def test_the_contract(balance: str, tmp_path: Path) -> None:
    X, y, present = drawn(240, seed=3)
    head = BalancedHead(kind_for(balance), balance).fit(X, y, present=present)
    p = head.predict_proba(X, present=present)
    np.testing.assert_allclose(p.sum(axis=1), 1)
    specs = {name: HashEncoder(x.shape[1], "text").spec for name, x in X.items()}
    save_head(tmp_path / "heads" / "h", HeadRecord("h", "label", specs, head, {}), {})
    again = load_head(tmp_path / "heads" / "h").head
    assert isinstance(again, BalancedHead)
    np.testing.assert_array_equal(again.predict_proba(X, present=present), p)
    np.testing.assert_allclose(clone(head).fit(X, y, present=present).predict_proba(X, present=present), p, atol=1e-5)


def test_weights_are_scikit_learns_balanced_ones() -> None:
    X, y, present = drawn(500, seed=4, shares=(0.8, 0.15, 0.05))
    fit, held_out = split(X, y, present, 400)
    weights = compute_sample_weight("balanced", y)
    head = LinearHead(alpha=0.02, tolerance=1e-10)
    data = as_data(X, y, present)
    train, validation = (
        Data(d.inputs, d.present, d.codes, w) for d, w in ((as_data(*fit), weights[:400]), (as_data(*held_out), weights[400:]))
    )
    head.fit_data(train, validation, np.unique(y))
    features = head.standardizer_.transform(data).astype(np.float64)
    peer = LogisticRegression(C=1 / (0.02 * 500), class_weight="balanced", tol=1e-10, max_iter=5000).fit(features, y)
    np.testing.assert_allclose(head.predict_proba(X, present=present), peer.predict_proba(features), atol=2e-3)
    balanced = BalancedHead("linear", "weights").fit(fit[0], fit[1], present=fit[2], validation=held_out)
    alpha = balanced.member_.alpha_
    peer = LogisticRegression(C=1 / (alpha * 500), class_weight="balanced", tol=1e-10, max_iter=5000).fit(features, y)
    np.testing.assert_allclose(balanced.predict_proba(X, present=present), peer.predict_proba(features), atol=2e-2)


def test_weighted_ridge_and_its_leave_one_out() -> None:
    rng = np.random.default_rng(0)
    x, codes = rng.standard_normal((60, 5)), rng.choice(2, 60, p=[0.8, 0.2])
    weights = compute_sample_weight("balanced", codes)
    found = LooRidge.fit(x, codes, 2, [0.3], weights=weights)
    y = 2 * np.eye(2)[codes] - 1
    peer = Ridge(alpha=0.3 * 60).fit(x, y, sample_weight=weights)
    np.testing.assert_allclose(found.weight, peer.coef_.T, atol=1e-9)
    np.testing.assert_allclose(found.bias, peer.intercept_, atol=1e-9)
    for i in (0, 17, 59):
        rest = np.arange(60) != i
        alone = Ridge(alpha=0.3 * 60).fit(x[rest], y[rest], sample_weight=weights[rest]).predict(x[[i]])
        np.testing.assert_allclose(found.left_out[i] / found.scale, alone[0], atol=1e-9)
    even = LooRidge.fit(x, codes, 2, [0.3, 3.0], weights=np.full(60, 5.0))
    np.testing.assert_allclose(even.left_out, LooRidge.fit(x, codes, 2, [0.3, 3.0]).left_out, atol=1e-9)


@pytest.mark.parametrize("make", [RidgeHead, GbdtHead, GatedHead])
def test_weights_that_are_all_one_change_nothing(make: Any) -> None:
    train, validation = (as_data(*part) for part in split(*drawn(200, seed=6), 150))
    ones = [Data(d.inputs, d.present, d.codes, np.ones(len(d))) for d in (train, validation)]
    a, b = make().fit_data(train, validation, np.arange(2)), make().fit_data(*ones, np.arange(2))
    np.testing.assert_allclose(a.log_proba(validation), b.log_proba(validation), atol=1e-5)


def test_an_item_of_weight_two_is_two_items() -> None:
    rng = np.random.default_rng(0)
    x, codes = rng.standard_normal((150, 6)).astype(np.float32), rng.integers(0, 3, 150)
    weights = np.where(codes == 1, 2.0, 1.0)
    twice = np.concatenate([np.arange(150), np.flatnonzero(codes == 1)])
    heavy = LogisticProblem(x, codes, 3, weights=weights * 150 / weights.sum()).solve(0.05, tolerance=1e-10)
    drawn_twice = LogisticProblem(x[twice], codes[twice], 3).solve(0.05, tolerance=1e-10)
    np.testing.assert_allclose(heavy.weight, drawn_twice.weight, atol=1e-3)
    biases = (b - b.mean() for b in (heavy.bias, drawn_twice.bias))  # a softmax leaves their sum open
    np.testing.assert_allclose(*biases, atol=1e-3)


@pytest.mark.parametrize(("how", "peer"), [("oversample", RandomOverSampler), ("undersample", RandomUnderSampler)])
def test_drawn_items_are_imbalanced_learns(how: str, peer: Any) -> None:
    data = as_data(*drawn(200, seed=8, shares=(0.7, 0.2, 0.1)))
    found = resampled(data, how, seed=3)
    x, y = peer(random_state=3).fit_resample(np.concatenate([*data.inputs.values()], axis=1), data.codes)
    np.testing.assert_array_equal(np.concatenate([*found.inputs.values()], axis=1), x)
    np.testing.assert_array_equal(found.codes, y)
    counts = np.bincount(data.codes)
    assert set(np.bincount(found.codes)) == {counts.max() if how == "oversample" else counts.min()}


def test_smote_is_imbalanced_learns() -> None:
    X, y, _ = drawn(200, seed=9, shares=(0.7, 0.2, 0.1))
    data = as_data(X, y, {name: np.ones(200, bool) for name in X})
    found = resampled(data, "smote", seed=3)
    x, codes = SMOTE(random_state=3).fit_resample(np.concatenate([*X.values()], axis=1), data.codes)
    np.testing.assert_allclose(np.concatenate([*found.inputs.values()], axis=1), x, atol=1e-6)
    np.testing.assert_array_equal(found.codes, codes)
    assert all(mask.all() for mask in found.present.values())


def test_smote_with_missing_inputs_and_classes_of_one_item() -> None:
    X, y, present = drawn(200, seed=10)
    X = {name: np.where(present[name][:, None], x, np.nan) for name, x in X.items()}
    y[0] = "single"
    data = as_data(X, y, present)
    found = resampled(data, "smote")
    assert np.bincount(found.codes)[data.codes[0]] == 1
    assert np.any([*found.present.values()], axis=0).all()
    for name, x in found.inputs.items():
        assert np.isfinite(x[found.present[name]]).all()
    two = data.take(np.concatenate([np.flatnonzero(data.codes == 0)[:20], np.flatnonzero(data.codes == 1)[:2]]))
    assert len(resampled(two, "smote")) > 22
    even = data.take(np.flatnonzero(data.codes == 0))
    assert resampled(even, "smote") is even


def test_validation_items_are_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    fit, held_out = split(*drawn(300, seed=11), 200)
    seen = []
    real = LinearHead.fit_data

    def watched(self: Any, train: Data, validation: Data, classes: Any) -> Any:
        seen.append((train, validation))
        return real(self, train, validation, classes)

    monkeypatch.setattr(LinearHead, "fit_data", watched)
    BalancedHead("linear", "oversample").fit(fit[0], fit[1], present=fit[2], validation=held_out)
    ((train, validation),) = seen
    assert len(train) > 200
    np.testing.assert_array_equal(validation.inputs["a"], held_out[0]["a"])


CHOSEN = {
    "knn": ("k_", "temperature_", "weights_"),
    "ridge": ("lambda_", "scale_"),
    "kernel": ("gamma_", "lambda_", "scale_", "weights_"),
    "late": ("weights_", "scale_"),
    "ensemble": ("votes_",),
    "auto": ("chosen_", "votes_"),
}


@pytest.mark.parametrize("kind", CHOSEN)
@pytest.mark.parametrize("how", ["oversample", "smote"])
def test_no_twin_of_an_item_has_a_say_in_what_is_chosen(kind: str, how: str) -> None:
    """Heads that leave items out choose as on plain items, and learn from the drawn ones."""
    known: dict[str, Any] = {"steps": ("linear", "late", "ensemble"), "folds": 2} if kind == "auto" else {}
    fit, held_out = split(*drawn(160, seed=13, shares=(0.8, 0.2)), 120)
    given = {"present": fit[2], "validation": held_out}
    plain = make_head(kind, **known).fit(fit[0], fit[1], **given)
    head = BalancedHead(kind, how)
    head._member = lambda tuned=None: make_head(kind, **known)  # type: ignore[method-assign]
    head.fit(fit[0], fit[1], **given)
    assert type(head.member_) is type(plain)
    for name in CHOSEN[kind]:
        assert getattr(head.member_, name) == getattr(plain, name), name
    rare = list(head.classes_).index("rare")
    helped, usual = (one.predict_proba(held_out[0], present=held_out[2])[:, rare].mean() for one in (head, plain))
    assert helped > usual + 0.03


def test_drawn_items_are_neighbours_once_they_are_chosen_with() -> None:
    fit, held_out = split(*drawn(160, seed=13, shares=(0.8, 0.2)), 120)
    head = BalancedHead("knn", "oversample").fit(fit[0], fit[1], present=fit[2], validation=held_out)
    assert isinstance(head.member_, KnnHead)
    assert len(head.member_.codes_) == 40 + 2 * (fit[1] == "common").sum()


def test_logits_are_less_the_log_prior() -> None:
    fit, held_out = split(*drawn(300, seed=12, shares=(0.8, 0.15, 0.05)), 200)
    plain = LinearHead().fit(fit[0], fit[1], present=fit[2], validation=held_out)
    head = BalancedHead("linear", "logit-adjust").fit(fit[0], fit[1], present=fit[2], validation=held_out)
    counts = np.array([(np.concatenate([fit[1], held_out[1]]) == label).sum() for label in head.classes_])
    expected = plain.predict_proba(held_out[0], present=held_out[2]) / counts
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(head.predict_proba(held_out[0], present=held_out[2]), expected)


def test_the_threshold_is_the_best_one() -> None:
    rng = np.random.default_rng(0)
    codes = (rng.random(300) < 0.1).astype(np.int64)
    log_odds = np.round(2 * codes + rng.standard_normal(300) - 3, 1)
    found = balanced_accuracy_score(codes, log_odds >= best_threshold(log_odds, codes))
    assert found == pytest.approx(max(balanced_accuracy_score(codes, log_odds >= cut) for cut in np.unique(log_odds)))
    X, y, present = drawn(200, shares=(0.6, 0.3, 0.1))
    with pytest.raises(HeadError, match="'threshold' is for two classes; there are 3"):
        BalancedHead("linear", "threshold").fit(X, y, present=present)


def test_what_does_not_go_together_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y, _ = drawn(60)
    with pytest.raises(UsageError, match=r"'weights' is not for head 'knn'\. Heads that take it: linear, ridge, weighted"):
        BalancedHead("knn", "weights").fit(X, y)
    with pytest.raises(UsageError, match=r"'focal' is not for head 'linear'\. Heads that take it: weighted, gated"):
        BalancedHead("linear", "focal").fit(X, y)
    with pytest.raises(UsageError, match="balance must be one of weights, oversample"):
        BalancedHead("linear", "twice").fit(X, y)
    monkeypatch.setitem(__import__("sys").modules, "imblearn", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'embedstore\[imbalance\]'"):
        BalancedHead("linear", "smote").fit(X, y)
