"""A head says how certain it is: temperature where it helps, sets and intervals with a coverage, and how often they hold."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers import Telling, run, telling_store

import embedstore as es
from embedstore.errors import HeadError, UsageError
from embedstore.evaluation.metrics import Score
from embedstore.heads import make_head
from embedstore.heads.base import log_softmax, nll
from embedstore.heads.io import load_head
from embedstore.heads.solvers.temperature import certain_scale
from embedstore.sources import MemorySource


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> es.Store:
    """600 items of three classes that overlap, and a price."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 600)
    x = np.eye(3)[y] + rng.normal(0, 0.7, (600, 3))
    data = {
        "id": [f"i{i}" for i in range(600)],
        "text": [" ".join(f"{v:.4f}" for v in row) for row in x],
        "label": ["abc"[k] for k in y],
        "price": (10 * x[:, 0] + rng.normal(0, 2, 600)).round(3).tolist(),
    }
    path = tmp_path_factory.mktemp("certain") / "s"
    es.embed(MemorySource(data), path, text=Telling(3, "text", "telling"))
    opened = es.Store.open(path)
    for target in ("label", "price"):
        es.train(opened, target, report=False)
    return opened


def near(score: Score, target: float) -> bool:
    return score.low - 0.03 <= target <= score.high + 0.03


def test_sets_of_classes(store: es.Store, tmp_path: Path) -> None:
    plain, found = es.predict(store, "label"), es.predict(store, "label", coverage=0.9)
    assert plain.sets == []
    assert found.labels.tolist() == plain.labels.tolist()
    assert len(found.sets) == 600
    for p, among in zip(found.probabilities, found.sets, strict=True):
        likeliest = found.classes[np.argsort(-p, kind="stable")].tolist()
        assert among == likeliest[: len(among)]
    more = es.predict(store, "label", coverage=0.98)
    assert all(set(a) <= set(b) for a, b in zip(found.sets, more.sets, strict=True))
    rows = found.to_rows()
    assert rows[0]["set"] == found.sets[0]
    assert pq.read_table(found.save(tmp_path / "p.parquet")).column("set").to_pylist() == found.sets
    lines = found.save(tmp_path / "p.csv").read_text("utf-8").splitlines()
    assert '"[""' in lines[1] or "[]" in lines[1]
    assert json.loads(found.save(tmp_path / "p.jsonl").read_text().splitlines()[0])["set"] == found.sets[0]


def test_intervals_of_numbers(store: es.Store, tmp_path: Path) -> None:
    found = es.predict(store, "price", coverage=0.9)
    low, high = np.array(found.intervals).T
    np.testing.assert_allclose((low + high) / 2, found.labels, atol=1e-6)
    table = pq.read_table(found.save(tmp_path / "p.parquet"))
    assert table.column("low").to_pylist() == low.tolist()
    assert {"low", "high"} < found.to_rows()[0].keys()
    with pytest.raises(UsageError, match="per_class is for classes"):
        es.predict(store, "price", coverage=0.9, per_class=True)


@pytest.mark.parametrize("target", ["label", "price"])
@pytest.mark.parametrize("cv", [None, 3])
def test_the_coverage_is_measured_in_training(store: es.Store, target: str, cv: int | None) -> None:
    result = es.train(store, target, cv=cv, coverage=0.9, name=f"{target}-{cv}", report=cv is None)
    assert result.certainty is not None
    assert near(result.certainty.coverage, 0.9)
    assert result.to_dict()["certainty"].keys() == {"target", "coverage", "size", "per_class", "classes"}
    assert "certainty" not in es.train(store, target, name="plain", replace=True, report=False).to_dict()
    if cv is None:
        assert "Certainty: a coverage of 0.9" in Path(result.report).read_text("utf-8")
        again = es.evaluate(store, f"{target}-{cv}", coverage=0.9)
        assert again.certainty is not None
        assert again.certainty.coverage == result.certainty.coverage
        assert again.certainty.size.value == pytest.approx(result.certainty.size.value)
        assert "certainty" not in es.evaluate(store, f"{target}-{cv}").to_dict()


def test_the_coverage_of_each_class(store: es.Store) -> None:
    found = es.evaluate(store, "label", coverage=0.85, per_class=True).certainty
    assert found is not None
    assert found.per_class
    assert [row["class"] for row in found.classes] == ["a", "b", "c"]
    assert sum(row["items"] for row in found.classes) > 50
    assert all(abs(row["coverage"] - 0.85) < 0.2 for row in found.classes)


def test_the_commands(store: es.Store, tmp_path: Path) -> None:
    document = json.loads(run("predict", store.path, "label", "--coverage", "0.9", "--per-class", "--json").stdout)
    assert "set" in document["predictions"][0]
    assert "  set" in run("predict", store.path, "label", "--coverage", "0.9").stdout
    said = run("evaluate", store.path, "label", "--coverage", "0.9", "--report", tmp_path / "e.html").stdout
    assert "coverage 0.9: measured 0." in said
    assert "Certainty: a coverage of 0.9" in (tmp_path / "e.html").read_text("utf-8")


def test_what_cannot_be_asked(store: es.Store, tmp_path: Path) -> None:
    for call in (es.predict, es.evaluate):
        with pytest.raises(UsageError, match="coverage must be above 0 and below 1"):
            call(store, "label", coverage=90.0)
        with pytest.raises(UsageError, match="per_class says of which items"):
            call(store, "label", per_class=True)
    with pytest.raises(UsageError, match="coverage is calibrated on out-of-fold predictions"):
        es.train(store, "label", coverage=0.9, out_of_fold=0)
    few = telling_store(tmp_path / "s", n=60)
    es.train(few, "label", out_of_fold=0, report=False)
    with pytest.raises(HeadError, match="keeps no out-of-fold predictions"):
        es.predict(few, "label", coverage=0.9)
    es.train(few, "label", replace=True, report=False)
    with pytest.raises(HeadError, match="needs more than 100 out-of-fold predictions"):
        es.predict(few, "label", coverage=0.99)


def test_a_temperature_is_kept_only_where_it_surely_helps() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 900)
    honest = log_softmax(np.eye(3)[y] * 1.5 + rng.normal(0, 1, (900, 3)))  # the posterior is softmax(1.5 x)
    folds = np.arange(900) % 5
    scaled, scale = certain_scale(log_softmax(1.5 * honest), y, folds)
    assert scale == 1
    for factor in (0.2, 5.0):
        off = log_softmax(factor * 1.5 * honest)
        scaled, scale = certain_scale(off, y, folds)
        assert scale == pytest.approx(1 / factor, rel=0.25)
        assert nll(scaled, y) < nll(off, y)
        assert (scaled.argmax(axis=1) == off.argmax(axis=1)).all()
        assert certain_scale(off, y, folds, np.arange(900).astype(str))[1] == scale
        assert certain_scale(off, y, folds, np.full(900, "one group"))[1] == 1


def test_a_saved_head_keeps_its_temperature(store: es.Store, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 120)
    x = np.eye(3)[y] + rng.normal(0, 0.5, (120, 3))
    head = make_head("linear").fit(x, y)
    before = head.predict_log_proba(x)
    assert "calibration" not in head.state().config
    head.calibration_ = 0.5
    np.testing.assert_allclose(head.predict_log_proba(x), log_softmax(0.5 * before))
    again = type(head).from_state(head.get_params(), head.state())
    np.testing.assert_array_equal(again.predict_log_proba(x), head.predict_log_proba(x))
    head.fit(x, y)
    np.testing.assert_allclose(head.predict_log_proba(x), before)
    for odd in (0.0, -1.0, float("nan"), float("inf")):
        state = head.state()
        state.config["calibration"] = odd
        with pytest.raises(ValueError, match="calibration"):
            type(head).from_state(head.get_params(), state)


def test_training_calibrates_what_is_overconfident(store: es.Store) -> None:
    """Nearest neighbours of one item are always sure: their probabilities are softened, on the test split too."""
    result = es.train(store, "label", head="knn", name="knn", report=False)
    record = load_head(store.path / "heads" / "knn")
    assert record.head.calibration_ == result.learned.get("calibration", 1.0)
    kept = es.out_of_fold(store, "knn")
    p = np.maximum(kept.probabilities[kept.crossed].astype(float), 1e-9)
    _, scale = certain_scale(np.log(p), kept.codes[kept.crossed], kept.fold[kept.crossed])
    assert 0.7 < scale < 1.4
    predicted = es.predict(store, "knn", ids=kept.ids[~kept.crossed].tolist())
    np.testing.assert_allclose(predicted.probabilities, kept.probabilities[~kept.crossed], atol=1e-6)
