"""Labels that a head cannot learn, or that were hardly meant to be different, are kept, counted and named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers import Telling

import embedstore as es
from embedstore.sources import MemorySource
from embedstore.training.label_notes import label_notes, number_notes


def notes_of(counts: dict[object, int]) -> list[str]:
    labels = np.array([label for label, n in counts.items() for _ in range(n)], dtype=object)
    return label_notes(labels, np.ones(len(labels), bool), np.zeros(len(labels), bool))


def test_ordinary_labels_need_no_note() -> None:
    assert notes_of({"dog": 20, "cat": 30, "Katze": 7}) == []
    assert notes_of({1: 20, 2: 30}) == []
    assert number_notes(np.arange(20.0)) == []


@pytest.mark.parametrize(
    ("other", "shown"),
    [("Dog", "'Dog' (6), 'dog' (9)"), ("dog ", "'dog' (9), 'dog ' (6)"), ("\uff44og", "'dog' (9), 'ｄog' (6)")],
)
def test_labels_that_are_nearly_the_same(other: str, shown: str) -> None:
    (note,) = notes_of({"dog": 9, other: 6, "cat": 8})
    assert note == f"labels that differ only by blanks, case or Unicode form stay apart: {shown}"


def test_unicode_forms_that_look_the_same_are_escaped() -> None:
    (note,) = notes_of({"caf\u00e9": 9, "cafe\u0301": 6, "tea": 8})
    assert note.endswith("'cafe\\u0301' (6), 'caf\\xe9' (9)")


def test_nearly_constant() -> None:
    assert notes_of({"a": 995, "b": 5}) == ["99.5 % of the items are 'a': go by balanced accuracy and macro F1"]
    assert notes_of({"a": 98, "b": 5}) == []
    values = np.ones(1000)
    values[3] = 2
    assert number_notes(values)[0].startswith("99.9 % of the items are 1")
    assert number_notes(1e9 + np.linspace(0, 1, 50))[0].startswith("the numbers hardly differ")


def test_rare() -> None:
    assert notes_of({"a": 50, "b": 4, "c": 1}) == ["2 classes have fewer than 5 items: 'b' (4), 'c' (1)"]


@pytest.mark.parametrize("part", ["test", "val"])
def test_a_class_without_a_training_item(tmp_path: Path, part: str) -> None:
    x = np.random.default_rng(0).standard_normal((120, 4))
    labels = ["new" if i >= 110 else "ab"[int(x[i, 0] > 0)] for i in range(120)]
    split = [part if i >= 110 else ("val" if i >= 100 else "test") if i >= 80 else "train" for i in range(120)]
    texts = [" ".join(f"{v:.4f}" for v in row) for row in x]
    columns = {"id": [str(i) for i in range(120)], "text": texts, "label": labels, "split": split}
    es.embed(MemorySource(columns), tmp_path / "s", text={"text": Telling(4, "text", "telling")})
    report = es.train(tmp_path / "s", "label", head="ridge")
    said = {
        "test": "1 class has no training item and can never be predicted (10 items to be judged): 'new' (10)",
        "val": "1 class has items for validation but none for training, and can hardly be learned: 'new' (10)",
    }[part]
    assert said in report.to_dict()["notes"]
    assert said.split(":")[0] in Path(report.report).read_text(encoding="utf-8")
    assert report.classes == 3  # kept


def test_items_that_are_left_out_are_counted(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((60, 4))
    texts = [None if i < 3 else " ".join(f"{v:.4f}" for v in row) for i, row in enumerate(x)]
    labels = [None if i == 7 else "ab"[i % 2] for i in range(60)]
    columns = {"id": [str(i) for i in range(60)], "text": texts, "label": labels}
    es.embed(MemorySource(columns), tmp_path / "s", text={"text": Telling(4, "text", "telling")})
    notes = es.train(tmp_path / "s", "label", head="ridge", report=False).notes
    assert "1 item has no label and was left out" in notes
    assert "3 items have no vector in text and were left out" in notes
    assert "3 items have no vector in text and were left out" in es.evaluate(tmp_path / "s", "label").notes
