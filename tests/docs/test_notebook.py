"""In a notebook: the first call works without ipywidgets, and nothing is drawn."""

from __future__ import annotations

from pathlib import Path

from notebooks import run_notebook


def test_the_first_calls_in_a_notebook_without_widgets(table: Path) -> None:
    cells = [
        "import embedstore as es\nes.embed('table.csv', 'a.store', image='hash:32', text='hash:16')",
        "print(len(es.search('a.store', text='text 1', where='price > 3').results))",
        "print(es.train('a.store', 'label', cv=3).head)",
    ]
    assert [text.strip() for text in run_notebook(cells, table.parent)[1:]] == ["8", "label"]
