"""Heads that begin with class names: their formulas in float64, the prior at both ends, and what is saved with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.base import clone

from embedstore.encoders.hash import HashEncoder
from embedstore.errors import CorruptStoreError, HeadError, UsageError
from embedstore.heads import ClassTexts, Head, TextSide, make_head
from embedstore.heads.io import HeadRecord, load_head, save_head
from embedstore.heads.settled import settled
from embedstore.registry import PROMPTED

Array = np.ndarray[Any, Any]
CLASSES = ["class 0", "class 1", "class 2", "never seen"]


def unit(x: Array) -> Array:
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True))


def data(n: int = 40, seed: int = 0, noise: float = 0.4) -> tuple[dict[str, Array], Array, ClassTexts]:
    """Items around their classes' texts, in two inputs: one is turned and moved by an alignment, the other is not."""
    rng, fixed = np.random.default_rng(seed), np.random.default_rng(7)
    texts = unit(fixed.standard_normal((4, 6))).astype(np.float32)
    turn, mean = np.linalg.qr(fixed.standard_normal((9, 9)))[0][:, :6], fixed.standard_normal(9) * 0.1
    y = rng.integers(0, 3, n)
    here = unit(texts[y] + noise * rng.standard_normal((n, 6)))
    X = {"a": (here @ turn.T + mean).astype(np.float32), "b": unit(texts[y] + 2 * noise * rng.standard_normal((n, 6)))}
    sides = {
        "a": TextSide(texts, ("a {}",), "t", "", "align:1", mean.astype(np.float32), turn.astype(np.float32)),
        "b": TextSide(texts, ("{}",), "t", ""),
    }
    return X, np.array(CLASSES, object)[y], ClassTexts(CLASSES, sides)


def cosines(X: dict[str, Array], texts: ClassTexts) -> Array:
    side = texts.sides["a"]
    a = unit((unit(X["a"].astype(np.float64)) - side.mean) @ side.weight)
    return np.asarray((a @ side.vectors.T + unit(X["b"].astype(np.float64)) @ side.vectors.T) / 2)


@pytest.fixture(params=list(PROMPTED))
def fitted(request: pytest.FixtureRequest) -> Head:
    X, y, texts = data()
    return make_head(request.param, texts=texts).fit(X, y)


def test_zero_shot_is_the_mean_cosine_over_the_inputs_that_are_there() -> None:
    X, _, texts = data()
    head = make_head("zeroshot", texts=texts, scale=3.0).begin()  # type: ignore[attr-defined]
    expected = np.exp(3 * cosines(X, texts))
    np.testing.assert_allclose(head.predict_proba(X), expected / expected.sum(1, keepdims=True), atol=1e-5)
    only = head.predict_proba(X, present={"a": np.zeros(40, bool)})
    alone = np.exp(3 * unit(X["b"]) @ texts.sides["b"].vectors.T)
    np.testing.assert_allclose(only, alone / alone.sum(1, keepdims=True), atol=1e-5)
    nothing = head.predict_proba(X, present={name: np.zeros(40, bool) for name in X})
    np.testing.assert_allclose(nothing, 0.25)


def test_tip_adapter_is_the_paper_s_formula() -> None:
    X, y, texts = data(12)
    new, _, _ = data(20, seed=1)
    head: Any = make_head("tip-adapter", texts=texts, alpha=1.7, beta=5.5).fit(X, y)
    f = {name: np.concatenate([head.texts.sides[k].project(x[k]) for k in x], axis=1) / np.sqrt(2) for name, x in
         (("train", X), ("new", new))}  # fmt: skip
    cache = np.exp(-5.5 * (1 - f["new"] @ f["train"].T)) @ (y[:, None] == np.array(CLASSES, object))
    logits = head.scale_ * cosines(new, texts) + 1.7 * cache
    expected = np.exp(logits - logits.max(1, keepdims=True))
    np.testing.assert_allclose(head.predict_proba(new), expected / expected.sum(1, keepdims=True), atol=2e-3)  # float16 keys


def test_prompted_linear_is_the_minimum_of_its_objective() -> None:
    X, y, texts = data(60)
    head: Any = make_head("prompted-linear", texts=texts, penalty=1e-2).fit(X, y)
    z = np.concatenate([texts.sides[k].project(X[k]) for k in X], axis=1).astype(np.float64) / np.sqrt(2)
    codes, prior = texts.codes_of(y), head.scale_ * cosines(X, texts)

    def loss(theta: Array) -> float:
        v, b = theta[:48].reshape(12, 4), theta[48:]
        logits = prior + z @ v + b
        top = logits.max(1)
        log_total = np.log(np.exp(logits - top[:, None]).sum(1)) + top
        return float((log_total - logits[np.arange(60), codes]).mean() + 0.005 * (v**2).sum() + 1e-9 * (b**2).sum())

    best = minimize(loss, np.zeros(52), method="L-BFGS-B", options={"maxiter": 2000, "maxfun": 10**6, "ftol": 1e-14}).fun
    assert loss(np.concatenate([head.weight_.ravel(), head.bias_])) <= best * (1 + 1e-3) + 1e-6


def test_the_prior_is_what_remains_under_a_strong_penalty() -> None:
    X, y, texts = data(200)
    new, _, _ = data(100, seed=3, noise=1.0)
    strong: Any = make_head("prompted-linear", texts=texts, penalty=1e6).fit(X, y)
    assert np.abs(strong.weight_).max() < 1e-4
    known = [0, 1, 2]
    ours = strong.predict_log_proba(new)[:, known] - strong.bias_[known]
    zero_shot = strong.scale_ * cosines(new, texts)[:, known]
    np.testing.assert_allclose(ours - ours[:, :1], zero_shot - zero_shot[:, :1], atol=1e-3)


def test_few_items_help_and_a_class_without_one_is_known(fitted: Head) -> None:
    new, y, texts = data(300, seed=5, noise=0.6)
    zero_shot = make_head("zeroshot", texts=texts).fit(new, y)
    assert fitted.classes_.tolist() == CLASSES
    assert fitted.score(new, y) >= zero_shot.score(new, y) - 0.02
    few = clone(fitted).fit(*data(9)[:2])
    side = texts.sides["a"]
    assert side.weight is not None
    like_unseen = {"a": side.vectors[3:] @ side.weight.T + side.mean, "b": side.vectors[3:]}
    assert few.predict(like_unseen)[0] == "never seen"


def test_saved_and_loaded_it_predicts_the_same_without_its_texts_given(fitted: Head, tmp_path: Path) -> None:
    X, _, _ = data(seed=2)
    specs = {name: HashEncoder(x.shape[1], "text").spec for name, x in X.items()}
    save_head(tmp_path / "h", HeadRecord("h", "label", specs, fitted, {}), {})
    again = load_head(tmp_path / "h").head
    np.testing.assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))
    assert again.get_params() == fitted.get_params()
    assert clone(fitted).get_params() == fitted.get_params()
    (weights,) = tmp_path.glob("h/weights-*.safetensors")
    assert {path.suffix for path in (tmp_path / "h").iterdir()} == {".json", ".safetensors"}
    assert weights.stat().st_size > 0


def test_a_settled_head_is_like_the_first(fitted: Head) -> None:
    X, y, _ = data()
    np.testing.assert_allclose(settled(fitted).fit(X, y).predict_proba(X), fitted.predict_proba(X), atol=1e-6)


def test_texts_that_are_not_those_saved_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By their own fingerprint, and by that of the encoder whose vectors they are compared with."""
    X, _, texts = data()
    specs = {name: HashEncoder(x.shape[1], "text").spec for name, x in X.items()}
    head: Any = make_head("zeroshot", texts=texts).begin()  # type: ignore[attr-defined]
    state = head.state()
    state.tensors["texts.vectors.0"] = state.tensors["texts.vectors.0"][::-1].copy()
    with pytest.raises(ValueError, match="its class texts are"):
        type(head).from_state({}, state)
    sides = {
        name: TextSide(side.vectors, items="0" * 16, mean=side.mean, weight=side.weight) for name, side in texts.sides.items()
    }
    odd = make_head("zeroshot", texts=ClassTexts(CLASSES, sides)).begin()  # type: ignore[attr-defined]
    save_head(tmp_path / "h", HeadRecord("h", "label", specs, odd, {}), {})
    with pytest.raises(CorruptStoreError, match="its class texts are for vectors of 0000000000000000"):
        load_head(tmp_path / "h")


@pytest.mark.parametrize("kind", list(PROMPTED))
def test_what_it_cannot_begin_with(kind: str) -> None:
    X, y, texts = data()
    with pytest.raises(HeadError, match=f"Head '{kind}' begins with the names of the classes"):
        make_head(kind).fit(X, y)
    with pytest.raises(HeadError, match=r"The texts are beside inputs \['a', 'b'\]\. Got \['a'\] instead"):
        make_head(kind, texts=texts).fit({"a": X["a"]}, y)
    with pytest.raises(HeadError, match="Class 'odd' has no text"):
        make_head(kind, texts=texts).fit(X, np.where(np.arange(40) < 9, "odd", y).astype(object))
    with pytest.raises(UsageError, match=f"Head '{kind}' predicts classes"):
        make_head(kind, task="regression")


@pytest.mark.parametrize(
    ("kind", "odd", "words"),
    [
        ("zeroshot", {"scale": 0.0}, "scale should be a number above 0"),
        ("tip-adapter", {"alpha": -1.0}, "alpha should be a number of 0 or more"),
        ("tip-adapter", {"beta": float("nan")}, "beta should be a number of 0 or more"),
        ("prompted-linear", {"penalty": 0.0}, "penalty should be a number above 0"),
    ],
)
def test_odd_parameters(kind: str, odd: dict[str, float], words: str) -> None:
    X, y, texts = data()
    with pytest.raises(HeadError, match=words):
        make_head(kind, texts=texts, **odd).fit(X, y)


def test_what_is_chosen_with_enough_validation_items() -> None:
    X, y, texts = data(200, noise=1.0)
    held_out = data(120, seed=8, noise=1.0)
    for kind, what in (("tip-adapter", "residual_ratio_"), ("prompted-linear", "lambda_")):
        head = make_head(kind, texts=texts).fit(X, y, validation=(*held_out[:2], None))
        plain = make_head("zeroshot", texts=texts).fit(X, y)
        new, truth, _ = data(400, seed=9, noise=1.0)
        assert getattr(head, what) > 0
        assert head.score(new, truth) > plain.score(new, truth) - 0.02
