"""A removal can be repeated."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from embedstore_cli.main import app
from typer.testing import CliRunner

import embedstore as es
from embedstore.duplicates import find
from embedstore.sources import MemorySource


def test_removing_again_changes_nothing(store: es.Store) -> None:
    assert store.absent(["item-00", "no such", "no such"]) == ["no such"]
    once = store.remove(["item-00", "item-01", "no such"])
    assert len(once) == len(store) - 2
    again = once.remove(["item-00", "item-01", "no such"])
    assert (len(again), again.generation) == (len(once), once.generation)
    assert again.absent(["item-00", "item-02"]) == ["item-00"]


def test_remove_says_what_was_not_there(store: es.Store) -> None:
    ids = ["item-00", "a", "b", "c", "d"]
    done = CliRunner().invoke(app, ["remove", str(store.path), *ids, "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout) == {"removed": 1, "absent": ["a", "b", "c", "d"], "left": 11}
    assert done.stderr == "note: not there: 4 items ('a', 'b', 'c' …)\n"
    done = CliRunner().invoke(app, ["remove", str(store.path), "item-00"])
    assert (done.exit_code, done.stdout) == (0, "Removed 0; 11 items are left.\n")


def test_duplicates_are_removed_once(tmp_path: Path) -> None:
    path = tmp_path / "a.store"
    es.embed(MemorySource({"id": list("abcd"), "text": ["one", "one", "two", "one"]}), path, text="hash:8")
    report = find.find_duplicates(es.Store.open(path), exact_only=True)
    once = find.remove_duplicates(es.Store.open(path), report)
    assert len(once) == 2
    assert find.remove_duplicates(once, report).generation == once.generation
    es.embed(MemorySource({"id": ["b"], "text": ["one"]}), path, text="hash:8")
    with pytest.raises(es.errors.StoreError, match="Find them again"):
        find.remove_duplicates(es.Store.open(path), report)
