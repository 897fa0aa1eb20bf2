"""Rare classes from the option to the page: what helped, and what it changed beside the same head without it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import Telling, run
from sklearn.metrics import balanced_accuracy_score, recall_score

import embedstore as es
from embedstore.errors import UsageError
from embedstore.evaluation.bootstrap import Bootstrap
from embedstore.evaluation.metrics import paired_label_scores, paired_recalls
from embedstore.heads import BalancedHead
from embedstore.heads.io import load_head
from embedstore.sources import MemorySource


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> es.Store:
    rng = np.random.default_rng(0)
    y = rng.random(700) < 0.04
    x = np.outer(y, [1.0, -1.0, 0.5]) + rng.normal(0, 0.6, (700, 3))
    data = {
        "id": [f"i{i}" for i in range(700)],
        "text": [" ".join(f"{v:.3f}" for v in row) for row in x],
        "label": np.where(y, "rare", "common").tolist(),
        "price": x[:, 0].tolist(),
        "many": [str(i % 20) for i in range(700)],
    }
    path = tmp_path_factory.mktemp("stores") / "a.store"
    es.embed(MemorySource(data), path, text=Telling(3, "text", "telling"))
    return es.Store.open(path)


def test_a_note_names_the_option_until_it_is_used(store: es.Store) -> None:
    plain = es.train(store, "label", name="plain", cv=3, replace=True, report=False)
    assert plain.balance is None
    (note,) = [note for note in plain.notes if "--balance" in note]
    assert note.startswith("1 class has under 5 % of the training items ('rare': ")
    helped = es.train(store, "label", name="helped", cv=3, balance="weights", report=False)
    assert not any("--balance" in note for note in helped.notes)
    many = es.train(store, "many", name="many", cv=3, report=False)  # twenty classes of 5 % each are not imbalanced
    assert not any("--balance" in note for note in many.notes)


@pytest.mark.parametrize("how", ["weights", "smote", "threshold", "logit-adjust"])
def test_what_changed_stands_beside_the_head_without_it(store: es.Store, how: str) -> None:
    plain = es.train(store, "label", name="plain", cv=3, replace=True, report=False)
    found = es.train(store, "label", name=how, cv=3, balance=how, replace=True)
    assert list(found.baselines) == ["majority", "unbalanced", "knn"]
    assert found.baselines["unbalanced"]["accuracy"] == plain.metrics["accuracy"]
    assert found.balance is not None
    assert found.balance["how"] == how
    changed = found.balance["metrics"]["balanced_accuracy"]
    assert changed["without"]["value"] == plain.metrics["balanced_accuracy"].value
    assert changed["with"]["value"] == found.metrics["balanced_accuracy"].value
    assert changed["change"]["low"] > 0
    assert found.balance["recall"]["rare"]["change"]["value"] > 0.1
    assert json.loads(json.dumps(found.to_dict()))["balance"] == json.loads(json.dumps(found.balance))
    page = Path(found.report).read_text("utf-8")
    assert "What balancing changed" in page
    assert "recall of rare" in page
    assert found.learned["alpha"] > 0
    head = load_head(store.path / "heads" / how).head
    assert isinstance(head, BalancedHead)
    assert (head.head, head.balance) == ("linear", how)
    assert len(es.predict(store, how, ids=["i0"], explained=True).labels) == 1
    assert es.verify(store).clean


def test_evaluate_and_the_command_line(store: es.Store, tmp_path: Path) -> None:
    made = run("train", store.path, "label", "--balance", "oversample", "--name", "cli", "--head", "ridge")
    assert "balance: oversample" in made.stdout
    assert "recall of rare" in made.stdout
    assert "the same without balance" in made.stdout
    shown = run("evaluate", store.path, "cli", "--report", tmp_path / "e.html").stdout
    assert "balanced (cli)" in shown
    assert json.loads(run("train", store.path, "label", "--json", "--name", "none").stdout)["balance"] is None


@pytest.mark.parametrize(
    ("target", "options", "words"),
    [
        ("label", {"balance": "twice"}, "balance must be one of weights, oversample, undersample, smote"),
        ("label", {"balance": "weights", "head": "knn"}, "balance 'weights' is not for head 'knn'"),
        ("price", {"balance": "weights"}, "balance is for classes; target 'price' is for the task regression"),
    ],
)
def test_what_does_not_fit_is_refused(store: es.Store, target: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        es.train(store, target, report=False, **options)


def test_paired_changes_are_of_the_same_resamples() -> None:
    rng = np.random.default_rng(0)
    true = rng.choice(3, 200, p=[0.8, 0.15, 0.05])
    before, after = (np.where(rng.random(200) < p, true, 0) for p in (0.5, 0.7))
    bootstrap = Bootstrap.of(200, resamples=100)
    without, with_, change = paired_label_scores(true, before, after, 3, bootstrap=bootstrap)["balanced_accuracy"]
    assert without.value == pytest.approx(balanced_accuracy_score(true, before))
    assert with_.value == pytest.approx(balanced_accuracy_score(true, after))
    assert change.value == pytest.approx(with_.value - without.value)
    drawn = [np.repeat(np.arange(200), w) for w in bootstrap.weights(100).astype(int)]
    values = [balanced_accuracy_score(true[i], after[i]) - balanced_accuracy_score(true[i], before[i]) for i in drawn]
    np.testing.assert_allclose([change.low, change.high], np.quantile(values, [0.025, 0.975]), atol=1e-6)
    same = paired_recalls(true, before, before, 4, bootstrap=bootstrap)
    assert [three[0].value for three in same[:3]] == pytest.approx(recall_score(true, before, average=None).tolist())
    assert (same[0][2].low, same[0][2].high) == (0, 0)
    assert np.isnan(same[3][0].value)  # no item is of that class
