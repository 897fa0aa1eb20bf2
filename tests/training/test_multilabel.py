"""Several labels an item, from the column to the page: what is split, what is refused, what is scored."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers import Telling, run
from sklearn.metrics import average_precision_score

import embedstore as es
from embedstore.errors import HeadError, UsageError
from embedstore.evaluation.bootstrap import Bootstrap
from embedstore.heads import Labeller
from embedstore.heads.io import load_head
from embedstore.sources import MemorySource
from embedstore.training.tasks.multilabel import Multilabel

NAMES = ["blue", "red", "round"]
HALVES = {"a": slice(0, 4), "b": slice(4, 8)}


class Half(Telling):
    def encode(self, batch):  # type: ignore[no-untyped-def]
        return super().encode(batch)[:, HALVES[self.spec.name]]


def make_store(path: Path, n: int = 240, seed: int = 0, **columns: Any) -> es.Store:
    rng = np.random.default_rng(seed)
    y = rng.random((n, 3)) < [0.5, 0.3, 0.2]
    x = np.concatenate([y[:, [0]] * 2 - 1, rng.standard_normal((n, 4)), y[:, 1:] * 2 - 1, rng.standard_normal((n, 1))], axis=1)
    x += 0.5 * rng.standard_normal(x.shape)
    sets = [[NAMES[k] for k in np.flatnonzero(row)] for row in y]
    data = {
        "id": [f"i{i}" for i in range(n)],
        "text": [" ".join(f"{v:.3f}" for v in row) for row in x],
        "tags": [None if i % 40 == 7 else labels for i, labels in enumerate(sets)],
        "joined": [" ; ".join(labels) + ";" for labels in sets],
        "commas": [", ".join(labels) if len(labels) > 1 else "none, " for labels in sets],
        "kind": [labels[0] if labels else "none" for labels in sets],
        **columns,
    }
    es.embed(MemorySource(data), path, text={name: Half(4, "text", name) for name in HALVES})
    return es.Store.open(path)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> es.Store:
    return make_store(tmp_path_factory.mktemp("stores") / "a.store")


def test_lists_are_several_labels_and_a_missing_one_is_no_empty_one(store: es.Store) -> None:
    view = store.view(inputs=["a"], target="tags")
    labels = Multilabel().labels(view)
    assert (view.dropped, len(labels), labels.classes.tolist()) == (6, 234, NAMES)
    empty = ~labels.truth.any(axis=1)
    assert 20 < empty.sum() < 120
    assert [labels.values[i] for i in np.flatnonzero(empty)[:2]] == [[], []]


def test_text_is_split_where_it_is_asked_for(store: es.Store) -> None:
    lists = es.train(store, "tags", name="lists", report=False)
    texts = es.train(store, "joined", separator=";", name="texts", report=False)
    assert (lists.task, lists.separator, texts.task, texts.separator) == ("multilabel", None, "multilabel", ";")
    assert lists.classes == texts.classes == 3
    assert load_head(store.path / "heads" / "texts").head.classes_.tolist() == NAMES
    again = es.evaluate(store, "texts")
    assert again.metrics["macro_ap"].value == pytest.approx(texts.metrics["macro_ap"].value, rel=1e-4)


def test_what_looks_joined_is_asked_about(store: es.Store) -> None:
    with pytest.raises(
        UsageError, match=r"240 of 240 values of target 'commas' hold ','.*--separator ','.*--task classification"
    ):
        es.train(store, "commas", report=False)
    assert es.train(store, "commas", task="classification", name="asked", report=False).task == "classification"
    with pytest.raises(UsageError, match=r"target 'joined' hold ';'"):
        es.train(store, "joined", report=False)


@pytest.mark.parametrize(
    ("target", "options", "words"),
    [
        ("tags", {"separator": ";"}, "separator splits text; target 'tags' holds list values. Leave --separator out"),
        ("kind", {"separator": " "}, "separator must be text that is not blank"),
        ("kind", {"separator": ";", "task": "classification"}, "for the task multilabel, not classification"),
        ("kind", {"task": "multilabel"}, "several labels need a list, or a separator: --separator ';'"),
        ("tags", {"task": "classification"}, "'tags' holds list values"),
        ("tags", {"head": "ridge"}, "For several labels there are: linear, knn"),
    ],
)
def test_what_does_not_fit_is_refused(store: es.Store, target: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises((UsageError, HeadError), match=words):
        es.train(store, target, report=False, **options)


def test_odd_lists_name_the_item(tmp_path: Path) -> None:
    odd = make_store(tmp_path / "s", 30, tags=[[None] if i == 3 else ["x"] for i in range(30)], numbers=[[0.5]] * 30)
    with pytest.raises(HeadError, match="'tags' of item 'i3' holds None; labels are text or whole numbers"):
        es.train(odd, "tags", cv=3, report=False)
    with pytest.raises(HeadError, match=r"'numbers' of item 'i0' holds 0\.5"):
        es.train(odd, "numbers", cv=3, report=False)
    with pytest.raises(HeadError, match=r"is \[\] for all 30 items; there is nothing to learn"):
        es.train(
            make_store(
                tmp_path / "e",
                30,
                tags=[[]] * 29
                + [
                    None,
                ][:0]
                + [[]],
            ),
            "tags",
            cv=3,
            report=False,
        )


def test_scores_are_of_items_that_the_head_did_not_see(store: es.Store) -> None:
    result = es.train(store, "tags", name="scored", cv=3, report=False)
    assert list(result.metrics) == ["macro_ap", "micro_ap", "micro_f1", "macro_f1", "item_f1", "exact_match"]
    assert list(result.baselines) == ["frequent", "knn", "a", "b"]
    frequent = result.baselines["frequent"]
    assert result.metrics["macro_ap"].value > 0.85 > 0.5 > frequent["macro_ap"].value
    assert result.gain[1].low > -0.05
    noise = [[NAMES[k] for k in np.flatnonzero(np.random.default_rng(i).random(3) < 0.3)] for i in range(240)]
    other = make_store(store.path.parent / "noise.store", tags=noise)
    found = es.train(other, "tags", cv=3, report=False)
    assert found.metrics["macro_ap"].value < 0.45


def test_test_items_have_no_say_in_thresholds(tmp_path: Path) -> None:
    """Other labels of the test items: the same head."""
    rng = np.random.default_rng(3)
    part = ["test" if i % 4 == 0 else "val" if i % 4 == 1 else "train" for i in range(200)]
    sets = [[name for name in NAMES if rng.random() < 0.4] for _ in part]
    flipped = [[n for n in NAMES if n not in s] if p == "test" else s for s, p in zip(sets, part, strict=True)]
    found: list[Labeller] = []
    for name, tags in (("s", sets), ("f", flipped)):
        made = make_store(tmp_path / name, 200, tags=tags, split=part)
        es.train(made, "tags", report=False)
        head = load_head(made.path / "heads" / "tags").head
        assert isinstance(head, Labeller)
        found.append(head)
    assert found[0].thresholds_.tolist() == found[1].thresholds_.tolist()


def test_a_label_of_test_items_alone(tmp_path: Path) -> None:
    part = ["test" if i % 4 == 0 else "val" if i % 4 == 1 else "train" for i in range(200)]
    tags = [["late" if p == "test" and i % 8 == 0 else "x", *(["y"] if i % 3 else [])] for i, p in enumerate(part)]
    result = es.train(make_store(tmp_path / "s", 200, tags=tags, split=part), "tags", report=False)
    assert any(
        "1 label has no training item and can never be predicted (25 items to be judged): 'late'" in n for n in result.notes
    )
    assert result.classes == 3


def test_labels_named_twice_and_items_without_labels_are_noted(tmp_path: Path) -> None:
    tags = [["x", "x"] if i < 4 else [] if i < 14 else ["x"] if i % 2 else ["y"] for i in range(120)]
    notes = es.train(make_store(tmp_path / "s", 120, tags=tags), "tags", report=False).notes
    assert "4 items name a label more than once; it counts once in each" in notes
    assert "10 of 120 items have no label" in notes


def test_rare_labels_are_left_out_where_that_is_asked(tmp_path: Path) -> None:
    tags = [["x"] if i % 2 else ["x", "y"] if i % 4 else [f"once {i}"] for i in range(120)]
    made = make_store(tmp_path / "s", 120, tags=tags)
    result = es.train(made, "tags", least_items=30, report=False)
    assert (result.classes, result.least_items) == (2, 30)
    assert "30 of 32 labels have fewer than 30 items and were left out" in result.notes
    assert "30 of 120 items have no label" in result.notes
    found = es.evaluate(made, "tags")
    assert not any("does not know" in note for note in found.notes)
    assert found.metrics["macro_ap"].value == pytest.approx(result.metrics["macro_ap"].value, rel=1e-4)
    with pytest.raises(HeadError, match="No label of target 'tags' has 1,000 items; the most frequent one has 90"):
        es.train(made, "tags", least_items=1000, report=False)
    with pytest.raises(
        UsageError, match="least_items leaves out labels, which are for the task multilabel, not classification"
    ):
        es.train(made, "kind", least_items=2, report=False)


def test_another_store_of_other_types(store: es.Store, tmp_path: Path) -> None:
    """A head of text labels on a store of lists; whole numbers on text; labels that it does not know."""
    es.train(store, "joined", separator=";", name="joined", report=False)
    home = store.path / "heads" / "joined"
    other = make_store(tmp_path / "o", 100, 1)
    as_texts = es.evaluate(other, home)
    lists = make_store(tmp_path / "l", 100, 1, joined=other.view(inputs=["a"], target="joined").target.tolist())
    assert es.evaluate(lists, home).metrics == as_texts.metrics
    real = make_store(tmp_path / "r", 100, 1, joined=[["blue", "new"] if i % 2 else [] for i in range(100)])
    assert es.evaluate(real, home).notes[0] == "50 items have labels that the head does not know: new"
    whole = make_store(tmp_path / "w", 120, tags=[[i % 3, 7] for i in range(120)])
    es.train(whole, "tags", report=False)
    assert load_head(whole.path / "heads" / "tags").head.classes_.tolist() == [0, 1, 2, 7]
    text = make_store(tmp_path / "t", 40, tags=[["2", "7"]] * 40)
    assert es.evaluate(text, whole.path / "heads" / "tags").items["test"] == 40
    wrong = make_store(tmp_path / "x", 40, tags=[["2"], ["many"]] * 20)
    with pytest.raises(HeadError, match="'tags' of item 'i1' holds 'many', no integer, which the labels of head 'tags' are"):
        es.evaluate(wrong, whole.path / "heads" / "tags")


def test_the_baseline_ranks_by_prevalence() -> None:
    task, rng = Multilabel(), np.random.default_rng(0)
    from embedstore.training.tasks.base import Labels

    truth = (rng.random((300, 3)) < [0.7, 0.4, 0.1]).astype(np.uint8)
    labels = Labels(truth, truth, np.array(NAMES, object))
    always = task.constant_outputs(labels, 300)
    found = task.scores(truth, always, Bootstrap.of(300))
    assert found["macro_ap"].value == pytest.approx(truth.mean(axis=0).mean())
    assert found["micro_ap"].value == pytest.approx(average_precision_score(truth, always[..., 0], average="micro"))
    assert (always[0, :, 1] > 0).tolist() == [True, True, False]


def test_report_and_predictions(store: es.Store, tmp_path: Path) -> None:
    result = es.train(store, "tags", head="gbdt", name="page", seeds=1)
    page = Path(result.report).read_text("utf-8")
    for words in ("mAP", "Labels that occur together", "blue + red", "threshold", "most frequent labels"):
        assert words in page
    found = es.predict(store, "page", ids=["i0", "i1"], explained=True)
    rows = json.loads(json.dumps(found.to_dict()))["predictions"]
    assert all(set(row["probabilities"]) == set(NAMES) and isinstance(row["prediction"], list) for row in rows)
    assert rows[0]["contributions"].keys() == {"a", "b"}
    table = pq.read_table(found.save(tmp_path / "p.parquet"))
    assert table.column("prediction").to_pylist() == [row["prediction"] for row in rows]
    assert {f"p:{name}" for name in NAMES} < set(table.column_names)
    lines = found.save(tmp_path / "p.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["prediction"] for line in lines] == [row["prediction"] for row in rows]


@pytest.mark.parametrize("head", ["auto", "weighted"])
def test_command_line(store: es.Store, tmp_path: Path, head: str) -> None:
    made = run("train", store.path, "joined", "--separator", ";", "--head", head, "--name", head, "--seeds", 1)
    assert "mAP [95 %]" in made.stdout
    assert "most frequent labels" in made.stdout
    shown = run("evaluate", store.path, head, "--report", tmp_path / "e.html").stdout
    assert "macro_ap" in shown
    assert (tmp_path / "e.html").exists()
    document = json.loads(run("predict", store.path, head, "--id", "i0", "--json").stdout)["predictions"]
    assert isinstance(document[0]["prediction"], list)
    run("predict", store.path, head, "--out", tmp_path / "p.csv")
    rows = list(csv.DictReader((tmp_path / "p.csv").open(encoding="utf-8")))
    assert len(rows) == 240
    assert "probability" not in rows[0]
    refused = run("train", store.path, "joined", code=2)
    assert "--separator ';'" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
