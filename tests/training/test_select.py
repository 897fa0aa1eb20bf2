"""Items that are worth a label are selected from a store, with and without a head."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from helpers import Telling, run, telling_store

import embedstore as es
from embedstore.errors import UsageError
from embedstore.sources import MemorySource


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> es.Store:
    """Texts that tell their label; every 50th has none (4 of 200); and a head."""
    made = telling_store(tmp_path_factory.mktemp("select") / "s.store")
    es.train(made, "label", report=False)
    return made.refresh()


def unlabelled(store: es.Store) -> set[str]:
    table = store.items.take(store.items.rows, ["id", "label"]).to_pylist()
    return {row["id"] for row in table if row["label"] is None}


def test_diverse_items_are_far_from_one_another(store: es.Store) -> None:
    found = es.select(store, n=5)
    assert (found.by, found.space, found.candidates, found.labelled) == (["diverse"], "text", 200, 0)
    assert len({item.id for item in found.items}) == 5
    distances = [item.score for item in found.items]
    assert distances[1:] == sorted(distances[1:], reverse=True)


def test_a_head_is_asked_of_what_has_no_label(store: es.Store) -> None:
    found = es.select(store, n=3, by="uncertain", head="label")
    assert {item.id for item in found.items} <= unlabelled(store)
    assert (found.candidates, found.labelled) == (4, 196)
    assert [item.score for item in found.items] == sorted(item.score for item in found.items)
    said = {row["id"]: row for row in es.predict(store, "label", ids=[item.id for item in found.items]).to_rows()}
    for item in found.items:
        first, second, *_ = sorted(said[item.id]["probabilities"].values(), reverse=True)
        assert item.score == pytest.approx(first - second, abs=1e-5)
        assert item.prediction == said[item.id]["prediction"]


def test_ways_follow_one_another(store: es.Store) -> None:
    found = es.select(store, n=4, by="uncertain,diverse", head="label", labelled="")
    assert (found.candidates, found.labelled) == (200, 0)
    wide = es.select(store, n=20, by=["uncertain"], head="label", labelled="")
    assert {item.id for item in found.items} <= {item.id for item in wide.items}


def test_balanced_and_typical_select_what_they_say(store: es.Store) -> None:
    found = es.select(store, n=2, by="balanced", head="label")
    assert len(found.items) == 2
    assert all(0 < item.score <= 1 for item in found.items)
    assert len(es.select(store, n=6, by="typical", where="n < 50").items) == 6


def test_what_a_head_cannot_be_asked_of_is_left_out(tmp_path: Path) -> None:
    """An item whose payload is missing has no vector, and does not keep the others from being selected."""
    made = telling_store(tmp_path / "s.store", n=60)
    es.train(made, "label", report=False, out_of_fold=0)
    new = {"id": ["bare", "new"], "text": [None, "1 0 0"], "label": [None, None], "n": [60, 61]}
    es.embed(MemorySource(new), made.path, text=Telling(3, "text", "telling"))
    for way in ("uncertain", "balanced"):
        found = es.select(made.path, n=9, by=way, head="label")
        assert {item.id for item in found.items} == {"i9", "i59", "new"}
        assert found.notes == ["1 items without a vector in text are left out: head 'label' takes them"]
    with pytest.raises(UsageError, match="None of the 1 candidates has a vector in text, which head 'label' takes"):
        es.select(made.path, by="uncertain", head="label", where="n = 60")


def test_a_store_with_nothing_to_select_is_told(store: es.Store, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no space yet\. Embed something first"):
        es.select(es.Store.open(tmp_path / "s.store", create=True))
    for by in ("diverse", "typical", "uncertain", "balanced"):
        assert es.select(store, by=by, head="label", where="n > 900", labelled="").items == []


def test_an_empty_text_is_no_label(tmp_path: Path) -> None:
    """`train` leaves such items out, so that they are worth a label."""
    labels = [("", "a", "b")[i % 3] for i in range(30)]
    prices = [float("nan") if i % 2 else 1.0 for i in range(30)]
    made = telling_store(tmp_path / "s.store", n=30, kind=labels, price=prices)
    assert made.view(inputs=["text"], target="kind").dropped == 10
    found = es.select(made, n=30, labelled="kind")
    assert (found.candidates, found.labelled) == (10, 20)
    assert {item.id for item in found.items} == {f"i{i}" for i in range(0, 30, 3)}
    assert es.select(made, n=30, labelled="price").labelled == 15


def test_what_cannot_be_selected_by_is_told(store: es.Store) -> None:
    for given, said in (
        ({"by": "loud"}, "by should be of diverse, typical, uncertain, balanced. Got 'loud' instead"),
        ({"by": "uncertain"}, "asks a head how sure it is: name a saved one, --head NAME"),
        ({"n": 0}, "n must be at least 1"),
        ({"labelled": "nope"}, "has no metadata column 'nope'"),
        ({"labelled": "n", "where": "n is not null"}, "Every item has a value in 'n'"),
        ({"space": "nope"}, "nope"),
    ):
        with pytest.raises((UsageError, es.EmbedstoreError), match=said):
            es.select(store, **given)  # type: ignore[arg-type]


def test_a_head_of_several_labels_an_item_is_refused(tmp_path: Path) -> None:
    made = telling_store(tmp_path / "s.store", n=60, tags=[["x", "y", "z"][i % 2 :] for i in range(60)])
    es.train(made, "tags", report=False, out_of_fold=0)
    for way in ("uncertain", "balanced"):
        with pytest.raises(UsageError, match="Head 'tags' gives no probabilities of classes"):
            es.select(made.path, by=way, head="tags", labelled="")


def test_the_command_writes_a_table(store: es.Store, tmp_path: Path) -> None:
    path = str(store.path)
    said = run("select", path, "-n", "3", "--by", "uncertain", "--head", "label", "--out", str(tmp_path / "next.csv")).stdout
    assert "3 of 4 candidates, 196 have a label" in said
    with open(tmp_path / "next.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["rank", "id", "score", "prediction"]
    assert len(rows) == 3
    document = json.loads(run("select", path, "-n", "2", "--json").stdout)
    assert (document["score"], len(document["items"])) == ("distance", 2)
    assert np.isfinite([item["score"] for item in document["items"][1:]]).all()
