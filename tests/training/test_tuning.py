"""Tuning: nested in the training split, gone on with after a kill, told honestly."""

from __future__ import annotations

import json
import math
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from helpers import TESTS, run, telling_store

import embedstore as es
from embedstore._core.threads import idle, steady
from embedstore.errors import CorruptStoreError, HeadError, MissingDependencyError, StoreError, UsageError
from embedstore.heads import Head, make_head
from embedstore.heads.io import load_head
from embedstore.registry import heads_for, kinds_of_heads
from embedstore.training import tuning

QUICK = {"report": False, "out_of_fold": 0, "seeds": 1}
KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[2])
import embedstore as es
from embedstore.training import tuning
commit, done = tuning._Journal.commit, []
def killing(journal):
    commit(journal)
    done.append(1)
    if len(done) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
tuning._Journal.commit = killing
es.train(sys.argv[1], "label", head="ridge", tune=7, name="killed", replace=True, report=False, out_of_fold=0, seeds=1)
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> es.Store:
    rng = np.random.default_rng(1)
    path = tmp_path_factory.mktemp("stores") / "a.store"
    n = 120
    return telling_store(
        path, n, price=rng.normal(size=n).tolist(), tags=[["x"] * (i % 3 > 0) + ["y"] * (i % 2) for i in range(n)]
    )


def tuned(store: es.Store | es.View, name: str, target: str | None = "label", **options: Any) -> dict[str, Any]:
    report = es.train(
        store,
        None if isinstance(store, es.View) else target,
        name=name,
        **{**QUICK, "head": "ridge", "replace": True, **options},
    )
    assert report.tuning is not None
    return dict(report.tuning)


def trials(study: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [(one["number"], one["params"], one["value"], one["best"]) for one in study["history"]]


def test_a_killed_study_goes_on_as_if_nothing_had_been(store: es.Store) -> None:
    whole = tuned(store, "whole", tune=7)
    run("-c", KILLED, store.path, TESTS, code=-signal.SIGKILL)
    assert "killed" not in store.heads
    report = es.train(store, "label", head="ridge", tune=7, name="killed", replace=True, **QUICK)
    assert report.tuning is not None
    assert report.tuning["before"] == 3
    assert "tuning on the training split went on after 3 trials of an earlier run" in report.notes
    assert trials(dict(report.tuning)) == trials(whole)
    assert report.tuning["gain"] == whole["gain"]
    more = tuned(store, "killed", tune=9)  # a finished study, too
    assert (more["before"], trials(more)[:7]) == (7, trials(whole))


@pytest.mark.parametrize(("how", "head"), [("tpe", "kernel"), ("random", "knn"), ("grid", "knn")])
def test_an_interrupted_study_is_the_same_whatever_proposes(
    store: es.Store, how: str, head: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"head": head, "tune": 14 if how == "tpe" else 5, "tune_by": how}
    whole = tuned(store, f"whole-{how}", **options)
    commit, done = tuning._Journal.commit, []

    def interrupted(journal: tuning._Journal) -> None:
        if len(done) == (12 if how == "tpe" else 2):  # the trial in progress leaves no trace
            raise KeyboardInterrupt
        commit(journal)
        done.append(1)

    monkeypatch.setattr(tuning._Journal, "commit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tuned(store, f"part-{how}", **options)
    monkeypatch.undo()
    again = tuned(store, f"part-{how}", **options)
    assert again["before"] == len(done)
    assert trials(again) == trials(whole)
    assert len({json.dumps(params) for _, params, _, _ in trials(whole)}) == options["tune"]


def test_test_items_are_never_seen(store: es.Store) -> None:
    view = store.view(inputs=["text"], target="label")
    assert view.target is not None
    test = view.split == "test"
    other = np.where(test, np.roll(view.target, 1), view.target)
    mine = tuned(view, "honest", tune=5)
    theirs = tuned(replace(view, target=other), "shuffled", tune=5)
    assert trials(mine) == trials(theirs)


def test_the_first_trial_is_the_head_as_it_comes_which_stands_beside(store: es.Store) -> None:
    report = es.train(store, "label", head="ridge", tune=4, name="beside", **{**QUICK, "report": True})
    assert report.tuning is not None
    plain = es.train(store, "label", head="ridge", name="plain", **QUICK)
    assert report.baselines["untuned"]["accuracy"] == plain.metrics["accuracy"]
    first, *_ = report.tuning["history"]
    assert (first["params"], first["value"]) == ({}, report.tuning["default_value"])
    page = Path(report.report).read_text("utf-8")
    assert "no test item was seen" in page
    assert "as it comes" in page
    assert load_head(store.path / "heads" / "beside").report["tuning"] == json.loads(json.dumps(report.tuning))
    assert es.verify(store).clean


def test_what_is_found_is_what_is_saved(store: es.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a score that likes large penalties, the head has the largest that was tried; its seeds and folds have it, too."""
    original = tuning._run

    def liking(optuna: Any, begun: Any, journal: Any, study: Any, score: Any, say: Any) -> None:
        original(optuna, begun, journal, study, lambda params: params.get("lambdas", (0,))[0], say)

    monkeypatch.setattr(tuning, "_run", liking)
    study = tuned(store, "liked", tune=6, out_of_fold=2)
    largest = max((one["params"].get("lambdas", 0) for one in study["history"]), default=0)
    head = load_head(store.path / "heads" / "liked").head
    assert head.get_params()["lambdas"] == [largest]
    assert head.lambda_ == largest  # type: ignore[attr-defined]


def test_another_question_begins_anew_and_says_why(store: es.Store, tmp_path: Path) -> None:
    tuned(store, "anew", tune=3)

    def notes(**options: Any) -> str:
        report = es.train(store, "label", **{**QUICK, "head": "ridge", "tune": 3, "name": "anew", "replace": True, **options})
        return "\n".join(report.notes)

    assert "began anew" not in notes()
    assert "the 3 trials of an earlier study had another split, seed; it began anew" in notes(seed=5)
    assert "another head, split, seed, parameters; it began anew" in notes(head="knn")
    assert "another way of proposing; it began anew" in notes(head="knn", tune_by="random")
    assert "another items and labels, split; it began anew" in notes(head="knn", tune_by="random", where="n < 100")
    copied = telling_store(tmp_path / "b.store", 80)
    tuned(copied, "more", tune=2)
    changed = telling_store(tmp_path / "b.store", 90)
    report = es.train(changed, "label", head="ridge", tune=2, name="more", replace=True, **QUICK)
    assert any("another generation of the store, items and labels" in note for note in report.notes)


def test_each_fold_of_cross_validation_has_a_study_of_its_own(store: es.Store) -> None:
    study = tuned(store, "cv", cv=2, tune=3, head="linear")
    assert study["part"] == "all items"
    assert [fold["part"] for fold in study["folds"]] == ["fold 1 of 2", "fold 2 of 2"]
    assert all(len(fold["history"]) == 3 for fold in study["folds"])


@pytest.mark.parametrize(("target", "head", "metric"), [("price", "ridge", "mae"), ("tags", "knn", "item_f1")])
def test_other_tasks(store: es.Store, target: str, head: str, metric: str) -> None:
    study = tuned(store, f"of-{target}", target, head=head, tune=3)
    assert (study["metric"], study["trials"]) == (metric, 3)


def test_a_grid_that_ends_says_so(store: es.Store) -> None:
    report = es.train(store, "label", head="linear", tune=20, tune_by="grid", name="grid", **QUICK)
    assert report.tuning is not None
    assert report.tuning["trials"] == 14
    assert any("the grid has 14 points, all of which were tried" in note for note in report.notes)


def test_parameters_without_a_head_are_left_out(store: es.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    original = tuning._run

    def failing(optuna: Any, begun: Any, journal: Any, study: Any, score: Any, say: Any) -> None:
        def some(params: Any) -> float:
            if params:
                raise HeadError("nothing can be fitted")
            return float(score(params))

        original(optuna, begun, journal, study, some, say)

    monkeypatch.setattr(tuning, "_run", failing)
    report = es.train(store, "label", head="ridge", tune=3, name="failing", **QUICK)
    assert report.tuning is not None
    assert (report.tuning["best"], [one["value"] for one in report.tuning["history"]][1:]) == (0, [None, None])
    assert any("parameters of 2 trials" in note for note in report.notes)
    assert json.loads(json.dumps(report.to_dict()))["tuning"]["gain"] == {"value": 0, "low": 0, "high": 0}


@pytest.mark.parametrize("by", ["tpe", "random", "grid"])
def test_a_first_trial_without_a_score_counts_as_failed(tmp_path: Path, by: str) -> None:
    """The study goes on, and a later run reads its journal; where no trial has a score, one line says so."""
    values = iter([math.nan, 0.25, math.inf, 0.5])
    study = tuning.Study("some items", {}, make_head("knn"), by, 3, 0)
    said: list[str] = []
    found = tuning.tune(tmp_path / "a", study, lambda params: next(values), said.append)
    told = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert [(one["value"], one["best"]) for one in told["history"]] == [(None, None), (0.25, 0.25), (None, 0.25)]
    assert (told["best"], told["default_value"], found.settings) == (1, None, study.settings(found.trials[1].params))
    assert said[1:] == ["tuning on some items: trial 2 of 3", "tuning on some items: trial 3 of 3, best 0.250"]
    more = tuning.tune(tmp_path / "a", replace(study, trials=4), lambda params: next(values), said.append)
    assert (more.before, more.best.number) == (3, 3)
    with pytest.raises(HeadError, match=r"none of the 3 trials has a score that is a finite number\. Train without --tune"):
        tuning.tune(tmp_path / "b", study, lambda params: math.nan, said.append)


def test_optuna_itself_reads_the_journal(store: es.Store) -> None:
    study = tuned(store, "read", tune=3)
    backend = optuna.storages.journal.JournalFileBackend(str(store.path / "heads" / "read" / "tuning.jsonl"))
    found = optuna.load_study(study_name="the training split", storage=optuna.storages.JournalStorage(backend))
    assert found.best_trial.number == study["best"]
    assert [trial.value for trial in found.trials] == [one["value"] for one in study["history"]]


def test_the_command_line(store: es.Store) -> None:
    made = run("train", store.path, "label", "--head", "ridge", "--tune", "3", "--tune-by", "random", "--name", "cli").stdout
    assert "tuned by 3 trials (random" in made
    assert "gain of tuning in accuracy on the test items, paired: " in made
    assert "the same, not tuned" in made


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"head": "auto", "tune": 5}, "Head 'auto' has no parameters to tune. Heads that have: linear, ridge, knn"),
        ({"tune": 1}, "tune must be at least 2"),
        ({"tune": 5, "tune_by": "luck"}, "tune_by must be one of tpe, random, grid"),
        ({"tune_by": "grid"}, "say how many: tune=50"),
        ({"tune": 5, "balance": "weights"}, "tune and balance are not made together"),
    ],
)
def test_what_does_not_fit_is_refused(store: es.Store, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        es.train(store, "label", **options)


def test_without_optuna_the_extra_is_named(store: es.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'embedstore\[tune\]'"):
        es.train(store, "label", tune=3)


def test_a_damaged_journal_is_one_line(store: es.Store, tmp_path: Path) -> None:
    tuned(store, "damaged", tune=3)
    journal = store.path / "heads" / "damaged" / "tuning.jsonl"
    whole = journal.read_bytes()
    value = b'"param_value_internal":'
    for wrong in (
        whole[:-9],
        b"\xff\n" + whole,
        b"[1]\n",
        whole.replace(b'"param_name":"lambdas"', b'"param_name":"landas"'),
        whole.replace(value, value + b"-"),
    ):
        journal.write_bytes(wrong)
        with pytest.raises(CorruptStoreError, match=r"tuning\.jsonl is damaged \(.*Remove it, and tuning begins anew: rm "):
            tuned(store, "damaged", tune=3)
    outside = tmp_path / "mine.txt"
    outside.write_text("")
    journal.unlink()
    journal.symlink_to(outside)
    with pytest.raises(StoreError, match="is a link"):
        tuned(store, "damaged", tune=3)
    assert outside.read_text() == ""


def every_tunable_head() -> list[tuple[str, type[Head]]]:
    return [(f"{kind}, {made.task}", made) for heads in kinds_of_heads() for kind in heads if (made := heads.get(kind)).tunable]


@pytest.mark.parametrize(("kind", "made"), every_tunable_head())
def test_what_heads_have_to_tune_is_theirs(kind: str, made: type[Head]) -> None:
    head = made()
    for name, tried in made.tunable.items():
        assert name in head.get_params()
        values = tried.grid()
        assert len(values) > 1
        assert all(tried.holds(value) for value in values)
        head.set_params(**{name: tried.setting(values[0])})
    assert not made.tunable[name].holds(None)
    assert not made.tunable[name].holds(1e9)


def test_which_heads_can_be_tuned() -> None:
    tasks = ("classification", "regression", "multilabel")
    tunable = {task: [kind for kind in heads_for(task) if make_head(kind, task=task).tunable] for task in tasks}
    networks = ["weighted", "gated", "bilinear", "attention"]
    assert tunable["classification"] == ["linear", "ridge", "knn", "kernel", "late", *networks, "gbdt"]
    assert tunable["regression"] == ["linear", "ridge", "knn", "gbdt"]
    assert tunable["multilabel"] == ["linear", "knn", *networks, "gbdt"]


def test_threads_are_as_many_as_asked_for() -> None:
    with steady(1):
        assert idle() == 1
