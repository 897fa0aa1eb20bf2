"""Every block of the README and of docs/ is executed, as a new user would: the README first, then any page."""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import forked
import pytest
from helpers import server, write_csv
from notebooks import run_notebook
from pages import PAGES, README, blocks

START = "The commands start from `demo-data/` and `my.store`, as the [five commands](../README.md#five-commands) leave them."
RUNNABLE = [page for page in PAGES if any(block.kind != "text" for block in blocks(page))]
INSTALLING = r"^python3 -m venv .*? && (?=embedstore)"
"""What the line of the README's first block does before it runs the demo; the environment of the tests has done it."""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The command `embedstore` of this checkout, without a second of imports for each, and no hub."""
    command = tmp_path_factory.mktemp("bin") / "embedstore"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -ISE "{forked.__file__}" ask "{server()}" "$@"\n')
    command.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield


class Reader:
    """A new user's folder, what the README's blocks printed in it, and what pages start from."""

    def __init__(self, root: Path) -> None:
        self.folder, self._kept = root / "empty", root / "before a page"
        self.folder.mkdir()
        cells = []
        for mark, kind, body in blocks(README):
            if kind == "text" or mark == "fresh:test":
                continue
            code = re.sub(INSTALLING, "", body)
            cells.append(f"%%script bash -euo pipefail\n{code}" if kind == "bash" else code)
        self.outputs = run_notebook(cells, self.folder)
        self._take_fewer()
        shutil.copytree(self.folder, self._kept)

    def _take_fewer(self) -> None:
        """The five commands once more with every third item, and those that pages name: pages are as true of fewer items."""
        named = "".join(block.body for page in PAGES for block in blocks(page))
        manifest = self.folder / "demo-data" / "manifest.csv"
        with open(manifest, encoding="utf-8", newline="") as file:
            rows = [row for i, row in enumerate(csv.DictReader(file)) if i % 3 == 0 or row["id"] in named]
        write_csv(manifest, rows)
        shutil.rmtree(self.folder / "my.store")
        (five,) = (block.body for block in blocks(README) if block.body.startswith("embedstore embed"))
        subprocess.run(["bash", "-euo", "pipefail", "-c", five], cwd=self.folder, capture_output=True, check=True)

    def back_to_the_start(self) -> None:
        """The folder as pages start from it, so that no page needs another page."""
        shutil.rmtree(self.folder)
        shutil.copytree(self._kept, self.folder)


@pytest.fixture(scope="module")
def reader(environment: None, tmp_path_factory: pytest.TempPathFactory) -> Reader:
    return Reader(tmp_path_factory.mktemp("reader"))


@pytest.mark.slow
@pytest.mark.offline_models
def test_readme_blocks_run(reader: Reader) -> None:
    """In an empty folder and one notebook without ipywidgets, from first to last; installing is left to the environment."""
    demo = reader.outputs[0]
    found = re.findall(r"^ (\S.*?) +([\d.]+) \[([\d.]+), [\d.]+\]", demo, flags=re.MULTILINE)
    scores = {name: (float(value), float(low)) for name, value, low in found}
    both, image, text = (scores[f"linear ({name})"] for name in ("image + text", "image", "text"))
    assert both[0] >= max(image[0], text[0]) - (both[0] - both[1])


@pytest.mark.slow
@pytest.mark.offline_models
@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: page.stem)
def test_page_blocks_run(page: Path, reader: Reader) -> None:
    """From first to last, in what the README's commands leave, without what other pages made."""
    reader.back_to_the_start()
    for _, kind, body in blocks(page):
        if kind != "text":
            command = ["bash", "-euo", "pipefail"] if kind == "bash" else ["embedstore"]
            done = subprocess.run([*command, "-c", body], cwd=reader.folder, capture_output=True, text=True)
            assert done.returncode == 0, f"{page.name}:\n{body}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: page.stem)
def test_pages_say_what_they_start_from(page: Path) -> None:
    assert START in page.read_text("utf-8").splitlines()


def test_blocks_are_of_known_kinds() -> None:
    """A block of another kind would not be executed."""
    for page in (README, *PAGES):
        assert {block.kind for block in blocks(page)} <= {"bash", "python", "text"}, page
        assert len(blocks(page)) * 2 == page.read_text("utf-8").count("```"), f"{page}: a block without a kind"


@pytest.mark.parametrize("mark", ["fresh:run", "fresh:test"])
def test_one_line_sets_everything_up(mark: str) -> None:
    """In an environment of its own, with the registry that the user's pip is set up for."""
    (body,) = (block.body for block in blocks(README) if block.mark == mark)
    steps = body.strip().split(" && ")
    assert len(body.splitlines()) == 1
    assert steps[:2] == ["python3 -m venv .venv", ". .venv/bin/activate"]
    assert steps[2].startswith("pip install ")
    assert "index" not in body
    assert "://" not in body


def test_the_shown_table_is_real() -> None:
    """The README's own table names the heads that the demo prints."""
    shown = next(body for _, kind, body in blocks(README) if kind == "text")
    for name in ("linear (image + text)", "majority class", "kNN (k = 8)", "linear (image)", "linear (text)"):
        assert name in shown


def test_commands_named_in_the_readme_exist() -> None:
    """And every command that there is stands in a block that is executed."""
    from embedstore_cli.main import app

    known = {command.callback.__name__.replace("_", "-") for command in app.registered_commands if command.callback}
    text = "".join(block.body for page in (README, *PAGES) for block in blocks(page) if block.kind == "bash")
    assert set(re.findall(r"(?:^|&& )embedstore ([\w-]+)", text, flags=re.MULTILINE)) == known
