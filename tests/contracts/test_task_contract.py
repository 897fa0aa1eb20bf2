"""What every task keeps, run for each: ours, and one of forty lines that an installed package brings."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import Telling

import embedstore as es
from embedstore.errors import HeadError, UsageError
from embedstore.evaluation.bootstrap import Bootstrap
from embedstore.heads.io import load_head
from embedstore.registry import TASKS
from embedstore.sources import MemorySource
from embedstore.training.saved import fitted_ids, task_of
from embedstore.training.tasks.base import Labels, Predicted, Task, task_called, task_for

TARGETS = {"classification": "label", "regression": "price", "multilabel": "tags", "several": "label,price", "levels": "stars"}
"""A column for each task."""
UNFIT = {"classification": "name", "regression": "label", "multilabel": "label", "several": "stars", "levels": "price"}
"""And one that it refuses."""
HALVES = {"a": slice(0, 5), "b": slice(5, 10)}


class Half(Telling):
    def encode(self, batch):  # type: ignore[no-untyped-def]
        return super().encode(batch)[:, HALVES[self.spec.name]]


def make_store(path: Path, n: int, seed: int) -> es.Store:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 10))
    score = 2 * x[:, 0] + x[:, 7]
    source = MemorySource(
        {
            "id": [f"{seed}-{i}" for i in range(n)],
            "text": [" ".join(f"{v:.4f}" for v in row) for row in x],
            "label": ["low" if s < -1 else "high" if s > 1 else "middle" for s in score],
            "price": (score + 0.2 * rng.standard_normal(n)).tolist(),
            "stars": np.clip(np.rint(score), -2, 2).astype(int).tolist(),
            "name": [f"name {i}" for i in range(n)],
            "tags": [[name for name, k in (("p", 0), ("q", 3), ("r", 7)) if row[k] > 0.5] for row in x],
        }
    )
    es.embed(source, path, text={name: Half(5, "text", name) for name in HALVES})
    return es.Store.open(path)


@pytest.fixture(scope="module")
def trained_on(tmp_path_factory: pytest.TempPathFactory) -> es.Store:
    return make_store(tmp_path_factory.mktemp("stores") / "a.store", 240, 1)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> es.Store:
    return make_store(tmp_path_factory.mktemp("stores") / "b.store", 80, 2)


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with an entry point of the group, as pip would leave it; the registry looks again, and forgets it after."""
    assert TASKS.names() == ["classification", "regression", "multilabel", "several", "matching"]
    folder = tmp_path / "installed" / "toy-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[embedstore.tasks]\nlevels = toy_task:Levels\n")
    monkeypatch.syspath_prepend(str(folder.parent))
    monkeypatch.delitem(vars(TASKS), "_entry_points")


@pytest.fixture(params=TARGETS)
def task(request: pytest.FixtureRequest) -> Task:
    return task_called(request.param)


@pytest.fixture
def view(task: Task, trained_on: es.Store) -> es.View:
    return trained_on.view(inputs=list(HALVES), target=TARGETS[task.name])


def fitted(task: Task, view: es.View, items: Any) -> tuple[Labels, Any]:
    """Labels of `items`, and what a plain linear head that was fitted to them says of them."""
    labels = task.labels(view)
    X, present = ({name: x[items] for name, x in arrays.items()} for arrays in (view.inputs, view.present))
    head = task.plain_linear().fit(X, labels.values[items], present=present)
    return labels.take(items), task.outputs(head, X, present, labels)


def said_in(columns: Any) -> list[Any]:
    """The predictions in a table's columns: one an item, or a mapping where there are several targets."""
    if "prediction" in columns:
        return list(columns["prediction"])
    several = {name.removeprefix("prediction:"): values for name, values in columns.items() if name.startswith("prediction:")}
    return [dict(zip(several, row, strict=True)) for row in zip(*several.values(), strict=True)]


def test_every_task_is_an_entry_point() -> None:
    assert [name for name in TASKS if task_called(name).needs_target] == list(TARGETS)
    assert TASKS.summary("levels") == "Whole numbers that have an order, such as one to five stars."


def test_it_has_a_name_and_no_state(task: Task) -> None:
    assert type(task).name in TARGETS
    assert vars(task) == {}
    assert task.make_head("linear").task == task.heads
    with pytest.raises(UsageError, match=r"No head.* is called 'nope'"):
        task.make_head("nope")


def test_labels_are_one_an_item(task: Task, view: es.View) -> None:
    labels = task.labels(view)
    assert len(labels) == len(labels.values) == len(view) == len(task.strata(labels))
    some = labels.take(np.array([5, 2]))
    assert some.truth.tolist() == labels.truth[[5, 2]].tolist()
    assert some.classes is labels.classes
    assert task.learnable(labels)
    assert not task.learnable(labels.take(np.array([3])))


def test_what_is_unfit_is_refused(task: Task, trained_on: es.Store) -> None:
    with pytest.raises(HeadError, match=f"Target '{UNFIT[task.name]}'"):
        task.labels(trained_on.view(inputs=["a"], target=UNFIT[task.name]))


def test_outputs_of_heads_and_of_the_constant_are_alike(task: Task, view: es.View) -> None:
    labels, outputs = fitted(task, view, np.arange(200))
    always = task.constant_outputs(labels, 200)
    assert outputs.shape == always.shape
    assert outputs.dtype == always.dtype == np.float64
    np.testing.assert_array_equal(always, np.broadcast_to(always[:1], always.shape))


def test_worth_leads(task: Task, view: es.View) -> None:
    labels, outputs = fitted(task, view, np.arange(200))
    bootstrap = Bootstrap.of(200)
    scores, plain = (f(labels.truth, outputs, bootstrap) for f in (task.scores, task.baseline_scores))
    worth = task.worth(labels.truth, outputs)
    assert worth.shape == (200,)
    assert abs(worth.mean()) == pytest.approx(scores[task.lead].value)
    assert worth.mean() > task.worth(labels.truth, task.constant_outputs(labels, 200)).mean()
    assert task.main_score(labels.truth, outputs) == pytest.approx(next(iter(scores.values())).value)
    assert {task.lead, *task.headlines, *task.compared} <= plain.keys() <= scores.keys()
    for name, score in plain.items():
        assert score == scores[name]
        assert score.low <= score.value <= score.high


def test_predictions_are_written_in_columns_and_in_rows(task: Task, view: es.View) -> None:
    labels = task.labels(view)
    head = task.plain_linear().fit(view.inputs, labels.values, present=view.present)
    found = task.predicted(head, head.outputs(view.inputs, present=view.present))
    assert isinstance(found, Predicted)
    assert found.probabilities.shape == (len(view), len(found.classes))
    columns, rows = task.columns(found), task.rows(found)
    assert "id" not in columns
    assert {len(values) for values in columns.values()} == {len(rows)} == {len(view)}
    assert [row["prediction"] for row in rows] == said_in(columns)
    json.dumps(rows, allow_nan=False)
    nothing = task.predicted(head, np.empty((0, *head.output_shape)))
    assert task.rows(nothing) == []
    assert list(task.columns(nothing)) == list(columns)


@pytest.mark.parametrize("cv", [None, 3])
def test_train_evaluate_predict_report(
    task: Task, trained_on: es.Store, other: es.Store, tmp_path: Path, cv: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    from embedstore_cli import render

    name = f"{task.name}-{cv}"
    result = es.train(trained_on, TARGETS[task.name], task=task.name, name=name, cv=cv, plots=tmp_path / "plots")
    assert (result.task, json.loads(json.dumps(result.to_dict()))["task"]) == (task.name, task.name)
    assert list(result.baselines) == [task.constant, "knn", "a", "b"]
    assert result.gain[0] in result.baselines
    worst = result.baselines[task.constant][task.lead].value
    assert abs(result.metrics[task.lead].value - worst) > 0.2 * abs(worst)
    page = Path(result.report).read_text(encoding="utf-8")
    assert task.title(task.constant) in page
    assert "linear on a" in page
    assert ("Levels hit" in page) is (task.name == "levels")
    folder = trained_on.path / "heads" / name
    assert task_of(load_head(folder)).name == task.name

    found = es.evaluate(other, folder, report=tmp_path / "e.html")
    assert found.metrics.keys() == result.metrics.keys()
    assert list(found.baselines) == ["only a", "only b", task.constant, "knn"]
    assert "task" not in found.to_dict()
    if cv is None:
        again = es.evaluate(trained_on, name)
        assert again.metrics[task.lead].value == pytest.approx(result.metrics[task.lead].value, rel=1e-4)

    predicted = es.predict(other, folder, explained=True)
    assert len(predicted.to_rows()) == 80
    with predicted.save(tmp_path / "p.csv").open(encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    first = predicted.labels[:5].tolist()
    written = [
        json.dumps(label)
        if isinstance(label, list)
        else {name: str(value) for name, value in label.items()}
        if isinstance(label, dict)
        else str(label)
        for label in first
    ]
    assert said_in({name: [row[name] for row in table[:5]] for name in table[0]}) == written
    of = ["label:", "price:"] if task.name == "several" else [""]
    assert {*(f"contribution:{target}{name}" for target in of for name in HALVES), "nearest"} < table[0].keys()
    assert es.verify(trained_on).clean

    render.print_training(result)
    render.print_evaluation(found)
    shown = capsys.readouterr().out
    assert all(f"{title} [95 %]" in shown for title in task.headlines.values())


def test_a_target_has_one_task(trained_on: es.Store) -> None:
    """A task that is installed from outside is asked for by name."""
    for target, expected in {
        "label": "classification",
        "price": "regression",
        "tags": "multilabel",
        "label,price": "several",
        "stars": "classification",
    }.items():
        assert task_for(trained_on.view(inputs=["a"], target=target)).name == expected


@pytest.mark.parametrize("inputs", [["a"], ["a", "b"]])
def test_a_head_whose_training_items_are_gone_has_no_baselines_of_them(
    task: Task, other: es.Store, tmp_path: Path, inputs: list[str]
) -> None:
    store = make_store(tmp_path / "gone.store", 120, 3)
    es.train(store, TARGETS[task.name], task=task.name, name="x", inputs=inputs, report=False)
    store.remove(fitted_ids(load_head(store.path / "heads" / "x")).tolist())
    found = es.evaluate(other, store.path / "heads" / "x", report=tmp_path / "e.html")
    assert list(found.baselines) == (["only a", "only b"] if len(inputs) > 1 else [])
    assert found.gain[0] in (found.baselines or {"nothing"})
    assert found.items["test"] == 80


def test_a_head_knows_its_task(trained_on: es.Store) -> None:
    es.train(trained_on, "label", name="known", report=False)
    record = load_head(trained_on.path / "heads" / "known")
    older = replace(record, report={name: value for name, value in record.report.items() if name != "task"})
    assert task_of(older).name == "classification"
    with pytest.raises(HeadError, match="'known' was saved for regression, and is a head for classification"):
        task_of(replace(record, report={**record.report, "task": "regression"}))
    with pytest.raises(HeadError, match="the task '5', which is not installed"):
        task_of(replace(record, report={**record.report, "task": 5}))


def test_a_head_whose_task_is_gone_says_so(trained_on: es.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    es.train(trained_on, "stars", task="levels", name="orphan", report=False)
    monkeypatch.delitem(TASKS._entry_points, "levels")
    for call in (es.predict, es.evaluate):
        with pytest.raises(HeadError, match=r"'orphan' was trained for the task 'levels', which is not installed"):
            call(trained_on, "orphan")
    with pytest.raises(UsageError, match="task should be classification or regression"):
        es.train(trained_on, "stars", task="levels")
