"""Every confident mistake is on the page, by what was taken for what; and what inputs say against one another."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import Telling, write_image

import embedstore as es
from embedstore.reports.data import ReportData
from embedstore.sources import MemorySource
from embedstore.training import all_mistakes
from embedstore.training import train as training


class Half(Telling):
    """The first or the last three numbers of a text."""

    def __init__(self, name: str, at: slice) -> None:
        super().__init__(3, "text", name)
        self.at = at

    def encode(self, batch: Any) -> Any:
        return super().encode(batch)[:, self.at]  # type: ignore[no-untyped-call]


@pytest.fixture
def two(tmp_path: Path) -> es.Store:
    """Two inputs that tell three classes, each wrong at times; a picture for some."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 150)
    numbers = np.hstack([np.eye(3)[y], np.eye(3)[y]]) + rng.normal(0, 0.5, (len(y), 6))
    picture = write_image(tmp_path / "p.png")
    source = MemorySource(
        {
            "id": [f"i{i}" for i in range(len(y))],
            "text": [" ".join(f"{v:.3f}" for v in row) for row in numbers],
            "label": ["abc"[k] for k in y],
            "image": [str(picture) if i % 2 else None for i in range(len(y))],
        }
    )
    es.embed(source, tmp_path / "s.store", text={"one": Half("first", slice(3)), "text": Half("last", slice(3, None))})
    return es.Store.open(tmp_path / "s.store")


def shown(monkeypatch: pytest.MonkeyPatch, *arguments: Any, **named: Any) -> ReportData:
    """What the report of a head that is trained so shows."""
    found: list[ReportData] = []
    real = training.render_html
    monkeypatch.setattr(training, "render_html", lambda data: found.append(data) or real(data))
    es.train(*arguments, **named)
    return found[0]


def test_all_mistakes_are_counted_and_the_surest_shown(two: es.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(all_mistakes, "WORST", 7)
    data = shown(monkeypatch, two, "label")
    kept = es.out_of_fold(two, "label")
    wrong = kept.predicted != kept.target
    assert wrong.sum() > 7
    pairs = Counter(zip(kept.target[wrong].tolist(), kept.predicted[wrong].tolist(), strict=True))
    assert all(pairs[group.true, group.predicted] == group.items for group in data.confusions)
    cards = [card for group in data.confusions for card in group.mistakes]
    sure = kept.probabilities.max(axis=1)
    surest = np.flatnonzero(wrong)[np.argsort(-sure[wrong], kind="stable")][:7]
    assert {card.id for card in cards} == set(kept.ids[surest].tolist())
    assert all(card.true != card.predicted for card in cards)
    assert f"The 7 surest of {int(wrong.sum())} mistakes" in data.confusions_note
    assert [group.items for group in data.confusions] == sorted((group.items for group in data.confusions), reverse=True)


def test_inputs_that_disagree_say_what_each_says(two: es.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    data = shown(monkeypatch, two, "label")
    kept = es.out_of_fold(two, "label")
    differ = kept.alone["one"] != kept.alone["text"]
    said = {str(i): (a, b) for i, a, b in zip(kept.ids, kept.alone["one"], kept.alone["text"], strict=True)}
    assert 0 < len(data.disagreements) == min(int(differ.sum()), all_mistakes.DISAGREEMENTS)
    assert all((card.alone["one"], card.alone["text"]) == said[card.id] for card in data.disagreements)
    wrong = [card.true != card.predicted for card in data.disagreements]
    assert wrong == sorted(wrong, reverse=True)
    table = next(section for section in data.sections if section.title == "Inputs that disagree")
    assert sum(row[1] for row in table.rows) == differ.sum()
    label, items, *right = table.rows[0]
    assert label.startswith("one: ")
    assert all(count <= items for count in right)
    html = (two.path / "heads" / "label" / "report.html").read_text("utf-8")
    assert "Mistakes by confusion" in html
    assert "says" in html


def test_without_out_of_fold_predictions_the_items_judged_are_shown(two: es.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    data = shown(monkeypatch, two, "label", out_of_fold=0)
    assert data.confusions_note.startswith("Of the items judged.")
    assert not data.disagreements
    page = es.evaluate(two, "label", report=two.path.parent / "e.html").report
    assert "Mistakes by confusion" in Path(page).read_text("utf-8")


def test_one_input_has_nothing_to_disagree_with(two: es.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    data = shown(monkeypatch, two, "label", inputs=["text"])
    assert not data.disagreements
    assert not any(section.title == "Inputs that disagree" for section in data.sections)
