"""Models and indexes that were made elsewhere are tried in a child process: a crafted one is a line, never a signal."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import telling_store

import embedstore as es
from embedstore._core import foreign_files
from embedstore._core.folders import Folder
from embedstore.errors import CorruptStoreError
from embedstore.heads import trees
from embedstore.heads.boosted import GbdtHead
from embedstore.indexing import faiss_checks


@pytest.fixture(autouse=True)
def another_machine(own_cache: Path) -> None:
    """What fixtures made was made elsewhere."""
    (own_cache / "embedstore" / "loadable").unlink()


@pytest.fixture(scope="module")
def model() -> bytes:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(120, 4)).astype(np.float32), rng.integers(0, 3, 120)
    return GbdtHead(rounds=5).fit(X, y).state().files["model.ubj"]


def edited(model: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    """`model` with its JSON changed, as JSON, which XGBoost loads too."""
    import xgboost

    document = json.loads(xgboost.Booster(model_file=bytearray(model)).save_raw("json"))
    change(document)
    return json.dumps(document).encode()


def tree(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["learner"]["gradient_booster"]["model"]["trees"][0]
    return found


def far_feature(document: dict[str, Any]) -> None:
    tree(document)["split_indices"][0] = 1_000_000


def ring(document: dict[str, Any]) -> None:
    tree(document)["left_children"][1] = 0


def far_child(document: dict[str, Any]) -> None:
    tree(document)["right_children"][0] = 1_000_000


def far_class(document: dict[str, Any]) -> None:
    document["learner"]["gradient_booster"]["model"]["tree_info"][0] = 1_000_000


def many_features(document: dict[str, Any]) -> None:
    document["learner"]["learner_model_param"]["num_feature"] = "2000000000"


@pytest.mark.parametrize(
    "change",
    [far_feature, *(pytest.param(change, marks=pytest.mark.slow) for change in (ring, far_child, far_class, many_features))],
)
def test_trees_that_lead_nowhere_are_refused(model: bytes, change: Callable[[dict[str, Any]], None]) -> None:
    crafted = edited(model, change)
    with pytest.raises(CorruptStoreError) as refused:
        trees.load_booster(crafted, 4)
    assert "\n" not in str(refused.value)
    assert not foreign_files.is_remembered("xgboost", hashlib.sha256(crafted).hexdigest())


def test_a_model_made_here_is_loaded_at_once_and_one_made_elsewhere_tried_once(
    model: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[int] = []
    real = foreign_files.subprocess.run
    monkeypatch.setattr(foreign_files.subprocess, "run", lambda *a, **k: (ran.append(1), real(*a, **k))[1])
    assert trees.load_booster(model, 4).num_features() == 4  # the cache of a test is its own: this one is made elsewhere
    assert trees.load_booster(model, 4).num_features() == 4
    assert len(ran) == 1
    changed = trees.load_booster(model, 4)
    changed.set_attr(made="here")
    other = trees.saved_booster(changed)
    assert trees.load_booster(other, 4).attr("made") == "here"
    assert len(ran) == 1


def test_a_model_of_other_features_is_refused(model: bytes) -> None:
    with pytest.raises(CorruptStoreError, match="takes 4 features; its head has 5"):
        trees.load_booster(model, 5)


def test_a_child_that_takes_too_long_or_dies_is_one_line(model: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "crashing.py").write_text("import os, signal\ndef crash(data): os.kill(os.getpid(), signal.SIGSEGV)")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(CorruptStoreError, match="SIGSEGV"):
        foreign_files.try_once("xgboost", "0" * 64, "crashing:crash", data=model)
    with pytest.raises(CorruptStoreError, match="No module"):
        foreign_files.try_once("xgboost", "0" * 64, "nowhere:nothing", data=model)
    monkeypatch.setattr(foreign_files, "SECONDS", 0.01)
    with pytest.raises(CorruptStoreError, match=r"did not load it in 0\.01 s"):
        foreign_files.try_once("xgboost", "0" * 64, "embedstore.heads.trees:check_model", data=model)


CODED = ("HNSW16,SQfp16", "HNSW16,RaBitQ2", "IVF16,RaBitQ")


@pytest.fixture(scope="module", params=["HNSW16,Flat", "IVF16,SQ8", *(pytest.param(f, marks=pytest.mark.slow) for f in CODED)])
def indexed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> es.Store:
    path = tmp_path_factory.mktemp("indexed") / "a.store"
    vectors = np.random.default_rng(0).normal(size=(1500, 32)).astype(np.float32)
    es.import_vectors(vectors, path, modality="text", space="text")
    es.index(path, "text", factory=request.param)
    return es.Store.open(path)


def test_an_index_made_elsewhere_is_tried_once_and_used(indexed: es.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[int] = []
    real = foreign_files.subprocess.run
    monkeypatch.setattr(foreign_files.subprocess, "run", lambda *a, **k: (ran.append(1), real(*a, **k))[1])
    first = es.search(indexed, id="1")
    assert not first.index["exact"], first
    files = len(list((indexed.path / "spaces/text/index").glob("*.faiss")))
    assert len(ran) == files  # the cache of a test is its own
    assert es.search(indexed, id="1").results == first.results
    assert len(ran) == files


def test_a_graph_that_leads_nowhere_is_not_used(indexed: es.Store, tmp_path: Path) -> None:
    import faiss

    (path,) = (indexed.path / "spaces/text/index").glob("base-*.faiss")
    index = faiss.read_index(str(path))
    copy = Path(shutil.copy(path, tmp_path / "base.faiss"))
    faiss_checks.try_index(copy, hashlib.sha256(copy.read_bytes()).hexdigest())
    if isinstance(index, faiss.IndexHNSW):
        links = faiss.vector_to_array(index.hnsw.neighbors)
        links[5] = 1_000_000
        faiss.copy_array_to_vector(links, index.hnsw.neighbors)
    else:
        faiss.rev_swig_ptr(index.invlists.get_ids(0), 1)[0] = 1_000_000
    faiss.write_index(index, str(copy))
    with pytest.raises(CorruptStoreError):
        faiss_checks.try_index(copy, hashlib.sha256(copy.read_bytes()).hexdigest())


def test_a_hostile_index_is_not_used_and_the_answer_says_so(tmp_path: Path) -> None:
    """With digests that fit: only its author could have made them so."""
    from embedstore.store.indexes import IndexRecord

    store = telling_store(tmp_path / "a.store", 300)
    es.index(store, "text", factory="HNSW16,Flat")
    folder = tmp_path / "a.store" / "spaces" / "text" / "index"
    record = IndexRecord.read(folder)
    assert record is not None
    entry = record.files["faiss"]
    data = bytearray((folder / entry.file).read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    (folder / entry.file).write_bytes(data)
    crafted = replace(entry, sha256=hashlib.sha256(data).hexdigest())
    with Folder.at(folder) as opened:
        replace(record, files={**record.files, "faiss": crafted}).write(opened)
    result = es.search(es.Store.open(store.path), id="i1")
    assert result.index["exact"]
    assert result.note is not None
    assert "The index is not used" in result.note
