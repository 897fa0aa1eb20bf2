"""What the README and docs/ name is there: pages, headings, files, modules, and every wing of the package."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest
from helpers import ROOT
from pages import PAGES, README, prose
from test_layers import RANK

PACKAGE = ROOT / "embedstore"
DOCUMENTS = [README, *PAGES, PACKAGE / "store" / "FORMAT.md", ROOT / "benchmarks" / "RESULTS.md"]
HOW = ROOT / "docs" / "how-it-works.md"


def links(document: Path) -> list[str]:
    """Targets of links inside the repository."""
    targets = re.findall(r"\]\(([^)\s]+)\)", prose(document))
    return [target for target in targets if "://" not in target]


def anchors(document: Path) -> set[str]:
    """Headings as GitHub makes anchors of them."""
    headings = re.findall(r"^#+ (.+)$", prose(document), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_links_lead_somewhere(document: Path) -> None:
    for link in links(document):
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), f"{document.name} links to {link}"
        assert target.is_relative_to(ROOT), f"{document.name} links to {link}"
        assert not anchor or anchor in anchors(target), f"{document.name} links to {link}"


def test_the_readme_leads_to_every_page() -> None:
    assert {link for link in links(README) if link.startswith("docs/")} == {f"docs/{page.name}" for page in PAGES}


@pytest.mark.parametrize("document", [README, *PAGES], ids=lambda path: path.stem)
def test_modules_and_files_named_are_there(document: Path) -> None:
    """`embedstore.a.b.Name` can be imported; `a/b.py` is a file of the package, or of the repository."""
    for word in re.findall(r"`([^`\n]+)`", prose(document)):
        if re.fullmatch(r"embedstore(\.\w+)+", word):
            module, _, name = word.rpartition(".")
            assert hasattr(import_module(module), name) or import_module(word), f"{document.name} names {word}"
        if re.fullmatch(r"[\w/.-]+\.py", word):
            assert (PACKAGE / word).is_file() or (ROOT / word).is_file(), f"{document.name} names {word}"


def test_every_wing_has_a_line_lowest_first() -> None:
    told = re.findall(r"^\| \[`(\w+)/`\]\(\.\./embedstore/(\w+)\) \|", HOW.read_text("utf-8"), flags=re.MULTILINE)
    names = [name for name, _ in told]
    assert all(name == folder for name, folder in told)
    assert sorted(names) == sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
    assert [RANK[name] for name in names] == sorted(RANK[name] for name in names)
