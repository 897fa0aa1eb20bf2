"""Saved heads: used from another store, on items that lack an input, replaced by a name's next head."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from helpers import run, write_csv, write_image

import embedstore as es
from embedstore.errors import FingerprintError, HeadError, UsageError


def two_inputs(folder: Path, name: str, texts: dict[int, str] | None = None) -> Path:
    """60 pictures with texts, every second of class a; `texts` overrules some."""
    rows: list[dict[str, object]] = []
    for i in range(60):
        write_image(folder / "images" / f"{i}.png", seed=i)
        text = (texts or {}).get(i, f"t{i}")
        rows.append({"id": f"i{i}", "image": f"images/{i}.png", "text": text, "label": "ab"[i % 2]})
    return write_csv(folder / name, rows)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    es.embed(two_inputs(tmp_path, "t.csv"), tmp_path / "old.store", image="hash:8", text="hash:8")
    es.train(tmp_path / "old.store", "label", cv=3, report=False)
    return tmp_path / "old.store"


def test_a_head_of_another_store_predicts(old: Path, tmp_path: Path) -> None:
    new, head = tmp_path / "new.store", old / "heads" / "label"
    es.embed(two_inputs(tmp_path, "u.csv"), new, image="hash:8", text="hash:8")
    there, here = es.predict(new, head), es.predict(old, "label")
    assert there.labels.tolist() == here.labels.tolist()
    np.testing.assert_array_equal(there.probabilities, here.probabilities)
    document = json.loads(run("predict", new, head, "--id", "i3", "--explain", "--json").stdout)
    assert document["predictions"][0]["nearest"][0]["id"] == "i3"  # it was trained on, in the other store
    assert len(es.predict(new, head, tmp_path / "u.csv").ids) == 60
    with pytest.raises(UsageError, match=r"new\.store has no head 'label'"):
        es.predict(new, "label")
    es.embed(tmp_path / "u.csv", tmp_path / "other.store", image="hash:9", text="hash:8")
    with pytest.raises(FingerprintError, match="was trained on"):
        es.predict(tmp_path / "other.store", head)


def test_columns_of_other_names_are_predicted(old: Path, tmp_path: Path) -> None:
    table = two_inputs(tmp_path, "theirs.csv")
    table.write_text(table.read_text().replace("id,image,text", "key,photo,caption", 1))
    named = ("--id-column", "key", "--image-column", "photo", "--text-column", "caption")
    there = json.loads(run("predict", old, "label", table, *named, "--json").stdout)["predictions"]
    here = json.loads(run("predict", old, "label", "--json").stdout)["predictions"]
    assert [(row["id"], row["prediction"]) for row in there] == [(row["id"], row["prediction"]) for row in here]
    with pytest.raises(UsageError, match="leave them out for stored items"):
        es.predict(old, "label", columns={"id": "key"})


def test_an_item_says_which_inputs_it_lacked(old: Path, tmp_path: Path) -> None:
    table = two_inputs(tmp_path, "new.csv", {3: ""})
    found = es.predict(old, "label", table)
    assert found.missing[3] == ("text",)
    assert [i for i, names in enumerate(found.missing) if names] == [3]
    rows = found.to_dict()["predictions"]
    assert rows[3]["missing"] == ["text"]
    assert "missing" not in rows[0]
    saved = list(csv.DictReader(found.save(tmp_path / "p.csv").open(encoding="utf-8")))
    assert [row["missing"] for row in saved[2:5]] == ["", "text", ""]
    assert re.search(r"i3 +[ab] +0\.\d+ +text *\n", run("predict", old, "label", table).stdout)
    assert "missing" not in run("predict", old, "label").stdout
    alone = es.predict(old, "label", tmp_path / "images" / "0.png")
    assert alone.missing == [("text",)]


def test_what_a_head_replaces_is_said(old: Path) -> None:
    before = json.loads((old / "heads" / "label" / "head.json").read_text())["report"]["metrics"]["accuracy"]
    report = es.train(old, "label", head="ridge", replace=True, report=False)
    note = next(note for note in report.notes if "replaced" in note)
    assert re.match(
        rf"head 'label' \(linear on image \+ text, saved 20\d\d-\d\d-\d\d \d\d:\d\d, accuracy {before['value']:.3f} ", note
    )
    assert "3-fold cross-validation" in note
    assert not any("replaced" in note for note in es.train(old, "label", name="fresh", report=False).notes)
    assert "note: head 'label' (ridge on" in run("train", old, "label", "--replace", "--no-report").stdout


def test_an_alignment_is_replaced_by_another_one_only(old: Path) -> None:
    assert not any("replaced" in note for note in es.align(old, "text", "image", name="both").notes)
    assert any(
        note.startswith("head 'both' (align on text + image, saved")
        for note in es.align(old, "text", "image", name="both").notes
    )
    with pytest.raises(HeadError, match="is an alignment"):
        es.train(old, "label", name="both", report=False)
