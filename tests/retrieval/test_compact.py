"""Compaction: less on disk, the same answers; names and rows are used once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers import Telling, run_killed, telling_store

import embedstore as es
from embedstore._core import folders
from embedstore.errors import StoreError
from embedstore.retrieval.index import index
from embedstore.sources import MemorySource
from embedstore.store import rewrite as compacting
from embedstore.store.rewrite import worth_compacting


def add(path: Path, ids: list[str], texts: list[str] | None = None, **columns: Any) -> None:
    data = {"id": ids, "text": texts or [f"{i} 1 2" for i in range(len(ids))], **columns}
    es.embed(MemorySource(data), path, text=Telling(3, "text", "telling"))


def contents(path: Path) -> dict[str, Any]:
    """Everything that a reader sees: rows, items, vectors, hashes, failures."""
    store = es.Store.open(path)
    spaces = {}
    for name, space in store.spaces.items():
        rows = np.sort(space.rows)
        spaces[name] = (rows.tolist(), space.take(rows).tolist(), space.hash_of(rows).tolist(), space.failures.to_pylist())
    return {"items": store.items.table().to_pylist(), "spaces": spaces}


def files(store: es.Store) -> set[str]:
    return {ref.file for ref in store.manifest.refs()}


def test_removed_rows_go_and_the_rest_stays(store: es.Store) -> None:
    store = store.remove(["item-03", "item-07"]).remove(["item-00"])
    before = contents(store.path)
    report = es.compact(store)
    after = store.refresh()
    assert contents(store.path) == before
    assert report.reason == "3 rows (25%) were removed or replaced"
    assert not len(after.dead)
    assert not after.manifest.tombstones
    assert not files(after) & files(store)
    assert report.files == (len(files(store)), len(files(after)))
    assert report.bytes[1] == sum((store.path / file).stat().st_size for file in files(after))
    checked = es.verify(after)
    assert (checked.clean, checked.notes) == (True, [])
    again = es.compact(after)
    assert (again.reason, again.indexes) == ("", {})
    assert files(after.refresh()) == files(after)
    assert es.compact(after, force=True).reason == "asked for"
    assert contents(store.path) == before


def test_failures_stay_and_nothing_is_embedded_again(table: Path, tmp_path: Path) -> None:
    (table.parent / "images" / "2.png").unlink()
    es.embed(table, tmp_path / "s", image="hash:8", text="hash:8")
    store = es.Store.open(tmp_path / "s").remove(["item-05"])
    before = contents(store.path)
    assert len(before["spaces"]["image"][3]) == 1
    es.compact(store)
    assert contents(store.path) == before
    report = es.embed(table, store.path)
    assert report.added == 1  # the removed one
    assert report.spaces["image"].embedded == 1
    assert es.verify(store.path).clean


def test_every_tool_still_opens_it(store: es.Store) -> None:
    store = store.remove(["item-03"])
    es.compact(store)
    space = store.refresh().space("image")
    with h5py.File(store.path / "embeddings.h5", "r") as h5:
        np.testing.assert_array_equal(h5["image"]["vectors"][()], space.vectors())
        np.testing.assert_array_equal(h5["image"]["row"][()], space.rows)


def test_heads_still_predict(tmp_path: Path) -> None:
    store = telling_store(tmp_path / "a.store")
    es.train(store, "label", report=False)
    store = store.remove(["i3", "i4"])
    before = es.predict(store, "label")
    es.compact(store)
    after = es.predict(store.path, "label")
    assert list(after.ids) == list(before.ids)
    assert list(after.labels) == list(before.labels)
    assert es.evaluate(store.path, "label").to_dict()["metrics"]


def test_small_parts_are_joined_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.store"
    for i in range(10):
        add(path, [f"{i}-{j}" for j in range(3)])
    before = contents(path)
    report = es.compact(path)
    store = es.Store.open(path)
    assert report.reason == "space 'text' lies in 10 parts of 3 vectors"
    assert (len(store.manifest.items), len(store.space("text").parts)) == (1, 1)
    assert contents(path) == before
    monkeypatch.setattr(compacting, "PART_BYTES", 2 * 3 * 2)  # two vectors a part
    es.compact(path, force=True)
    store = es.Store.open(path)
    assert len(store.space("text").parts) == 15
    assert worth_compacting(store) is None  # parts of the largest size are not small
    assert contents(path) == before


def test_rows_ascend_within_a_part(tmp_path: Path) -> None:
    """Vectors that were embedded after later items: parts whose rows do not ascend are joined into one whose rows do."""
    path = tmp_path / "a.store"
    add(path, ["a", "b"])
    es.embed(MemorySource({"id": ["c", "d"], "text": [None, "1 1 1"]}), path, text=Telling(3, "text", "telling"))
    other = {"other": Telling(3, "text", "other")}
    es.embed(MemorySource({"id": ["d"], "text": ["1 1 1"]}), path, text=other)
    es.embed(MemorySource({"id": ["a"], "text": ["0 1 2"]}), path, text=other)
    before = contents(path)
    assert (np.diff(es.Store.open(path).space("other").rows) < 0).any()
    es.compact(path, force=True)
    store = es.Store.open(path)
    assert (np.diff(store.space("other").rows) > 0).all()
    assert contents(path) == before


def test_rows_and_names_are_used_once(tmp_path: Path) -> None:
    path = tmp_path / "a.store"
    seen: dict[str, str] = {}
    highest = -1

    def look() -> None:
        nonlocal highest
        manifest = es.Store.open(path).manifest
        for ref in manifest.refs():
            assert seen.setdefault(ref.file, ref.sha256) == ref.sha256, f"{ref.file} was another file before"
        assert manifest.next_row > highest or not len(es.Store.open(path))
        highest = max(highest, manifest.next_row - 1)

    for round_ in range(3):
        ids = [f"{round_}-{i}" for i in range(4)]
        add(path, ids)
        look()
        rows = es.Store.open(path).items.rows
        assert rows.tolist() == list(range(4 * round_, 4 * round_ + 4))
        es.Store.open(path).remove(ids[:1])
        look()
        es.Store.open(path).remove(ids[1:])  # everything
        look()
        es.compact(path)
        look()
        assert len(es.Store.open(path)) == 0
        assert not files(es.Store.open(path))
        assert es.verify(path).clean


def test_a_reader_from_before_is_never_given_other_files(tmp_path: Path) -> None:
    """Tombstones of one size under one name would be taken for its own. Without leases, as on a file system without locks."""
    path = tmp_path / "a.store"
    add(path, ["a", "b", "c", "d"])
    shutil.rmtree(path / "leases")
    old = es.Store.open(path).remove(["a"])
    shutil.rmtree(path / "leases")
    old = old.refresh()
    es.compact(path)
    es.Store.open(path).remove(["b"])
    with pytest.raises(StoreError, match=r"was compacted after it was opened. Open it again\."):
        len(old)
    assert len(old.refresh()) == 2


def test_a_reader_with_mapped_vectors_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "a.store"
    add(path, ["a", "b", "c"])
    old = es.Store.open(path)
    searcher = es.Searcher(old, resident=True)
    before = searcher.search(id="a", k=2, columns=[])
    vectors = old.space("text").vectors()
    copy = np.array(vectors)
    es.Store.open(path).remove(["b"])
    es.compact(path)
    np.testing.assert_array_equal(vectors, copy)
    assert [hit.id for hit in es.search(old, id="a").results] == ["b", "c"]
    assert [hit.id for hit in es.search(old.refresh(), id="a").results] == ["c"]
    assert {hit.id for hit in before.results} == {"b", "c"}


@pytest.mark.parametrize("at", range(1, 7))
def test_a_kill_leaves_the_old_or_the_new(tmp_path: Path, at: int) -> None:
    path = tmp_path / "a.store"
    add(path, [f"i{i}" for i in range(30)], n=list(range(30)))
    index(path, factory="IVF2,SQ8", recall=0.5)
    es.Store.open(path).remove(["i3", "i9"])
    before = contents(path)
    run_killed(path, "compact", {}, at)
    assert contents(path) == before
    assert es.verify(path).clean
    assert len(es.search(path, vector=np.ones(3), k=100).results) == 28
    es.compact(path, force=True)
    assert contents(path) == before
    checked = es.verify(path)
    assert (checked.clean, checked.notes) == (True, [])


def test_a_kill_leaves_no_combined_file_of_parts_that_are_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HDF5 would read zeros there, without an error."""
    path, combined = tmp_path / "a.store", tmp_path / "a.store" / "embeddings.h5"
    telling_store(path, n=20).remove(["i3"])
    renamed = []
    with monkeypatch.context() as counting:
        counting.setattr(folders, "publish", lambda *names, real=folders.publish: renamed.append(names[2]) or real(*names))
        es.compact(shutil.copytree(path, tmp_path / "copy"))
    assert renamed[-1] == "embeddings.h5"
    assert run_killed(path, "compact", {}, len(renamed))
    assert not combined.exists()
    with es.Store.open(path).writer():
        pass
    with h5py.File(combined) as h5:
        np.testing.assert_array_equal(h5["text/vectors"][:], es.Store.open(path).space("text").vectors())


def test_indexes_are_built_again_as_they_were(tmp_path: Path) -> None:
    store = telling_store(tmp_path / "a.store", n=300)
    np.save(tmp_path / "q.npy", np.random.default_rng(0).standard_normal((40, 3)))
    report = index(store, factory="IVF4,SQ8", recall=0.6, at=5, queries=tmp_path / "q.npy")
    assert report.type == "IVF4,SQ8"
    assert es.compact(store).indexes == {"text": "kept"}
    add(store.path, [f"new{i}" for i in range(20)])
    assert es.compact(store).indexes == {"text": "kept"}  # a fifteenth is searched beside it
    add(store.path, [f"newer{i}" for i in range(20)])
    assert es.compact(store).indexes == {"text": "built again: 40 vectors came and 0 went since"}
    store.refresh().remove(["i7"])
    report_ = es.compact(store)
    assert "was compacted" in report_.indexes["text"]
    folder = store.space("text").index_folder
    record = json.loads((folder / "index.json").read_text())["index"]
    assert (record["report"]["type"], record["report"]["at"], record["report"]["target"]) == ("IVF4,SQ8", 5, 0.6)
    assert record["report"]["levels"][0]["recall"].keys() == {"held out", "q.npy"}
    assert es.compact(store).indexes == {"text": "kept"}
    assert es.compact(store, force=True).indexes == {"text": "built again: asked for"}
    (tmp_path / "q.npy").unlink()
    failed = es.compact(store, force=True)
    assert failed.indexes["text"].startswith("not built again: ")
    assert "q.npy" in failed.indexes["text"]
    result = es.search(store.path, id="i8")
    assert result.index["exact"]
    assert "The index is not used" in (result.note or "")
    assert es.verify(store.path).clean


def test_a_damaged_index_is_built_again(tmp_path: Path) -> None:
    store = telling_store(tmp_path / "a.store", n=100)
    index(store, factory="IVF4,SQ8", recall=0.5)
    (store.space("text").index_folder / "index.json").write_text("{")
    assert es.compact(store).indexes["text"].startswith("built again: The index is not used")
    assert es.verify(store.path).clean


@pytest.mark.parametrize("files", ["items/*.parquet", *(f"spaces/text/{n}" for n in ("*.h5", "space.json", "index/*.faiss"))])
@pytest.mark.parametrize("missing", [True, False])
def test_nothing_says_to_run_what_is_running(tmp_path: Path, files: str, missing: bool) -> None:
    store = telling_store(tmp_path / "a.store", n=100)
    index(store, factory="IVF4,SQ8", recall=0.5)
    damaged = next(store.path.glob(files))
    damaged.unlink() if missing else damaged.write_bytes(damaged.read_bytes()[:-7])
    problems = " ".join(es.verify(store.path).problems)
    assert damaged.name in problems
    assert "embedstore verify" not in problems
    assert "Errno" not in problems
    try:
        said = " ".join(es.compact(store.path).indexes.values())
    except es.errors.EmbedstoreError as error:
        said = str(error)
    assert "embedstore compact" not in said
    assert not ("built again: " in said and "build it again" in said)


def test_empty_stores(tmp_path: Path) -> None:
    path = tmp_path / "a.store"
    es.Store.open(path, create=True)
    for force in (False, True):
        assert es.compact(path, force=force).indexes == {}
        assert es.verify(path).clean
    add(path, ["a"], n=[1])
    es.Store.open(path).remove(["a"])
    es.compact(path)
    store = es.Store.open(path)
    assert (len(store), len(store.space("text"))) == (0, 0)
    assert es.search(store, vector=np.ones(3)).results == []
    add(path, ["a"], n=[1])
    assert [hit.id for hit in es.search(path, vector=np.ones(3), where="n = 1").results] == ["a"]


def test_a_full_disk_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.store"
    add(path, ["a", "b"])
    es.Store.open(path).remove(["a"])
    before = contents(path)

    def full(*arguments: object, **named: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(compacting, "write_vectors", full)
    with pytest.raises(StoreError, match="could not be compacted") as error:
        es.compact(path)
    assert "No space left" in str(error.value)
    monkeypatch.undo()
    assert contents(path) == before
    es.compact(path)
    assert es.verify(path).notes == []
