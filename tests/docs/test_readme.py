"""Every block of the README is executed, in order, as a new user would."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest
from helpers import ROOT
from notebooks import run_notebook

BLOCK = re.compile(r"(<!-- fresh:\w+ -->\n)?```(\w+)\n(.*?)```", re.DOTALL)


def blocks() -> list[tuple[str, str, str]]:
    return [(mark.strip(), kind, body) for mark, kind, body in BLOCK.findall((ROOT / "README.md").read_text("utf-8"))]


@pytest.mark.slow
@pytest.mark.offline_models
def test_readme_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an empty folder and one notebook without ipywidgets, from first to last; installing is left to the environment."""
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "embedstore"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "from embedstore_cli.main import main; main()" "$@"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    cells = []
    for mark, kind, body in blocks():
        if kind == "text" or "fresh:test" in mark:
            continue
        code = re.sub(r"^(python3 -m venv|pip install).*\n", "", body, flags=re.MULTILINE)
        cells.append(f"%%script bash -euo pipefail\n{code}" if kind == "bash" else code)
    (tmp_path / "empty").mkdir()
    outputs = run_notebook(cells, tmp_path / "empty")
    demo = outputs[0]
    found = re.findall(r"^ (\S.*?) +([\d.]+) \[([\d.]+), [\d.]+\]", demo, flags=re.MULTILINE)
    scores = {name: (float(value), float(low)) for name, value, low in found}
    both, image, text = (scores[f"linear ({name})"] for name in ("image + text", "image", "text"))
    assert both[0] >= max(image[0], text[0]) - (both[0] - both[1])


def test_the_shown_table_is_real() -> None:
    """The README's own table names the heads that the demo prints."""
    shown = next(body for _, kind, body in blocks() if kind == "text")
    for name in ("linear (image + text)", "majority class", "kNN (k = 8)", "linear (image)", "linear (text)"):
        assert name in shown


def test_commands_named_in_the_readme_exist() -> None:
    from embedstore_cli.main import app

    text = (ROOT / "README.md").read_text("utf-8")
    known = {command.callback.__name__.replace("_", "-") for command in app.registered_commands if command.callback}
    assert set(re.findall(r"^embedstore ([\w-]+)", text, flags=re.MULTILINE)) == known
