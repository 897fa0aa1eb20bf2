"""Damaged parts are taken out, whole blocks of them stay, and the dataset brings back the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import run

import embedstore as es
from embedstore._core.sums import rows_per_block
from embedstore.errors import CorruptStoreError, StoreError
from embedstore.sources import MemorySource
from embedstore.store.salvage import lacks_vectors, take_out

N, DIM = 5000, 64


def data(n: int = N) -> MemorySource:
    return MemorySource({"id": [f"i{i}" for i in range(n)], "text": [f"text {i}" for i in range(n)], "n": list(range(n))})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a.store"
    es.embed(data(N // 2), path, text="hash:64")
    es.embed(data(), path, text="hash:64")
    es.Store.open(path).remove(["i3", "i4900"])
    return path


def contents(path: Path) -> dict[str, Any]:
    """Id → its metadata and vector."""
    store = es.Store.open(path)
    space, table = store.space("text"), store.items.table(["id", "n"])
    vectors = space.take(store.items.rows)
    return {id: (n, tuple(v)) for id, n, v in zip(*table.to_pydict().values(), vectors.tolist(), strict=True)}


def damage(file: Path, at: int = -1) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2 if at < 0 else at] ^= 0xFF
    file.write_bytes(content)


def test_of_a_damaged_part_only_its_damaged_blocks_are_lost(path: Path) -> None:
    right = contents(path)
    store = es.Store.open(path)
    ref = store.manifest.spaces["text"].parts[0]
    damage(path / ref.file, ref.offsets["vectors"] + 7)
    with pytest.raises(CorruptStoreError):
        contents(path)
    report = es.repair(path)
    block = rows_per_block(DIM * 2)
    assert report.damage.vectors == {"text": block}
    assert report.damage.files == [ref.file]
    assert report.damage.items == 0
    assert "DATASET" in report.notes[0]
    assert es.verify(path).clean
    again = es.embed(data(), path)
    assert again.spaces["text"].embedded >= block - 1
    found = contents(path)
    assert {id: found[id] for id in right} == right


@pytest.mark.parametrize("kind", ["parts", "items"])
def test_what_a_part_held_is_embedded_again(path: Path, kind: str) -> None:
    right, store = contents(path), es.Store.open(path)
    ref = store.manifest.items[0] if kind == "items" else store.manifest.spaces["text"].parts[1]
    (path / ref.file).unlink()
    report = es.repair(path, data())
    assert report.damage.items == (ref.rows if kind == "items" else 0)
    assert report.embedded is not None
    found = contents(path)
    assert {id: found[id] for id in right} == right
    assert set(found) - set(right) == ({"i3"} if kind == "items" else set())  # that it was removed was in the lost part
    assert es.verify(path).clean
    assert es.repair(path, data()).damage.files == []


@pytest.mark.parametrize("kind", ["parts", "items", "failures"])
def test_a_repair_that_was_stopped_is_completed(path: Path, kind: str) -> None:
    """It ends where one that was not stopped does: what is yet to be embedded is known."""
    if kind == "failures":
        es.embed(MemorySource({"id": ["x"], "image": ["gone.png"], "text": [None], "n": [0]}), path, image="hash:8")
    store, right = es.Store.open(path), contents(path) if kind != "failures" else None
    refs = {"parts": store.manifest.spaces["text"].parts, "items": store.manifest.items}
    ref = refs[kind][0] if kind in refs else store.manifest.spaces["image"].failures[0]
    damage(path / ref.file, ref.offsets.get("row", -1))
    del store
    with es.Store.open(path, check=False).writer() as writer:
        take_out(writer)  # and the process dies here
    assert es.verify(path).clean
    source = data() if kind != "failures" else MemorySource({"id": ["x"], "image": ["gone.png"], "text": [None], "n": [0]})
    report = es.repair(path, source)
    assert report.embedded is not None
    assert es.repair(path, source).embedded is None
    assert not (path / "repair.json").exists()
    if right is not None:
        found = contents(path)
        assert {id: found[id] for id in right} == right
    else:
        assert es.Store.open(path).space("image").failures.num_rows == 1


def test_without_its_tombstones_what_was_removed_may_be_back(path: Path) -> None:
    es.embed(MemorySource({"id": ["i7"], "text": ["another text"], "n": [7]}), path)
    right, store = contents(path), es.Store.open(path)
    for ref in store.manifest.tombstones:
        damage(path / ref.file)
    report = es.repair(path)
    assert report.damage.revived == 2
    assert "may be back" in report.notes[-1]
    found = contents(path)
    assert {id: found[id] for id in right} == right  # of two with one id the later stays
    assert len(found) == len(right) + 2
    assert es.verify(path).clean


def test_imported_vectors_are_imported_again(tmp_path: Path) -> None:
    path, vectors = tmp_path / "v.store", np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32)
    es.import_vectors(vectors, path, space="v", modality="image")
    right = es.Store.open(path).space("v").vectors().tolist()
    ref = es.Store.open(path).manifest.spaces["v"].parts[0]
    damage(path / ref.file, ref.offsets["vectors"])
    report = es.repair(path)
    assert report.damage.vectors == {"v": 50}
    assert "embedstore import SOURCE" in report.notes[0]
    es.import_vectors(vectors, path, space="v", modality="image")
    assert es.Store.open(path).space("v").vectors().tolist() == right


def test_the_command(path: Path, tmp_path: Path) -> None:
    table = tmp_path / "data.jsonl"
    table.write_text("".join(json.dumps({"id": f"i{i}", "text": f"text {i}", "n": i}) + "\n" for i in range(N)))
    done = run("repair", path)
    assert done.stdout == "Every part is as it was committed: nothing to repair.\n"
    ref = es.Store.open(path).manifest.spaces["text"].parts[0]
    damage(path / ref.file, ref.offsets["row"])
    failed = run("search", path, "--id", "i1", code=1)
    assert failed.stderr.startswith(f"embedstore: {path / ref.file} has bytes that differ from what was committed.")
    assert failed.stderr.endswith(f"embedstore repair {path} DATASET\n")
    done = run("repair", path, table, "--json")
    assert json.loads(done.stdout)["embedded"]["spaces"]["text"]["embedded"] >= ref.rows - 2
    run("search", path, "--id", "i1")


def test_a_dataset_that_does_not_have_the_items_is_told(path: Path) -> None:
    ref = es.Store.open(path).manifest.spaces["text"].parts[0]
    damage(path / ref.file, ref.offsets["vectors"])
    report = es.repair(path, MemorySource({"id": ["other"], "text": ["words"], "n": [0]}))
    assert report.embedded is not None
    assert report.embedded.items == 0
    assert "does not have them" in report.notes[-1]
    assert es.repair(path, data()).notes == []


def small(path: Path, ids: str = "abcd") -> MemorySource:
    """Embeds one item a letter, all in one part, and gives the dataset."""
    source = MemorySource({"id": list(ids), "text": [f"text {id}" for id in ids]})
    es.embed(source, path, text="hash:8")
    return source


def test_a_blank_text_of_metadata_is_not_lost(tmp_path: Path) -> None:
    path, data = tmp_path / "s", {"id": ["a", "b"], "text": ["x", "y"], "title": ["t", "  "]}
    title: dict[str, Any] = {"text": {"text": "hash:8", "title": "hash:8"}, "columns": {"title": "title"}}
    es.embed(MemorySource(data), path, **title)
    assert not lacks_vectors(es.Store.open(path))
    ref = es.Store.open(path).manifest.spaces["title"].parts[0]
    damage(path / ref.file, ref.offsets["vectors"])
    assert es.repair(path, MemorySource(data), columns={"title": "title"}).notes == []


def ids(path: Path) -> str:
    return "".join(sorted(es.Store.open(path).items.table(["id"]).column("id").to_pylist()))


def test_the_only_part_of_the_items(tmp_path: Path) -> None:
    path = tmp_path / "s"
    source = small(path)
    damage(path / "items/part-000000.parquet")
    assert es.repair(path).damage.items == 4
    assert es.verify(path).clean
    assert es.repair(path, source).embedded is not None
    assert ids(path) == "abcd"
    assert es.verify(path).clean


def test_what_cannot_be_read_now_is_not_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s"
    small(path)

    def refused(file: Path) -> str:
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr("embedstore.store.salvage.sha256_file", refused)
    with pytest.raises((StoreError, PermissionError)):
        es.repair(path)
    monkeypatch.undo()
    assert es.verify(path).clean
    assert ids(path) == "abcd"


@pytest.mark.parametrize("when", ["before", "after the damage", "after a compaction", "before other damage"])
def test_what_was_removed_stays_removed(tmp_path: Path, when: str) -> None:
    path = tmp_path / "s"
    small(path, "abcd")
    source = small(path, "abcdefgh")  # a part of its own
    if when.startswith("before"):
        es.Store.open(path).remove(["b"])
    damage(path / "items/part-000001.parquet")
    es.repair(path)
    if when.startswith("after"):
        es.Store.open(path).remove(["b"])
    if when == "after a compaction":
        es.compact(path)
    if when == "before other damage":
        damage(path / es.Store.open(path).manifest.items[0].file)
        es.repair(path)
    es.repair(path, source)
    assert ids(path) == "acdefgh"
    assert es.verify(path).clean
    assert not (path / "repair.json").exists()


def test_imported_items_leave_nothing_to_embed(tmp_path: Path) -> None:
    path, vectors = tmp_path / "s", np.eye(4, dtype=np.float32)
    es.import_vectors(vectors, path, space="v", modality="image")
    damage(path / "items/part-000000.parquet")
    (note,) = es.repair(path).notes
    assert note.endswith(f"import SOURCE {path} --space v --add-items")
    assert es.repair(path).notes == []
    es.import_vectors(vectors, path, space="v", modality="image")
    assert es.verify(path).clean
    assert len(es.Store.open(path).space("v")) == 4
