"""Heads are listed, renamed and deleted, each with one rename; training over one is asked for."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest
from helpers import run, telling_store

import embedstore as es
from embedstore.errors import HeadError, UsageError


@pytest.fixture
def trained(tmp_path: Path) -> es.Store:
    store = telling_store(tmp_path / "a.store", n=80)
    es.train(store, "label", out_of_fold=0, report=False)
    return store


def test_heads_are_listed(trained: es.Store) -> None:
    es.train(trained, "n", name="number", task="regression", out_of_fold=0, report=False)
    damaged = trained.path / "heads" / "number" / "head.json"
    first, second = es.list_heads(trained)
    assert (first.name, first.task, first.target, first.kind) == ("label", "classification", "label", "linear")
    assert (first.inputs, first.metric, second.task) == (["text"], "accuracy", "regression")
    assert first.score is not None
    assert first.bytes == sum(f.stat().st_size for f in (trained.path / "heads" / "label").iterdir())
    damaged.write_text("{")
    assert [bool(head.problem) for head in es.list_heads(trained)] == [False, True]
    document = json.loads(run("heads", trained.path, "--json").stdout)
    assert [head["name"] for head in document["heads"]] == ["label", "number"]
    assert "note: " in run("heads", trained.path).stdout
    run("heads", trained.path, "--delete", "number")
    assert trained.heads == ["label"]


def test_a_renamed_head_predicts_as_before(trained: es.Store) -> None:
    before = es.predict(trained, "label")
    es.rename_head(trained, "label", "topic")
    assert trained.heads == ["topic"]
    np.testing.assert_array_equal(es.predict(trained, "topic").probabilities, before.probabilities)
    assert es.verify(trained).clean
    es.train(trained, "label", out_of_fold=0, report=False)  # the name is free
    with pytest.raises(HeadError, match=r"has a head 'label' already\. Delete it first"):
        es.rename_head(trained, "topic", "label")
    with pytest.raises(UsageError, match=r"has no head 'none'\. Heads: label, topic"):
        es.rename_head(trained, "none", "x")
    with pytest.raises(UsageError, match="cannot name a head"):
        es.rename_head(trained, "label", "../x")


def test_a_deleted_head_is_gone(trained: es.Store) -> None:
    es.delete_head(trained, "label")
    assert list((trained.path / "heads").iterdir()) == []
    assert trained.heads == es.list_heads(trained) == []
    with pytest.raises(UsageError, match=r"has no head 'label'\. Heads: none"):
        es.delete_head(trained, "label")
    assert "has no heads yet" in run("heads", trained.path).stdout


def test_a_link_in_a_head_is_not_followed(trained: es.Store, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("mine")
    (trained.path / "heads" / "label" / "link").symlink_to(kept)
    es.delete_head(trained, "label")
    assert (kept / "file").read_text() == "mine"


def test_a_kill_while_deleting_leaves_no_head_and_no_rest(trained: es.Store) -> None:
    es.train(trained, "label", name="other", out_of_fold=0, report=False)
    script = (
        "import os, signal, embedstore as es\nfrom embedstore._core.folders import Folder\n"
        "Folder.remove = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"es.delete_head({str(trained.path)!r}, 'label')"
    )
    run("-c", script, code=-signal.SIGKILL)
    assert trained.heads == ["other"]
    assert len(list((trained.path / "heads").iterdir())) > 1
    assert es.verify(trained).clean
    es.train(trained, "label", out_of_fold=0, report=False)
    es.delete_head(trained, "other")
    assert sorted(path.name for path in (trained.path / "heads").iterdir()) == [".label.lock", "label"]


def test_a_head_is_trained_over_where_that_is_asked_for(trained: es.Store) -> None:
    before = (trained.path / "heads" / "label" / "head.json").read_bytes()
    message = r"head 'label' \(linear on text, saved .*, accuracy .*\) is there already\. Train over it: --replace\. Keep both:"
    with pytest.raises(HeadError, match=message):
        es.train(trained, "label", head="ridge", report=False)
    assert (trained.path / "heads" / "label" / "head.json").read_bytes() == before
    assert "--replace" in run("train", trained.path, "label", code=1).stderr
    report = es.train(trained, "label", head="ridge", replace=True, out_of_fold=0, report=False)
    assert any("was replaced; --name keeps both" in note for note in report.notes)


def test_a_head_saved_meanwhile_is_kept(trained: es.Store) -> None:
    """Two trainings began under one name: the second to end says so."""
    from embedstore.heads.io import load_head, save_head

    folder = trained.path / "heads" / "label"
    with pytest.raises(HeadError, match="is there already"):
        save_head(folder, load_head(folder), {}, replacing=False)
