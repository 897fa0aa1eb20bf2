"""Training, evaluating and predicting on a store: groups, copies, metadata, the ladder, reports."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from embedstore_cli.render import print_training
from helpers import Telling, telling_store, write_csv, write_image

import embedstore as es
from embedstore._core.metadata_features import ColumnEncoder
from embedstore._core.splits import grouped_folds
from embedstore.errors import FingerprintError, HeadError, UsageError
from embedstore.evaluation.bootstrap import Bootstrap
from embedstore.evaluation.contributions import explain, missing_curves, permutation_drops
from embedstore.evaluation.copies import EVERY, find_copies
from embedstore.sources import MemorySource


def two_space_store(path: Path, n: int = 240, names: tuple[str, str] = ("a", "b"), **columns: Any) -> es.Store:
    """Spaces that each tell half of four labels, as texts 'x y z…' that become the vectors."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, n)
    a, b = (np.eye(2)[part].repeat(3, 1) + rng.normal(0, 0.6, (n, 6)) for part in (y % 2, y // 2))
    halves = dict(zip(names, (slice(0, 6), slice(6, 12)), strict=True))
    texts = [" ".join(f"{v:.4f}" for v in row) for row in np.concatenate([a, b], axis=1)]

    class Half(Telling):
        def encode(self, batch):  # type: ignore[no-untyped-def]
            return super().encode(batch)[:, halves[self.spec.name]]

    source = MemorySource({"id": [f"i{i}" for i in range(n)], "text": texts, "label": ["wxyz"[k] for k in y], **columns})
    es.embed(source, path, text={name: Half(6, "text", name) for name in halves})
    return es.Store.open(path)


class TestTrain:
    def test_baselines_gain_and_report(self, tmp_path: Path) -> None:
        store = two_space_store(tmp_path / "s")
        result = es.train(store, "label", plots=tmp_path / "plots")
        assert list(result.baselines) == ["majority", "knn", "a", "b"]
        assert result.metrics["accuracy"].value > max(b["accuracy"].value for b in result.baselines.values()) - 0.1
        assert {"auroc", "auprc", "nll", "brier", "ece", "balanced_accuracy"} <= result.metrics.keys()
        assert result.gain[0] in result.baselines
        page = Path(result.report).read_text(encoding="utf-8")
        assert "<svg" in page
        assert "a + b" in page
        assert "http://" not in page.replace("http://www.w3.org", "")
        assert {path.suffix for path in (tmp_path / "plots").iterdir()} == {".png"}
        assert es.verify(store).clean
        es.train(store, "label", replace=True, report=False)
        assert not Path(result.report).exists()
        json.dumps(result.to_dict())

    @pytest.mark.parametrize("cv", [None, 2])
    def test_a_space_may_be_called_like_what_is_judged(
        self, cv: int | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Spaces called head and majority change no score of the head and its baselines, and are told apart from them."""
        plain, named = ("a", "b"), ("head", "majority")
        stores = [two_space_store(tmp_path / names[0], n=80, names=names) for names in (plain, named)]
        usual, found = (es.train(store, "label", cv=cv) for store in stores)
        assert found.metrics == usual.metrics
        assert found.gain[1] == usual.gain[1]
        as_usual = {
            **usual.baselines,
            **{f"linear on {new}": usual.baselines[old] for old, new in zip(plain, named, strict=True)},
        }
        assert found.baselines == {name: scores for name, scores in as_usual.items() if name not in plain}
        kept = [es.out_of_fold(store, "label") for store in stores]
        assert np.array_equal(kept[0].probabilities, kept[1].probabilities)
        assert list(kept[1].alone) == list(named)
        assert all((kept[0].alone[a] == kept[1].alone[b]).all() for a, b in zip(plain, named, strict=True))
        page = Path(found.report).read_text(encoding="utf-8")
        assert "linear on head" in page
        assert "majority class" in page
        print_training(found)
        shown = capsys.readouterr().out
        assert shown.count("linear (majority)") == shown.count("majority class") == 1

    def test_a_head_with_a_seed_is_fitted_five_times(self, tmp_path: Path) -> None:
        store = two_space_store(tmp_path / "s", n=120)
        result = es.train(store, "label", head="gbdt", report=False)
        assert len(result.seeds) == 5
        assert result.seeds[0] == pytest.approx(result.metrics["accuracy"].value)
        assert es.train(store, "label", head="ridge", replace=True, report=False).seeds == []

    def test_groups_stay_together(self, tmp_path: Path) -> None:
        """Items of a group are the same item: apart they leak, together they do not."""
        rng = np.random.default_rng(0)
        vectors = rng.standard_normal((60, 6)).repeat(4, 0)
        texts = [" ".join(f"{v:.4f}" for v in row) for row in vectors + rng.normal(0, 1e-3, vectors.shape)]
        label = rng.choice(["l", "r"], 60).repeat(4)
        owner = [f"owner {i}" for i in np.arange(60).repeat(4)]
        columns = {"id": [str(i) for i in range(240)], "text": texts, "label": label.tolist(), "owner": owner}
        es.embed(MemorySource(columns), tmp_path / "s", text={"text": Telling(6, "text", "telling")})
        apart = es.train(tmp_path / "s", "label", head="knn", cv=4, report=False)
        together = es.train(tmp_path / "s", "label", head="knn", cv=4, group="owner", replace=True, report=False)
        assert apart.metrics["accuracy"].value > 0.95
        assert together.metrics["accuracy"].value < 0.75
        assert apart.copies["near"][EVERY] == 240
        assert together.copies["near"][EVERY] == 0
        assert "owner kept together" in together.evaluation
        view = es.Store.open(tmp_path / "s").view(inputs=["text"], target="label", group="owner")
        assert all(len(set(view.split[view.groups == g])) == 1 for g in set(view.groups.tolist()))  # type: ignore[union-attr]
        holdout = es.train(tmp_path / "s", "label", group="owner", replace=True, report=False)
        assert "split by hashed owner" in holdout.evaluation

    def test_one_group_to_judge_on_gives_no_interval(self, tmp_path: Path) -> None:
        parts = [("train", "val", "test", "train")[i % 4] for i in range(120)]
        store = two_space_store(tmp_path / "s", n=120, split=parts, farm=[f"farm {part}" for part in parts])
        result = es.train(store, "label", group="farm")
        assert np.isfinite(result.metrics["accuracy"].value)
        assert np.isnan([result.gain[1].low, result.metrics["accuracy"].high]).all()
        note = "all items that were judged have one value of 'farm': there are no intervals, and no gain is certain"
        assert note in result.notes
        assert note in es.evaluate(store, "label", group="farm").notes
        assert note in es.compare(store, "label", group="farm", timed=0).notes
        assert note not in es.evaluate(store, "label").notes

    @pytest.mark.parametrize("head", ["linear", "gbdt"])
    def test_one_group_to_fit_on_is_parted_by_items(self, head: str, tmp_path: Path) -> None:
        """Of two groups each judges the other; what a head chooses, it chooses on items of the group that it is fitted on."""
        store = two_space_store(tmp_path / "s", n=120, farm=[f"farm {i % 2}" for i in range(120)])
        result = es.train(store, "label", head=head, group="farm", cv=2, seeds=1, report=False)
        assert result.metrics["accuracy"].value > 0.6
        assert (result.items["train"], result.items["val"]) == (60, 60)  # the final fit has both groups
        assert result.notes[0].startswith("one value of 'farm' alone is left to fit on")

    def test_a_split_with_one_group_in_training(self, tmp_path: Path) -> None:
        parts = [("train", "test")[i % 2] for i in range(120)]
        store = two_space_store(tmp_path / "s", n=120, split=parts, farm=parts)
        result = es.train(store, "label", group="farm", report=False)
        assert result.metrics["accuracy"].value > 0.6
        assert result.items["train"] > 3 * result.items["val"] > 0

    def test_metadata_is_one_more_input(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(1)
        y = rng.integers(0, 2, 200)
        columns = {
            "id": [str(i) for i in range(200)],
            "text": [" ".join(f"{v:.3f}" for v in row) for row in rng.standard_normal((200, 4))],
            "label": ["no" if k else "yes" for k in y],
            "price": [None if i % 10 == 0 else float(k) + rng.normal(0, 0.2) for i, k in enumerate(y)],
            "colour": [("red" if k else "blue") if i % 3 else "green" for i, k in enumerate(y)],
        }
        es.embed(MemorySource(columns), tmp_path / "s", text={"text": Telling(4, "text", "telling")})
        for head in ("gbdt", "linear"):
            result = es.train(tmp_path / "s", "label", head=head, columns=["price", "colour"], seeds=1, name=head, report=False)
            assert result.inputs == ["text", "metadata"]
            assert result.metrics["accuracy"].value > 0.9
            predictions = es.predict(tmp_path / "s", head, explained=True)
            assert (predictions.labels == np.array(columns["label"])).mean() > 0.9
            weight = np.mean([abs(e.contributions["metadata"]) for e in predictions.explanations])
            assert weight > 3 * np.mean([abs(e.contributions["text"]) for e in predictions.explanations])
        with pytest.raises(UsageError, match="'label' is the target"):
            es.train(tmp_path / "s", "label", columns=["label"])
        with pytest.raises(UsageError, match=r"no metadata column 'size'\. Columns: label, price, colour"):
            es.train(tmp_path / "s", "label", columns=["size"])

    def test_the_ladder(self, tmp_path: Path) -> None:
        """Neither input alone is enough: the climb leaves the first rung, and every rung says why."""
        store = two_space_store(tmp_path / "s", n=400)
        result = es.train(store, "label", head="auto")
        names = [step.name for step in result.ladder]
        assert names[:4] == ["a alone", "b alone", "linear", "late"]
        assert names[-1] == "ensemble"
        kept = [step for step in result.ladder if step.kept]
        assert len(kept) >= 2
        assert kept[-1].name == result.learned["chosen"]
        assert all(step.gain is not None and step.gain.low > 0 for step in kept[1:])
        assert "given up after" in Path(result.report).read_text(encoding="utf-8") or all(not s.note for s in result.ladder)
        again = es.predict(store, "label")
        assert len(again.ids) == 400


class TestEvaluate:
    def test_on_the_test_split_it_repeats_training(self, tmp_path: Path) -> None:
        store = two_space_store(tmp_path / "s")
        trained = es.train(store, "label", report=False)
        found = es.evaluate(store, "label", report=tmp_path / "e.html")
        assert found.metrics["accuracy"] == trained.metrics["accuracy"]
        assert found.baselines["knn"]["accuracy"] == trained.baselines["knn"]["accuracy"]
        assert {"majority", "knn", "only a", "only b"} == found.baselines.keys()
        assert "<svg" in (tmp_path / "e.html").read_text(encoding="utf-8")
        flattered = es.evaluate(store, "label", seen=True)
        assert flattered.metrics["accuracy"].value >= found.metrics["accuracy"].value
        assert "these scores flatter" in flattered.notes[0]

    def test_a_head_fitted_on_everything_needs_new_items(self, tmp_path: Path) -> None:
        store = two_space_store(tmp_path / "s")
        es.train(store, "label", cv=3, report=False)
        with pytest.raises(HeadError, match="was fitted on all 240 labelled items"):
            es.evaluate(store, "label")
        other = two_space_store(tmp_path / "o", n=100)
        found = es.evaluate(other, tmp_path / "s" / "heads" / "label")
        assert found.items["test"] == 100
        assert found.copies["exact"] == {"a": 0, "b": 0} or found.notes

    def test_an_update_does_not_make_an_item_unseen(self, tmp_path: Path) -> None:
        """It gets another row, but keeps its id."""
        store = two_space_store(tmp_path / "s")
        before = es.train(store, "label", report=False)
        again = two_space_store(tmp_path / "s", price=list(range(240)))
        assert set(store.items.rows.tolist()).isdisjoint(again.items.rows.tolist())
        found = es.evaluate(again, "label")
        assert found.items["test"] == before.items["test"]
        assert {"majority", "knn"} <= found.baselines.keys()
        explained = es.predict(again, "label", ids=["i0"], explained=True).explanations[0]
        split = {row["id"]: row["split"] for row in pq.read_table(next(tmp_path.glob("s/heads/label/split-*"))).to_pylist()}
        assert all(split[i] != "test" for i, _ in explained.nearest)

    def test_nothing_is_left_of_what_a_head_was_fitted_on(self, tmp_path: Path) -> None:
        """The scores are those of before; what cannot be known is a note, never an error about the wrong store."""
        home, other = two_space_store(tmp_path / "s"), two_space_store(tmp_path / "o", n=100)
        es.train(home, "label", report=False)
        es.train(home, "label", name="one", inputs=["a"], report=False)
        heads = home.path / "heads"
        before = es.evaluate(other, heads / "label")
        ids = home.items.table(["id"]).column("id").to_pylist()
        two_space_store(tmp_path / "s", label=[None] * len(ids))  # every item, and no label
        for home_now in (es.Store.open(home.path), es.Store.open(home.path).remove(ids)):
            found = es.evaluate(other, heads / "label", report=tmp_path / "e.html")
            assert found.metrics == before.metrics
            assert found.baselines.keys() == {"only a", "only b"}
            assert f"{home.path} holds none of the items that the head was fitted on" in found.notes[0]
            assert es.evaluate(other, heads / "one").baselines == {}
            explained = es.predict(other, heads / "label", ids=["i0"], explained=True).explanations[0]
            assert (explained.contributions.keys(), explained.nearest) == ({"a", "b"}, [])
            with pytest.raises(UsageError, match=rf"No item of {home.path} is left: {len(home_now)} have a vector in a, b"):
                es.evaluate(home_now, "label")

    def test_a_head_that_does_not_fit_a_store_is_named(self, tmp_path: Path) -> None:
        home, other = two_space_store(tmp_path / "s"), telling_store(tmp_path / "o")
        es.train(home, "label", report=False)
        for ask in (es.evaluate, es.predict):
            with pytest.raises(UsageError, match=rf"Head 'label' takes space 'a', which {other.path} has not\. Spaces: text\."):
                ask(other, home.path / "heads" / "label")
            with pytest.raises(UsageError, match=rf"heads/labels does not exist\. Similar names in {home.path}/heads: label\."):
                ask(other, home.path / "heads" / "labels")

    def test_labels_of_another_type(self, tmp_path: Path) -> None:
        numbers = [i % 3 for i in range(200)]
        es.train(telling_store(tmp_path / "s", stars=numbers), "stars", report=False)
        head = tmp_path / "s" / "heads" / "stars"
        as_floats = es.evaluate(telling_store(tmp_path / "f", stars=[float(v) for v in numbers]), head)
        as_ints = es.evaluate(telling_store(tmp_path / "i", stars=numbers), head)
        assert as_floats.metrics["nll"].value == pytest.approx(as_ints.metrics["nll"].value)
        as_texts = es.evaluate(telling_store(tmp_path / "t", stars=[str(v) for v in numbers]), head)
        assert as_texts.metrics["nll"].value == pytest.approx(as_ints.metrics["nll"].value)
        with pytest.raises(
            HeadError, match=r"'stars' of item 'i\d+' is 'many', no integer, which the classes of head 'stars' are"
        ):
            es.evaluate(telling_store(tmp_path / "w", stars=["many"] * 200), head)

    def test_unknown_classes_count_as_errors(self, tmp_path: Path) -> None:
        es.train(telling_store(tmp_path / "s"), "label", report=False)
        labels = ["new" if i < 20 else "even" for i in range(200)]
        other = telling_store(tmp_path / "o", label=labels)
        found = es.evaluate(other, tmp_path / "s" / "heads" / "label")
        assert any("of classes that the head does not know: even, new" in note for note in found.notes)

    def test_other_vectors_are_refused(self, tmp_path: Path) -> None:
        es.train(telling_store(tmp_path / "s"), "label", report=False)
        n = 20
        columns = {"id": [str(i) for i in range(n)], "text": ["1 2 3 4"] * n, "label": ["a", "b"] * (n // 2)}
        es.embed(MemorySource(columns), tmp_path / "o", text={"text": Telling(4, "text", "strange")})
        with pytest.raises(FingerprintError, match="was trained on telling"):
            es.evaluate(tmp_path / "o", tmp_path / "s" / "heads" / "label")


class TestPredictions:
    def test_files(self, tmp_path: Path) -> None:
        rows: list[dict[str, object]] = []
        for i in range(60):
            write_image(tmp_path / "images" / f"{i}.png", seed=i)
            rows.append({"id": f"ü {i}", "image": f"images/{i}.png", "text": f"t{i}", "label": "ab"[i % 2]})
        es.embed(write_csv(tmp_path / "t.csv", rows), tmp_path / "s", image="hash:8", text="hash:8")
        es.train(tmp_path / "s", "label", cv=3, report=False)
        (tmp_path / "images" / "1.png").unlink()
        rows[1]["text"] = ""
        found = es.predict(tmp_path / "s", "label", write_csv(tmp_path / "new.csv", rows[:3]), explained=True)
        assert [i for i, _ in found.unusable] == ["ü 1"]
        by_csv = list(csv.DictReader(found.save(tmp_path / "p.csv").open(encoding="utf-8")))
        assert [row["id"] for row in by_csv] == ["ü 0", "ü 2", "ü 1"]
        assert float(by_csv[0]["p:a"]) + float(by_csv[0]["p:b"]) == pytest.approx(1)
        assert by_csv[2]["unusable"]
        assert by_csv[0]["nearest"].startswith("ü 0")
        table = pq.read_table(found.save(tmp_path / "p.parquet")).to_pylist()
        lines = [json.loads(line) for line in found.save(tmp_path / "p.jsonl").read_text(encoding="utf-8").splitlines()]
        assert table == lines
        with pytest.raises(UsageError, match="should end in one of"):
            found.save(tmp_path / "p.txt")
        with pytest.raises(UsageError, match="cannot be written"):
            found.save(tmp_path / "no" / "p.csv")

    def test_an_item_is_not_its_own_neighbour(self, tmp_path: Path) -> None:
        store = two_space_store(tmp_path / "s")
        es.train(store, "label", report=False)
        found = es.predict(store, "label", ids=["i5"], explained=True)
        near = [i for i, _ in found.explanations[0].nearest]
        assert len(near) == 3
        assert "i5" not in near


def test_shapley_values_add_up() -> None:
    rng = np.random.default_rng(0)
    inputs = {name: rng.standard_normal((30, 4)) for name in "abc"}
    present = {name: rng.random(30) < 0.8 for name in "abc"}

    def predict(x: Any, masks: Any) -> Any:
        total = sum(np.where(masks[n][:, None], x[n], 0) * k for k, n in enumerate("abc", 1))
        return total - np.log(np.exp(total).sum(axis=1, keepdims=True))

    whole = predict(inputs, present)
    chosen = whole.argmax(axis=1)
    values = explain(predict, inputs, present, chosen)
    rows = np.arange(30)
    np.testing.assert_allclose(sum(values.values()), whole[rows, chosen] - np.log(1 / 4), atol=1e-9)
    assert all((values[n][~present[n]] == 0).all() for n in "abc")


def test_what_tells_nothing_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 400)
    inputs = {"signal": np.eye(2)[truth], "noise": rng.standard_normal((400, 2))}
    present = {name: np.ones(400, bool) for name in inputs}

    def predict(x: Any, masks: Any) -> Any:
        return np.log(np.where(masks["signal"][:, None], np.where(x["signal"] > 0.5, 0.9, 0.1), 0.5))

    drops = permutation_drops(predict, inputs, present, truth, bootstrap=Bootstrap.of(400))
    assert drops["noise"].value == 0
    assert drops["signal"].value == pytest.approx(0.5, abs=0.1)
    curves = missing_curves(predict, inputs, present, truth)
    assert [rate for rate, _ in curves["without signal"]] == [0, 0.25, 0.5, 0.75, 1]
    accuracy = [a for _, a in curves["without signal"]]
    assert accuracy[0] == 1
    assert accuracy == sorted(accuracy, reverse=True)
    assert curves["without noise"][-1][1] == 1


def test_copies_across_a_split() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 16))
    x[30:35] = x[:5] + 0.01 * rng.standard_normal((5, 16))
    text = rng.standard_normal((40, 8))
    text[30:32] = text[:2]
    present = {"image": np.ones(40, bool), "text": np.arange(40) != 34}
    hashes = {"text": np.stack([np.arange(40), np.arange(40)], axis=1).astype(np.uint64)}
    hashes["text"][30:32] = hashes["text"][:2]
    found = find_copies({"image": x, "text": text}, present, hashes, train=np.arange(30), test=np.arange(30, 40))
    assert found.near["image"].nonzero()[0].tolist() == [0, 1, 2, 3, 4]
    assert found.exact["text"].nonzero()[0].tolist() == [0, 1]
    assert found.near[EVERY].nonzero()[0].tolist() == [0, 1, 4]  # item 34 has no text: its image is enough


def test_grouped_folds() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 40, 300).astype(str)
    labels = rng.choice(["a", "b"], 300)
    folds = grouped_folds(labels, groups, 5)
    assert all(len(set(folds[groups == g])) == 1 for g in set(groups))
    assert np.bincount(folds).min() > 30
    with pytest.raises(UsageError, match="number of groups"):
        grouped_folds(labels, groups, 41)
    assert np.bincount(grouped_folds(np.arange(20) % 5, np.arange(20), 5)).tolist() == [4] * 5


def test_columns_as_numbers() -> None:
    columns = {
        "price": [1.0, None, 3.0, float("nan")],
        "colour": ["red", "blue", "red", None],
        "new": [True, False, True, True],
    }
    encoder = ColumnEncoder.from_dict(json.loads(json.dumps(ColumnEncoder.fit(columns).to_dict())))
    x = encoder.transform(columns, 4)
    assert x.shape == (4, encoder.width)
    np.testing.assert_array_equal(x[:, :2], [[1, 0], [2, 1], [3, 0], [2, 1]])
    np.testing.assert_array_equal(x[:, 2:4], [[1, 0], [0, 1], [1, 0], [0, 0]])
    unseen = encoder.transform({"price": ["cheap"], "colour": ["green"]}, 1)
    assert unseen[0, :4].tolist() == [2, 1, 0, 0]
    with pytest.raises(UsageError, match="'tags' holds list values"):
        ColumnEncoder.fit({"tags": [[1], [2]]})
    with pytest.raises(UsageError, match="holds no value"):
        ColumnEncoder.fit({"empty": [None, ""]})


class TestHardLabels:
    """A sound model or a clear message, never a crash or a silent nonsense."""

    def store(self, path: Path, label: Any, vectors: Any) -> es.Store:
        texts = [" ".join(f"{v:.4f}" for v in row) for row in vectors]
        columns = {"id": [f"i{i}" for i in range(len(label))], "text": texts, "label": list(label)}
        es.embed(MemorySource(columns), path, text={"text": Telling(vectors.shape[1], "text", "telling")})
        return es.Store.open(path)

    def test_a_class_an_item(self, tmp_path: Path) -> None:
        vectors = np.random.default_rng(0).standard_normal((200, 4))
        with pytest.raises(
            HeadError, match="has 200 distinct values over 200 items; classification needs several items a class"
        ):
            es.train(self.store(tmp_path / "s", [f"c{i}" for i in range(200)], vectors), "label")

    def test_a_thousand_classes(self, tmp_path: Path) -> None:
        """Four items a class, near their class's centre: far above the chance of 0.1 %."""
        rng = np.random.default_rng(0)
        y = np.arange(4000) % 1000
        vectors = rng.standard_normal((1000, 48))[y] + 0.4 * rng.standard_normal((4000, 48))
        store = self.store(tmp_path / "s", [f"c{k}" for k in y], vectors)
        for head in ("linear", "knn"):
            result = es.train(store, "label", head=head, name=head, report=head == "linear", out_of_fold=2 * (head == "linear"))
            assert result.classes == 1000
            assert result.metrics["accuracy"].value > 0.6
            assert "1,000 classes have fewer than 5 items" in " ".join(result.notes)

    def test_classes_of_one_item(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(0)
        label = ["a", "b"] * 60 + [f"only {i}" for i in range(10)]
        vectors = np.concatenate(
            [np.eye(4)[np.arange(120) % 2] + 0.3 * rng.standard_normal((120, 4)), rng.standard_normal((10, 4))]
        )
        store = self.store(tmp_path / "s", label, vectors)
        for head in ("linear", "gbdt", "ensemble"):
            result = es.train(store, "label", head=head, name=head, cv=5, seeds=1, report=False)
            assert 0.8 < result.metrics["accuracy"].value < 0.95  # nobody can know the ten
            assert "10 classes have fewer than 5 items: 'only 0' (1)" in " ".join(result.notes)

    def test_a_hundred_to_one(self, tmp_path: Path) -> None:
        """Accuracy flatters the majority class; balanced accuracy and F1 show what was learned."""
        rng = np.random.default_rng(0)
        y = (np.arange(2020) % 101 == 0).astype(int)
        vectors = 2.5 * np.eye(4)[y] + 0.5 * rng.standard_normal((2020, 4))
        store = self.store(tmp_path / "s", np.array(["common", "rare"])[y], vectors)
        result = es.train(store, "label", cv=4, report=False)
        majority = result.baselines["majority"]
        assert majority["accuracy"].value == pytest.approx(100 / 101, abs=0.001)
        assert majority["balanced_accuracy"].value == 0.5
        assert result.metrics["balanced_accuracy"].value > 0.9
        assert result.metrics["macro_f1"].value > 0.9


@pytest.mark.parametrize("cv", [None, 2])
def test_a_knn_baseline_that_knows_some_of_the_items_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cv: int | None
) -> None:
    monkeypatch.setattr("embedstore.training.knn_share.KNN_PRODUCTS", 0)
    monkeypatch.setattr("embedstore.training.knn_share.LEAST_KNN", 50)
    store = TestRegression().store(tmp_path / "s", word=["x", "y"] * 150)
    for target in ("word", "price"):
        result = es.train(store, target, cv=cv, report=False)
        assert any(re.search(r"the plain kNN knows \d+ of the \d+ training items", note) for note in result.notes)
        assert "knn" in result.baselines
        if cv is None:
            found = es.evaluate(store, target)
            assert any("the plain kNN knows 50 of the" in note for note in found.notes)
            assert found.baselines["knn"].keys() == result.baselines["knn"].keys()


class TestRegression:
    def store(self, path: Path, n: int = 300, **columns: Any) -> es.Store:
        """A price that depends on both inputs."""
        rng = np.random.default_rng(0)
        x = rng.standard_normal((n, 12))
        price = 3 * x[:, 0] - 2 * x[:, 7] + 10 + 0.3 * rng.standard_normal(n)
        texts = [" ".join(f"{v:.4f}" for v in row) for row in x]
        halves = {"a": slice(0, 6), "b": slice(6, 12)}

        class Half(Telling):
            def encode(self, batch):  # type: ignore[no-untyped-def]
                return super().encode(batch)[:, halves[self.spec.name]]

        source = MemorySource({"id": [f"i{i}" for i in range(n)], "text": texts, "price": price.tolist(), **columns})
        es.embed(source, path, text={name: Half(6, "text", name) for name in halves})
        return es.Store.open(path)

    @pytest.mark.parametrize("head", ["linear", "knn", "gbdt"])
    def test_train_evaluate_predict(self, tmp_path: Path, head: str) -> None:
        store = self.store(tmp_path / "s", 600)
        result = es.train(store, "price", head=head, seeds=2)
        assert result.task == "regression"
        assert list(result.metrics) == ["r2", "mae", "rmse"]
        assert list(result.baselines) == ["mean", "knn", "a", "b"]
        assert result.metrics["r2"].value > {"linear": 0.95, "knn": 0.3, "gbdt": 0.75}[head]
        assert abs(result.baselines["mean"]["r2"].value) < 0.1
        assert len(result.seeds) == (2 if head == "gbdt" else 0)
        assert "<svg" in Path(result.report).read_text(encoding="utf-8")
        again = es.evaluate(store, "price", report=tmp_path / "e.html")
        assert again.metrics["mae"].value == pytest.approx(result.metrics["mae"].value, rel=1e-4)
        found = es.predict(store, "price", ids=["i3", "i4"], explained=True)
        assert found.labels.dtype == np.float64
        assert found.to_rows()[0].keys() == {"id", "prediction", "contributions", "nearest"}
        assert list(csv.DictReader(found.save(tmp_path / "p.csv").open()))[1]["id"] == "i4"
        crossed = es.train(store, "price", head=head, cv=3, seeds=1, report=False, name="crossed")
        assert crossed.metrics["r2"].value == pytest.approx(result.metrics["r2"].value, abs=0.25)
        assert es.verify(store).clean

    def test_equals_scikit_learn(self) -> None:
        from sklearn.linear_model import RidgeCV

        rng = np.random.default_rng(0)
        x = rng.standard_normal((200, 30)).astype(np.float32)
        y = x @ rng.standard_normal(30) + rng.standard_normal(200)
        scaled = (x - x.mean(axis=0)) / x.std(axis=0)
        lambdas = np.logspace(-3, 1, 9)
        theirs = RidgeCV(alphas=lambdas * 200).fit(scaled, y)
        ours = es.make_head("ridge", task="regression", lambdas=tuple(lambdas)).fit(x, y)
        assert ours.lambda_ == pytest.approx(theirs.alpha_ / 200)  # type: ignore[attr-defined]
        np.testing.assert_allclose(ours.predict(x), theirs.predict(scaled), rtol=1e-3, atol=1e-3)

    def test_what_cannot_be_done_is_said(self, tmp_path: Path) -> None:
        store = self.store(tmp_path / "s", word=["x", "y"] * 150, same=[1.5] * 300)
        with pytest.raises(UsageError, match=r"'attention' predicts classes.* linear, ridge, knn, gbdt"):
            es.train(store, "price", head="attention")
        with pytest.raises(HeadError, match="holds 'x'; regression needs numbers"):
            es.train(store, "word", task="regression")
        with pytest.raises(HeadError, match=r"is 1\.5 for all 300 items"):
            es.train(store, "same")
        with pytest.raises(UsageError, match="seed must be at least 0"):
            es.train(store, "price", seed=-1)
        with pytest.raises(UsageError, match="is not a torch device"):
            es.train(store, "price", device="gpu")
        with pytest.raises(UsageError, match="task should be classification or regression"):
            es.train(store, "price", task="ranking")
        with pytest.raises(HeadError, match="predicts numbers, not probabilities"):
            es.make_head("knn", task="regression").fit(np.eye(4), np.arange(4)).predict_proba(np.eye(4))

    def test_whole_numbers_with_few_values_are_classes(self, tmp_path: Path) -> None:
        store = self.store(tmp_path / "s", stars=[i % 3 for i in range(300)])
        assert es.train(store, "stars", report=False).task == "classification"
        assert es.train(store, "stars", task="regression", replace=True, report=False).task == "regression"
