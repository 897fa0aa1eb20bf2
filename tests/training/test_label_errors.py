"""Labels that are likely wrong: planted ones are found, ranked first, and can be handed back."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import Telling, run, telling_store

import embedstore as es
from embedstore.errors import HeadError, MissingDependencyError, UsageError
from embedstore.evaluation.label_errors import label_quality
from embedstore.sources import MemorySource
from embedstore.training.labels_options import RANKINGS

N, SHARE = 400, 0.05


def planted(path: Path, spread: float = 0.35) -> tuple[es.Store, set[str], dict[str, str]]:
    """Two inputs that both tell one of four classes; 5 % of the labels are another class, and some texts of another item."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, N)
    wrong = rng.permutation(N)[: round(SHARE * N)]
    given = y.copy()
    given[wrong] = (y[wrong] + rng.integers(1, 4, len(wrong))) % 4
    x = np.concatenate([np.eye(4)[y] + rng.normal(0, spread, (N, 4)) for _ in "ab"], axis=1)
    texts = [" ".join(f"{v:.4f}" for v in row) for row in x]

    class Half(Telling):
        def encode(self, batch):  # type: ignore[no-untyped-def]
            return super().encode(batch)[:, :4] if self.spec.name == "a" else super().encode(batch)[:, 4:]

    ids = [f"i{i}" for i in range(N)]
    data = {"id": ids, "text": texts, "label": ["wxyz"[k] for k in given], "n": list(range(N))}
    es.embed(MemorySource(data), path, text={name: Half(4, "text", name) for name in "ab"})
    truth = {i: "wxyz"[k] for i, k in zip(ids, y.tolist(), strict=True)}
    return es.Store.open(path), {ids[i] for i in wrong.tolist()}, truth


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[es.Store, set[str], dict[str, str]]:
    found = planted(tmp_path_factory.mktemp("planted") / "s")
    es.train(found[0], "label", report=False)
    return found


def test_planted_errors_are_found(trained: tuple[es.Store, set[str], dict[str, str]]) -> None:
    store, wrong, truth = trained
    found = es.labels(store, "label", n=len(wrong))
    top = {one.id for one in found.suspects}
    assert len(top & wrong) / len(top) >= 0.9  # as many are listed as were planted: precision and recall are one
    assert [one.quality for one in found.suspects] == sorted(one.quality for one in found.suspects)
    right = [one.proposed == truth[one.id] for one in found.suspects if one.id in wrong]
    assert np.mean(right) >= 0.9
    held = es.labels(store, "label")
    names = {one.id for one in held.suspects}
    assert len(names & wrong) >= 0.8 * max(len(names), len(wrong) - 4)
    assert all(one.wrong for one in held.suspects)
    assert (held.items, held.held) == (N, len(held.suspects))
    assert 0.5 * len(wrong) <= held.estimated <= 2 * len(wrong)


def test_it_is_what_cleanlab_says(trained: tuple[es.Store, set[str], dict[str, str]]) -> None:
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    kept = es.out_of_fold(trained[0], "label")
    p = kept.probabilities.astype(np.float64)
    p /= p.sum(axis=1, keepdims=True)
    ranked = find_label_issues(kept.codes, p, return_indices_ranked_by="self_confidence", n_jobs=1)
    assert [one.id for one in es.labels(trained[0], "label").suspects] == kept.ids[ranked].tolist()
    for method in RANKINGS:
        ours = label_quality(kept.codes, kept.probabilities, method=method).score
        np.testing.assert_allclose(ours, get_label_quality_scores(kept.codes, p, method=method))


def test_inputs_that_disagree(trained: tuple[es.Store, set[str], dict[str, str]]) -> None:
    found = es.labels(trained[0], "label", n=N, disagree=True)
    assert len(found.suspects) == found.disagree > 0
    assert all(one.disagree and one.alone["a"] != one.alone["b"] for one in found.suspects)
    every = es.labels(trained[0], "label", n=N)
    assert len(every.suspects) == N
    assert sum(one.alone["a"] != one.alone["b"] for one in every.suspects) == found.disagree
    some = es.labels(trained[0], "label", n=N, where="n < 50")
    assert {int(one.id[1:]) for one in some.suspects} == set(range(50))


def test_one_input_disagrees_with_nothing(tmp_path: Path) -> None:
    store = telling_store(tmp_path / "s")
    es.train(store, "label", report=False)
    found = es.labels(store, "label", n=5)
    assert (found.disagree, found.inputs) == (0, [])
    assert es.labels(store, "label", n=5, disagree=True).suspects == []
    assert "only:" not in found.save(tmp_path / "w.csv").read_text()


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_files(trained: tuple[es.Store, set[str], dict[str, str]], tmp_path: Path, suffix: str) -> None:
    import pyarrow.parquet as pq

    found = es.labels(trained[0], "label", n=7)
    path = found.save(tmp_path / f"w{suffix}")
    names = ["id", "given", "proposed", "quality", "probability", "wrong", "disagree", "only:a", "only:b"]
    if suffix == ".csv":
        with path.open(encoding="utf-8") as file:
            assert list(next(csv.reader(file))) == names
    elif suffix == ".parquet":
        assert pq.read_table(path).column_names == names
        assert pq.read_table(path).column("id").to_pylist() == [one.id for one in found.suspects]
    else:
        assert list(json.loads(path.read_text().splitlines()[0])) == names
    with pytest.raises(UsageError, match="should end in one of"):
        found.save(tmp_path / "w.txt")


def test_the_command_and_its_page(trained: tuple[es.Store, set[str], dict[str, str]], tmp_path: Path) -> None:
    done = run("labels", trained[0].path, "label", "--json", "--report", tmp_path / "w.html", "--out", tmp_path / "w.csv")
    document = json.loads(done.stdout)
    assert document.keys() == {
        *("head", "target", "items", "estimated", "held", "disagree", "method", "suspects", "seconds", "notes", "report")
    }
    assert document["suspects"][0].keys() == {
        *("id", "given", "proposed", "quality", "probability", "wrong", "disagree", "alone")
    }
    page = (tmp_path / "w.html").read_text("utf-8")
    assert "Labels that may be wrong" in page
    assert document["suspects"][0]["id"] in page
    assert "Evaluation report" not in page
    said = run("labels", trained[0].path, "label", "-n", "3").stdout
    assert "are estimated to be wrong" in said
    assert "only b" in said


def test_labels_that_changed_since_are_left_out(tmp_path: Path) -> None:
    store = telling_store(tmp_path / "s")
    es.train(store, "label", report=False)
    first = es.labels(store, "label", n=1).suspects[0]
    store.remove([first.id])
    found = es.labels(tmp_path / "s", "label", n=200)
    assert first.id not in {one.id for one in found.suspects}
    assert found.notes == ["1 items are gone since the head was trained, and are left out"]


def test_what_cannot_be_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = telling_store(tmp_path / "s")
    es.train(store, "n", report=False)
    with pytest.raises(HeadError, match="'n' predicts numbers"):
        es.labels(store, "n")
    es.train(store, "label", report=False)
    for name, value in {"n": 0, "method": "x", "disagree": "yes"}.items():
        with pytest.raises(UsageError, match=name):
            es.labels(store, "label", **{name: value})  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "cleanlab", None)
    for module in [m for m in sys.modules if m.startswith("cleanlab.")]:
        monkeypatch.delitem(sys.modules, module)
    with pytest.raises(MissingDependencyError, match=r"pip install 'embedstore\[labels\]'"):
        es.labels(store, "label")
