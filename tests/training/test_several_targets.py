"""Several targets, from the columns to the page: what is named, what is missing, what is refused, what is scored."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers import Telling, run

import embedstore as es
from embedstore.errors import HeadError, UsageError
from embedstore.evaluation.bootstrap import Bootstrap
from embedstore.evaluation.metrics import classification_scores, paired_regression_scores, regression_scores
from embedstore.heads.io import load_head
from embedstore.sources import MemorySource
from embedstore.training.tasks.several_columns import SeveralTargets

HALVES = {"a": slice(0, 4), "b": slice(4, 8), "majority": slice(0, 4), "mean": slice(4, 8)}


class Half(Telling):
    def encode(self, batch):  # type: ignore[no-untyped-def]
        return super().encode(batch)[:, HALVES[self.spec.name]]


def make_store(path: Path, n: int = 240, seed: int = 0, names: Sequence[str] = ("a", "b"), **columns: Any) -> es.Store:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 8))
    price = 10 + 3 * x[:, 1] + x[:, 5] + 0.3 * rng.standard_normal(n)
    data = {
        "id": [f"i{i}" for i in range(n)],
        "text": [" ".join(f"{v:.3f}" for v in row) for row in x],
        "kind": [None if i % 10 == 3 else "high" if row[0] > 0.4 else "low" for i, row in enumerate(x)],
        "price": [None if i % 7 == 2 else float(p) for i, p in enumerate(price)],
        "size": ["s" if row[6] > 0 else "m" for row in x],
        "kind,size": ["x" if row[0] > row[6] else "y" for row in x],
        "tags": [["t"]] * n,
        "joined": ["p;q" if row[2] > 0 else "q;r" for row in x],
        "same": ["one"] * n,
        "house": [f"h{i % 30}" for i in range(n)],
        **columns,
    }
    es.embed(MemorySource(data), path, text={name: Half(4, "text", name) for name in names})
    return es.Store.open(path)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> es.Store:
    return make_store(tmp_path_factory.mktemp("stores") / "a.store")


def test_items_that_lack_a_target_count_for_the_others(store: es.Store) -> None:
    view = store.view(inputs=["a"], target="kind, price")
    assert (view.target_name, view.target_names, len(view), view.dropped) == ("kind,price", ("kind", "price"), 236, 4)
    labels = SeveralTargets().labels(view)
    missing = {name: int(np.isnan(labels.truth[name]).sum()) for name in ("kind", "price")}
    assert missing == {"kind": 20, "price": 30}
    assert labels.values["kind"][np.isnan(labels.truth["kind"])].tolist() == [None] * 20
    alone = view.of_target("price")
    assert (alone.target_name, alone.target_names, len(alone)) == ("price", (), 206)
    assert len(store.view(inputs=["a"], target=["kind", "price"])) == 236


def test_a_column_whose_name_has_a_comma_is_one_target(store: es.Store) -> None:
    found = es.train(store, "kind,size", name="comma", report=False)
    assert (found.task, found.target, found.targets) == ("classification", "kind,size", {})
    several = es.train(store, ["kind,size", "kind"], name="commas", report=False)
    assert list(several.targets) == ["kind,size", "kind"]
    assert es.evaluate(store, "commas").targets.keys() == several.targets.keys()


def test_linear_predicts_each_target_as_its_own_head_does(store: es.Store) -> None:
    together = es.train(store, "kind,price", report=False)
    assert (together.head, together.task, together.classes) == ("kind-price", "several", 0)
    assert "alone" not in together.baselines
    for kind in ("linear", "knn"):
        weighed = es.train(store, "kind,price", head=kind, weights=[2, 1], name="weighed", replace=True, report=False)
        assert f"weights change nothing: targets share no trunk in {kind} heads" in " ".join(weighed.notes)
    said = es.predict(store, "kind-price")
    for name in ("kind", "price"):
        alone = es.train(store, name, name=f"only-{name}", out_of_fold=0, report=False)
        theirs = es.predict(store, f"only-{name}")
        assert said.targets[name].labels.tolist() == pytest.approx(theirs.labels.tolist())
        assert said.targets[name].probabilities == pytest.approx(theirs.probabilities)
        for metric, score in alone.metrics.items():
            assert together.targets[name].metrics[metric].value == pytest.approx(score.value, rel=1e-6), metric
    assert together.metrics["price:mae"] == together.targets["price"].metrics["mae"]


def test_a_trunk_stands_beside_the_heads_of_each_target_alone(store: es.Store, capsys: pytest.CaptureFixture[str]) -> None:
    from embedstore_cli import render

    result = es.train(store, "kind,price", head="weighted", weights=[1, 0.5], seeds=1, name="trunk", out_of_fold=0)
    assert list(result.baselines) == ["constant", "alone", "knn", "a", "b"]
    assert load_head(store.path / "heads" / "trunk").head.get_params()["target_weights"] == [1, 0.5]
    kind, price = result.targets.values()
    assert (kind.task, kind.classes, price.task, price.classes) == ("classification", 2, "regression", 0)
    assert kind.items + price.items > result.items["test"]
    assert kind.change.keys() == {"accuracy", "macro_f1", "balanced_accuracy"}
    assert price.change.keys() == {"r2", "mae", "rmse"}
    for found, metric in ((kind, "accuracy"), (price, "mae")):
        change, theirs = found.change[metric], found.baselines["alone"][metric]
        assert change.value == pytest.approx(found.metrics[metric].value - theirs.value)
        assert change.low <= change.value <= change.high
    assert list(kind.baselines) == ["majority", "alone", "knn", "a", "b"]
    document = json.loads(json.dumps(result.to_dict()))
    assert document["weights"] == [1, 0.5]
    assert document["targets"]["price"]["change"]["mae"] == price.change["mae"].to_dict()
    page = Path(result.report).read_text(encoding="utf-8")
    assert all(words in page for words in ("Target: kind", "Target: price", "recall of high", "change over alone, paired"))
    render.print_training(result)
    assert "the target alone [95 %]" in capsys.readouterr().out
    again = es.evaluate(store, "trunk")
    assert again.targets["price"].metrics["mae"].value == pytest.approx(price.metrics["mae"].value, rel=1e-4)
    assert again.targets["price"].change == {}


def test_a_space_may_be_called_like_the_constant_of_a_target(tmp_path: Path) -> None:
    plain, named = ("a", "b"), ("majority", "mean")
    found = []
    for names in (plain, named):
        made = make_store(tmp_path / names[0], 120, names=names)
        found.append(es.train(made, "kind,price", head="linear", out_of_fold=0, report=False))
    usual, like = found
    renamed = dict(zip(plain, (f"linear on {name}" for name in named), strict=True))
    for target, scores in usual.targets.items():
        assert like.targets[target].baselines == {renamed.get(name, name): one for name, one in scores.baselines.items()}
    assert list(like.baselines) == [renamed.get(name, name) for name in usual.baselines]


def test_scores_are_of_the_items_that_have_the_target(store: es.Store) -> None:
    """The metrics of each target are those of its own task on those items, with the same resamples."""
    task, view = SeveralTargets(), store.view(inputs=["a", "b"], target="kind,price")
    labels = task.labels(view)
    head = task.plain_linear().fit(view.inputs, labels.values, present=view.present)
    outputs, bootstrap = task.outputs(head, view.inputs, view.present, labels), Bootstrap.of(len(view))
    scores = task.scores(labels.truth, outputs, bootstrap)
    there = {name: ~np.isnan(labels.truth[name]) for name in ("kind", "price")}
    own = {name: bootstrap.take(mask) for name, mask in there.items()}
    codes = labels.truth["kind"][there["kind"]].astype(int)
    kind = classification_scores(codes, outputs[there["kind"], 0, :2], bootstrap=own["kind"])
    assert scores["kind:accuracy"] == kind["accuracy"]
    real, said = labels.truth["price"][there["price"]], outputs[there["price"], 1, 0]
    assert scores["price:r2"] == regression_scores(real, said, bootstrap=own["price"])["r2"]
    explained = 1 - np.abs(real - said).mean() / np.abs(real - np.median(real)).mean()
    assert scores["mean_score"].value == pytest.approx((kind["accuracy"].value + explained) / 2)
    worse = paired_regression_scores(real, said, said + 1, bootstrap=own["price"])["mae"]
    assert worse[2].value == pytest.approx(worse[1].value - worse[0].value)


def test_predictions_have_columns_for_every_target(store: es.Store, tmp_path: Path) -> None:
    es.train(store, "kind,price", report=False, name="written")
    found = es.predict(store, "written", ids=["i0", "i3"], explained=True)
    row = found.to_rows()[0]
    assert row["prediction"].keys() == {"kind", "price"}
    assert row["probability"].keys() == row["probabilities"].keys() == {"kind"}
    assert sum(row["probabilities"]["kind"].values()) == pytest.approx(1, abs=1e-5)
    assert {"kind:a", "price:b"} < row["contributions"].keys()
    table = pq.read_table(found.save(tmp_path / "p.parquet"))
    assert table.column_names[:6] == [
        "id",
        "prediction:kind",
        "probability:kind",
        "p:kind:high",
        "p:kind:low",
        "prediction:price",
    ]
    shown = run("predict", str(store.path), "written", "--id", "i0").stdout
    assert "kind" in shown
    assert "price" in shown


@pytest.mark.parametrize(
    ("target", "options", "words"),
    [
        ("kind,nope", {}, "has no metadata column 'nope'"),
        ("kind,kind", {}, "target names 'kind' more than once"),
        ([], {}, "target should name a column"),
        ("kind,price", {"weights": [1]}, "weights should be one for each of kind, price. Got 1 instead"),
        ("kind,price", {"weights": [1, 0]}, "weights must be above 0 and finite"),
        ("kind", {"weights": [1, 2]}, "weights are for several targets; 'kind' is one"),
        ("kind,price", {"task": "regression"}, "task regression is for one target; kind,price are several"),
        ("kind", {"task": "several"}, "Target 'kind' is one; the task several needs more"),
        ("kind,price", {"balance": "weights"}, "balance is for one target; kind,price are several. Leave --balance out"),
        ("kind,price", {"separator": ";"}, "separator is for one target"),
        ("kind,price", {"least_items": 3}, "least_items leaves out labels, which are for the task multilabel, not several"),
        ("kind,price", {"coverage": 0.9}, "coverage is for heads of one target"),
        (
            "kind,price",
            {"head": "auto"},
            r"'auto' chooses for one target; kind,price are several\. Train each alone .* linear, knn",
        ),
        ("kind,price", {"columns": ["price"]}, "Column 'price' is a target; it cannot be an input too"),
        ("kind,tags", {}, "Target 'tags' holds lists; each of several targets is a class or a number"),
        ("kind,same", {}, "Target 'same' is 'one' for all 240 items"),
        ("kind,joined", {}, r"'joined' hold ';'.*Several labels an item are a target of their own.*--task several"),
        ("kind,price", {"head": "ridge"}, "For several targets there are: linear, knn"),
    ],
)
def test_what_does_not_fit_is_refused(store: es.Store, target: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises((UsageError, HeadError), match=words):
        es.train(store, target, report=False, **options)


def test_certainty_is_refused_for_a_saved_head(store: es.Store) -> None:
    es.train(store, "kind,size", task=None, name="certain-not", report=False)
    es.train(store, ["kind", "size"], name="certain", report=False)
    for call in (es.predict, es.evaluate):
        with pytest.raises(UsageError, match="coverage is for heads of one target"):
            call(store, "certain", coverage=0.9)


def test_cross_validation_groups_and_a_kind_of_each(store: es.Store) -> None:
    result = es.train(store, "kind,joined", task="several", cv=3, group="house", name="crossed", report=False)
    assert {name: found.items for name, found in result.targets.items()} == {"kind": 216, "joined": 240}
    assert (result.out_of_fold["items"], result.out_of_fold["folds"]) == (240, 3)


@pytest.mark.parametrize("head", ["linear", "knn"])
def test_out_of_fold_predictions_are_kept_of_each_target(store: es.Store, head: str) -> None:
    """By their own metrics they are what cross-validation scored, and they are of the items that have the target."""
    result = es.train(store, "kind,price", head=head, cv=2, seeds=1, name=f"kept-{head}", report=False)
    kind, price = (es.out_of_fold(store, f"kept-{head}", target=name) for name in ("kind", "price"))
    view = store.view(inputs=["a"], target="kind")
    assert (kind.ids.tolist(), kind.target.tolist()) == (view.ids.tolist(), view.target.tolist())  # type: ignore[union-attr]
    assert result.targets["kind"].metrics["accuracy"].value == pytest.approx((kind.predicted == kind.target).mean())
    assert kind.predicted.tolist() == kind.classes[kind.probabilities.argmax(axis=1)].tolist()
    np.testing.assert_allclose(kind.probabilities.sum(axis=1), 1, atol=1e-5)
    off = np.abs(price.predicted - price.target).mean()
    assert (len(price), result.targets["price"].metrics["mae"].value) == (206, pytest.approx(off))
    assert {*kind.alone, *price.alone} == {"a", "b"}
    assert price.classes.tolist() == []


def test_wrong_labels_of_one_of_several_targets(tmp_path: Path) -> None:
    """Planted ones are the worst of the list; of test items the words of the head itself are kept."""
    planted = [5, 6, 40, 77, 120]
    x = np.random.default_rng(0).standard_normal((240, 8))  # what `make_store` draws first
    size = [("s", "m")[bool(row[6] > 0) == (i in planted)] for i, row in enumerate(x)]
    made = make_store(tmp_path / "s", size=size)
    es.train(made, ["kind", "size"], name="both", report=False, out_of_fold=3)
    found = es.labels(made, "both", target="size", n=5)
    assert (found.target, found.items) == ("size", 240)
    assert len({one.id for one in found.suspects} & {f"i{i}" for i in planted}) >= 4
    kept, said = es.out_of_fold(made, "both", target="size"), es.predict(made, "both")
    told = dict(zip(said.ids.tolist(), said.targets["size"].labels.tolist(), strict=True))
    own = kept.take(~kept.crossed)
    assert len(own) > 20
    assert own.predicted.tolist() == [told[one] for one in own.ids]
    shown = " ".join(run("labels", made.path, "both", "--target", "kind", "-n", "2").stdout.split())
    assert "of 216 labels of 'kind'" in shown
    for call in (es.out_of_fold, es.labels):
        with pytest.raises(UsageError, match=r"has the targets kind, size\. Say which: target='kind' \(--target kind\)"):
            call(made, "both")
        with pytest.raises(UsageError, match=r"has no target 'nope'\. It has: kind, size"):
            call(made, "both", target="nope")


def test_a_target_that_no_test_item_has_is_told(tmp_path: Path) -> None:
    part = ["test" if i % 4 == 0 else "val" if i % 4 == 1 else "train" for i in range(160)]
    rare = [None if p == "test" else "u" if i % 3 else "v" for i, p in enumerate(part)]
    made = make_store(tmp_path / "s", 160, split=part, rare=rare)
    result = es.train(made, "size,rare", report=False)
    assert list(result.targets) == ["size"]
    assert "no judged item has a value of 'rare': nothing is known of how well it is predicted" in result.notes
    assert "40 items have no 'rare'; they count for the other targets" in result.notes
    other = make_store(tmp_path / "o", 80, 1, size=["s" if i % 2 else "new" for i in range(80)], rare=["u"] * 80)
    notes = es.evaluate(other, made.path / "heads" / "size-rare").notes
    assert "size: 40 items are of classes that the head does not know: new" in notes


def test_test_items_have_no_say(tmp_path: Path) -> None:
    """Other values of the test items: the same head."""
    rng = np.random.default_rng(3)
    part = ["test" if i % 4 == 0 else "val" if i % 4 == 1 else "train" for i in range(160)]
    names = [str(rng.choice(["p", "q"])) for _ in part]
    flipped = ["pq"[n == "p"] if p == "test" else n for n, p in zip(names, part, strict=True)]
    found = []
    for name, values in (("s", names), ("f", flipped)):
        made = make_store(tmp_path / name, 160, odd=values, split=part)
        es.train(made, "odd,price", report=False)
        found.append(es.predict(made, "odd-price").targets["odd"].probabilities)
    np.testing.assert_array_equal(*found)


def test_the_command(store: es.Store) -> None:
    done = run("train", str(store.path), "kind,size,price", "--weights", "1,x", code=2)
    assert "weights should be numbers separated by commas, such as 1,0.5. Got 'x'" in done.stderr
    view = store.view(inputs=["a"], target="size,price")
    es.train(view, head="knn", name="viewed", report=False)
    assert "viewed" in store.refresh().heads
