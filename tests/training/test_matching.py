"""Matching: pairs are drawn honestly, heads tell them apart, and what is saved says the same of pairs of ids."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from embedstore_cli.main import app
from helpers import Telling
from sklearn.metrics import average_precision_score, roc_auc_score
from typer.testing import CliRunner

import embedstore as es
from embedstore.errors import HeadError, SourceError, UsageError
from embedstore.evaluation.bootstrap import Bootstrap
from embedstore.evaluation.pair_metrics import HARD, PAIR, RANDOM, pair_scores, shares_of_auroc
from embedstore.heads.aligner import Aligner
from embedstore.heads.io import load_head
from embedstore.heads.matcher import Matcher
from embedstore.heads.pair_features import PairFeatures
from embedstore.sources import MemorySource
from embedstore.training.drawn_pairs import Asked, PairView, pairs_to_judge, pairs_to_learn
from embedstore.training.saved import find_head, fitted_ids

MATCH: dict[str, Any] = {"task": "matching", "inputs": ["first", "second"], "report": False}


class First(Telling):
    """Of a text of its own: two encoders of one modality have two names."""


def make_store(
    path: Path, n: int = 240, *, seed: int = 0, copies: int = 0, noise: float = 0.3, alike: bool = True, **columns: Any
) -> es.Store:
    """Items with two texts that say the same in different numbers; the first `copies` share their second text."""
    rng = np.random.default_rng(seed)
    mixed = np.random.default_rng(99).normal(size=(6, 5))
    first = rng.normal(size=(n, 6))
    second = first @ mixed + noise * rng.normal(size=(n, 5)) if alike else rng.normal(size=(n, 5))
    second[:copies] = second[0]
    words = [[" ".join(f"{v:.4f}" for v in row) for row in side] for side in (first, second)]
    lacking = [text if i % 60 else None for i, text in enumerate(words[1])]
    data = {
        "id": [f"{seed}-{i}" for i in range(n)],
        "text": words[0],
        "other": lacking,
        "shop": [f"s{i % 30}" for i in range(n)],
        **columns,
    }
    spaces = {"first": First(6, "text", "six"), "second": First(5, "text", "five")}
    es.embed(MemorySource(data), path, text=spaces, columns={"second": "other"})
    return es.Store.open(path)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> es.Store:
    return make_store(tmp_path_factory.mktemp("stores") / "a.store", copies=6)


@pytest.fixture(scope="module")
def trained(store: es.Store) -> Any:
    return es.train(store, **{**MATCH, "report": True})


def drawn(store: es.Store, **asked: Any) -> PairView:
    return pairs_to_learn(store, Asked(["first", "second"], **asked))[0]


def second_ids(view: PairView) -> list[str]:
    return view.store.items.take(view.partners, ["id"]).column("id").to_pylist()


def test_no_item_and_no_copy_of_one_is_on_both_sides_of_the_split(store: es.Store) -> None:
    view = drawn(store, group="shop")
    sides: dict[str, set[str]] = {}
    shop = dict(zip(*(store.items.table(["id", "shop"]).column(c).to_pylist() for c in ("id", "shop")), strict=True))
    for first, second, part in zip(view.ids, second_ids(view), view.split, strict=True):
        sides.setdefault(part, set()).update({first, second})
    assert set(sides) == {"train", "val", "test"}
    for of in (lambda i: i, shop.get):
        parts = [{of(i) for i in found} for found in sides.values()]
        assert sum(map(len, parts)) == len(set.union(*parts))
    copies = {f"0-{i}" for i in range(1, 6)}
    assert sum(bool(copies & found) for found in sides.values()) == 1


def test_a_column_split_sends_no_copy_to_another_part(tmp_path: Path) -> None:
    """Items 0 to 5 share their second text, and the column has them in all parts: those in training stay. Groups likewise."""
    part = ["test" if i % 3 == 1 else "val" if i % 3 == 2 else "train" for i in range(240)]
    band = [f"b{i // 3}" if i % 9 < 3 else f"own {i}" for i in range(240)]
    made = make_store(tmp_path / "a.store", copies=6, split=part, band=band)
    view, notes = pairs_to_learn(made, Asked(["first", "second"]))
    used = dict(zip(view.ids.tolist(), view.split.tolist(), strict=True))
    assert {own: used.get(own) for own in (f"0-{i}" for i in range(1, 6))} == {
        "0-1": None, "0-2": None, "0-3": "train", "0-4": None, "0-5": None,
    }  # fmt: skip
    others = {own: of for own, of in used.items() if int(own[2:]) > 5}
    assert others == {f"0-{i}": part[i] for i in range(6, 240) if i % 60}
    mine = dict(zip((f"0-{i}" for i in range(240)), part, strict=True))
    assert all(mine[second] == of for second, of in zip(second_ids(view), view.split.tolist(), strict=True))
    assert any(note.startswith("4 items share a payload with items in an earlier part of the column 'split'") for note in notes)
    grouped, told = pairs_to_learn(made, Asked(["first", "second"], group="band"))
    found = {of: {band[int(own[2:])] for own in grouped.ids[grouped.split == of]} for of in ("train", "val", "test")}
    assert all(found.values())
    assert not found["train"] & found["test"]
    assert not found["val"] & (found["train"] | found["test"])
    assert any("share a payload or a band with items in an earlier part" in note for note in told)


@pytest.mark.parametrize(("head", "seeds"), [("gbdt", 3), ("linear", 0)])
def test_heads_that_depend_on_a_seed_are_fitted_with_several(store: es.Store, head: str, seeds: int) -> None:
    report = es.train(store, **MATCH, head=head, seeds=3, name=f"seeds-{head}")
    assert len(report.seeds) == seeds
    assert report.seeds[:1] == [pytest.approx(report.metrics["auroc"].value)] * bool(seeds)
    assert len(set(report.seeds)) == seeds


def test_pairs_are_what_they_are_said_to_be(store: es.Store) -> None:
    view = drawn(store, negatives=4, hard=0.5)
    kinds = np.asarray(view.target, int)
    own = view.rows == view.partners
    assert (own == (kinds == PAIR)).all()
    assert view.ids[own].tolist() == list(dict.fromkeys(view.ids[own].tolist()))  # each once
    n = int(own.sum())
    assert [(kinds == kind).sum() for kind in (PAIR, RANDOM, HARD)] == [n, 2 * n, 2 * n]
    hashes = view.hashes
    spaces = store.spaces
    for name, other in (("first", view.partners), ("second", view.rows)):  # no copy is called another item
        same = (hashes[name] == spaces[name].hash_of(other)).all(axis=1)
        assert not same[~own].any()
    cosine = {}
    for kind in (RANDOM, HARD):
        at = kinds == kind
        units = [
            x / np.linalg.norm(x, axis=1, keepdims=True)
            for x in (spaces["first"].take(r[at]) for r in (view.rows, view.partners))
        ]
        cosine[kind] = float((units[0].astype(float) * units[1]).sum(axis=1).mean())
    assert cosine[HARD] > cosine[RANDOM] + 0.2
    assert set(np.asarray(drawn(store, hard=0.0).target, int)) == {PAIR, RANDOM}
    again = drawn(store, negatives=4, hard=0.5)
    assert [again.rows.tolist(), again.partners.tolist()] == [view.rows.tolist(), view.partners.tolist()]


def test_each_side_alone_says_nothing(trained: Any) -> None:
    for name in ("first", "second"):
        assert abs(trained.baselines[name]["auroc"].value - 0.5) < 0.1
    assert trained.baselines["constant"]["auroc"].value == 0.5
    assert trained.baselines["constant"]["balanced_accuracy"].value == 0.5


def test_it_tells_pairs_apart_and_stands_beside_the_cosine(trained: Any, store: es.Store) -> None:
    assert list(trained.metrics)[:3] == ["auroc", "auprc", "balanced_accuracy"]
    assert trained.metrics["auroc"].low > 0.8
    assert trained.metrics["auroc_random"].value > trained.metrics["auroc_hard"].value
    assert trained.baselines["cosine"]["auroc"].low > 0.8
    assert trained.gain[0] == "cosine"
    assert trained.gain[1].value == pytest.approx(trained.metrics["auroc"].value - trained.baselines["cosine"]["auroc"].value)
    assert trained.head == "first-second"
    assert any("items lack one of first and second" in note for note in trained.notes)
    page = (store.path / "heads" / "first-second" / "report.html").read_text()
    assert all(said in page for said in ("drawn at random", "cosine through CCA", "test pairs"))


def test_where_sides_have_nothing_to_do_with_each_other_nothing_is_found(tmp_path: Path) -> None:
    found = es.train(make_store(tmp_path / "s.store", alike=False), **MATCH)
    assert found.metrics["auroc"].low < 0.5 < found.metrics["auroc"].high


@pytest.mark.parametrize("kind", ["ridge", "gbdt", "knn"])
def test_any_head_can_weigh_a_pair(store: es.Store, kind: str) -> None:
    assert es.train(store, head=kind, name=kind, **MATCH).metrics["auroc"].value > 0.8


def test_metrics_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 3, 400)
    odds = np.round(rng.normal(size=400) + (kind == PAIR), 1)  # with ties
    scores = pair_scores(kind, odds, bootstrap=Bootstrap.of(400))
    assert scores["auroc"].value == pytest.approx(roc_auc_score(kind == PAIR, odds))
    assert scores["auprc"].value == pytest.approx(average_precision_score(kind == PAIR, odds))
    at = kind != RANDOM
    assert scores["auroc_hard"].value == pytest.approx(roc_auc_score(kind[at] == PAIR, odds[at]))
    shares = shares_of_auroc(kind == PAIR, odds)
    assert shares.mean() == pytest.approx(scores["auroc"].value)
    told, linear = scores["auroc"], Bootstrap.of(400).mean(shares)
    assert linear.high - linear.low == pytest.approx(told.high - told.low, rel=0.1)
    assert np.isnan(shares_of_auroc(np.ones(3, bool), np.zeros(3))).all()


def test_numbers_of_pairs_that_were_left_out_are_of_what_did_not_see_them() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(120, 30)), rng.normal(size=(120, 30))  # noise: what has seen a pair knows it all the same
    belong = np.repeat([True, False], [120, 120])
    pairs = np.concatenate([x, x]), np.concatenate([y, np.roll(y, 1, axis=0)])
    features = PairFeatures((5,)).fit((x, y))
    seen = features.of(pairs)
    assert roc_auc_score(belong, seen[:, 0]) > 0.9
    found, kept = features.left_out(pairs, belong)
    assert kept[belong].all()
    for column in found[kept].T:
        assert 0.3 < roc_auc_score(belong[kept], column) < 0.7


def test_an_aligner_like_another_one_chooses_nothing() -> None:
    rng = np.random.default_rng(2)
    X = {"a": rng.normal(size=(60, 5)), "b": rng.normal(size=(60, 4))}
    first = Aligner().fit(X)
    again = Aligner().fit(X, like=first)
    assert again.choice == first.choice
    np.testing.assert_allclose(again.project("a", X["a"]), first.project("a", X["a"]), atol=1e-6)


def test_a_saved_head_says_what_it_said(store: es.Store, trained: Any) -> None:
    head = load_head(store.path / "heads" / trained.head).head
    assert isinstance(head, Matcher)
    view = drawn(store)
    inputs = {name: x[:50] for name, x in view.inputs.items()}
    again = Matcher.from_state(head.get_params(), head.state())
    np.testing.assert_array_equal(again.predict_log_proba(inputs), head.predict_log_proba(inputs))
    lacking = head.predict_proba(inputs, present={"second": np.zeros(50, bool)})
    np.testing.assert_allclose(lacking, 0.5)


def test_predict_on_pairs_of_ids(store: es.Store, trained: Any, tmp_path: Path) -> None:
    pairs = [("0-7", "0-7"), ("0-7", "0-8"), ("0-9", "0-7")]
    found = es.predict(store, trained.head, pairs=pairs)
    assert found.ids.tolist() == ["0-7", "0-7", "0-9"]
    assert found.partners == ["0-7", "0-8", "0-7"]
    rows = found.to_rows()
    assert list(rows[0]) == ["id", "with", "prediction", "probability"]
    assert rows[0]["probability"] > max(rows[1]["probability"], rows[2]["probability"])
    assert all((row["prediction"] == "yes") == (row["probability"] > 0.5) for row in rows)
    own = es.predict(store, trained.head, ids=["0-7"]).to_rows()[0]
    assert own["probability"] == pytest.approx(rows[0]["probability"], abs=1e-5)
    for header, order in (("first,second", 1), ("second,first", -1), ("a,b", 1)):
        path = tmp_path / "pairs.csv"
        path.write_text("\n".join([header, *(",".join(pair[::order]) for pair in pairs)]) + "\n")
        assert es.predict(store, trained.head, pairs=path).to_rows() == rows
    saved = found.save(tmp_path / "out.csv")
    with open(saved, newline="") as file:
        assert next(csv.reader(file)) == ["id", "with", "prediction", "probability"]
    assert es.predict(store, trained.head, pairs=[]).to_rows() == []


def test_pairs_that_cannot_be_predicted(store: es.Store, trained: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"pairs: row 2: .* has no item 'nope'"):
        es.predict(store, trained.head, pairs=[("0-7", "0-8"), ("0-7", "nope")])
    with pytest.raises(HeadError, match="row 1: item '0-60' has no vector in 'second'"):
        es.predict(store, trained.head, pairs=[("0-7", "0-60")])
    with pytest.raises(UsageError, match=r"row 1: expected the ids of two items. Got"):
        es.predict(store, trained.head, pairs=[("0-7",)])  # type: ignore[list-item]
    wide = tmp_path / "wide.csv"
    wide.write_text("a,b,c\n1,2,3\n")
    with pytest.raises(SourceError, match="has the columns a, b, c; expected first and second"):
        es.predict(store, trained.head, pairs=wide)
    empty = tmp_path / "hole.csv"
    empty.write_text("first,second\n0-7,\n")
    with pytest.raises(UsageError, match="row 1: expected the ids of two items"):
        es.predict(store, trained.head, pairs=empty)
    with pytest.raises(SourceError, match="does not exist"):
        es.predict(store, trained.head, pairs=tmp_path / "none.csv")
    with pytest.raises(UsageError, match="where and pairs are given"):
        es.predict(store, trained.head, pairs=[("0-7", "0-8")], where="shop = 's1'")
    es.train(store, "shop", inputs=["first"], name="shops", report=False, out_of_fold=0)
    with pytest.raises(UsageError, match="pairs are for heads of the task matching; head 'shops' is for classification"):
        es.predict(store, "shops", pairs=[("0-7", "0-8")])


def test_evaluate_draws_pairs_of_items_that_the_head_has_not_seen(store: es.Store, trained: Any, tmp_path: Path) -> None:
    other = make_store(tmp_path / "b.store", 80, seed=3)
    found = es.evaluate(other, store.path / "heads" / trained.head, report=tmp_path / "page.html")
    assert found.metrics["auroc"].value > 0.8
    assert "pairs of b.store" in found.evaluation
    assert "drawn at random" in (tmp_path / "page.html").read_text()
    at_home = es.evaluate(store, trained.head)
    assert at_home.items["test"] < found.items["test"]
    assert es.evaluate(store, trained.head, seen=True).items["test"] > at_home.items["test"]


def test_evaluate_draws_no_pairs_of_copies_of_what_was_fitted_on(tmp_path: Path) -> None:
    """`train` keeps items out that share a payload with an earlier part; they are as little new to the head as that part is."""
    part = ["test" if i % 3 == 1 else "val" if i % 3 == 2 else "train" for i in range(240)]
    band = [f"b{i // 3}" if i % 9 < 3 else f"own {i}" for i in range(240)]
    made = make_store(tmp_path / "a.store", copies=6, split=part, band=band)
    head = es.train(made, **MATCH).head
    never = fitted_ids(find_head(made, head)[1])
    view, notes = pairs_to_judge(made, Asked(["first", "second"], never=never))
    assert set(view.ids) | set(second_ids(view)) == {f"0-{i}" for i in range(6, 240) if i % 3 == 1}
    told = "4 items share a payload with items that the head was fitted on, and make no pair"
    assert told in notes  # 1, 2, 4 and 5, for 3 is in training; 0 lacks its second text
    assert told in es.evaluate(made, head).notes
    among = Asked(["first", "second"], where="split = 'test'", never=never)
    assert set(pairs_to_judge(made, among)[0].ids) == set(view.ids)
    grouped, notes = pairs_to_judge(made, Asked(["first", "second"], group="band", never=never))
    assert not {band[int(own[2:])] for own in grouped.ids} & {band[int(own[2:])] for own in never}
    assert any("share a payload or a band with items that the head was fitted on" in note for note in notes)


def test_what_matching_does_not_take(store: es.Store, tmp_path: Path) -> None:
    for options, said in (
        ({"target": "shop"}, "takes no target, but 'shop' is given"),
        ({"inputs": ["first"]}, "Matching compares two spaces; name them: --inputs image,text. Got first"),
        ({"inputs": ["first", "nope"]}, "nope"),
        ({"cv": 3}, "cv is not for the task matching"),
        ({"balance": "weights"}, "balance is not for the task matching"),
        ({"columns": ["shop"]}, "columns is not for the task matching"),
        ({"weights": [1, 2]}, "weights is not for the task matching"),
        ({"tune": 3}, "tune is not for the task matching"),
        ({"shots": [1]}, "shots is not for the task matching"),
        ({"least_items": 5}, "least_items is not for the task matching"),
        ({"out_of_fold": 3}, "out_of_fold is not for the task matching"),
        ({"head": "zeroshot"}, "begins with the names of classes"),
        ({"head": "nope"}, "No head is called 'nope'"),
        ({"hard": 1.5}, "hard must be a share between 0 and 1"),
        ({"negatives": 0}, "negatives"),
        ({"where": "shop = 's1'"}, "items of .* have both first and second"),
    ):
        with pytest.raises((UsageError, HeadError), match=said):
            es.train(store, **{**MATCH, **options})  # type: ignore[dict-item]


def test_the_command(store: es.Store, tmp_path: Path) -> None:
    asked = ["train", str(store.path), "--task", "matching", "--inputs", "first,second", "--no-report", "--name", "cli"]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    assert "cosine through CCA" in done.output
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("first,second\n0-7,0-7\n0-7,0-8\n")
    done = CliRunner().invoke(app, ["predict", str(store.path), "cli", "--pairs", str(pairs), "--json"])
    assert done.exit_code == 0, done.output
    assert [(row["id"], row["with"]) for row in json.loads(done.stdout)["predictions"]] == [("0-7", "0-7"), ("0-7", "0-8")]
    assert "with" in CliRunner().invoke(app, ["predict", str(store.path), "cli", "--pairs", str(pairs)]).output
