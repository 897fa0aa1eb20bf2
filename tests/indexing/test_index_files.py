"""The files of an index: damage is noticed before an answer is given, and never costs more than time."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import Telling, run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import embedstore as es
from embedstore._core import digests
from embedstore._core.folders import Folder
from embedstore.errors import StoreError, StoreLockedError, UsageError
from embedstore.retrieval.index import index
from embedstore.sources import MemorySource
from embedstore.store.indexes import IndexFile, IndexRecord

N, DIM = 400, 8
K = 5


def write_store(path: Path, *, n: int = N, seed: int = 0, first: int = 0) -> es.Store:
    """`n` clustered vectors of eight numbers."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((10, DIM))
    vectors = centres[rng.integers(0, 10, n)] + 0.4 * rng.standard_normal((n, DIM))
    texts = [" ".join(f"{v:.4f}" for v in vector) for vector in vectors]
    data = {"id": [f"i{first + i}" for i in range(n)], "text": texts, "n": list(range(n))}
    es.embed(MemorySource(data), path, text=Telling(DIM, "text", "telling"))
    return es.Store.open(path)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> es.Store:
    store = write_store(tmp_path_factory.mktemp("built") / "a.store")
    with store.writer() as writer:  # so that labels are not positions, and there is a second file
        writer.commit(removed=np.array([3, 17]))
    index(store.refresh(), factory="IVF8,SQ8", recall=0.8)
    return store.refresh()


@pytest.fixture
def store(built: es.Store, tmp_path: Path) -> es.Store:
    shutil.copytree(built.path, tmp_path / "a.store")
    return es.Store.open(tmp_path / "a.store")


def folder_of(store: es.Store) -> Path:
    return store.space("text").index_folder


def asked(store: es.Store) -> es.SearchResult:
    """A search of a fresh reader, as another process would do it."""
    return es.Searcher(es.Store.open(store.path)).search(vector=np.arange(1.0, DIM + 1), k=K)


def expected(store: es.Store) -> list[str]:
    space = es.Store.open(store.path).space("text")
    vectors = np.asarray(space.vectors(), np.float64)
    cosines = vectors @ np.arange(1.0, DIM + 1) / np.linalg.norm(vectors, axis=1)
    best = space.rows[np.argsort(-cosines)[:K]]
    return [str(i) for i in store.refresh().items.take(best, ["id"]).column("id").to_pylist()]


def refused(store: es.Store, *words: str) -> None:
    """The answer is exact and right, and says what is wrong and what to do."""
    result = asked(store)
    assert result.index["exact"]
    assert [hit.id for hit in result.results] == expected(store)
    assert result.note is not None
    for word in (*words, "Search is exact", f"embedstore index {store.path} text"):
        assert word in result.note


def used(store: es.Store) -> None:
    result = asked(store)
    assert not result.index["exact"]
    assert result.index["type"] == "IVF8,SQ8"
    assert "index is not used" not in (result.note or "")
    assert len(result.results) == K


def flip(path: Path, at: int, bits: int) -> None:
    """Change one byte in place, as an editor of bytes does."""
    with open(path, "r+b") as file:
        file.seek(at)
        old = file.read(1)[0]
        file.seek(at)
        file.write(bytes([old ^ bits]))


@pytest.mark.parametrize("kept_times", [False, True], ids=["edited", "times restored"])
def test_any_flipped_byte_is_noticed(store: es.Store, kept_times: bool) -> None:
    rng = np.random.default_rng(0)
    used(store)  # what was checked is remembered
    files = sorted(path for path in folder_of(store).iterdir() if not path.name.endswith(".lock"))
    assert [path.suffix for path in files] == [".faiss", ".json", ".npy"]
    for path in files:
        whole, status = path.read_bytes(), path.stat()
        places = np.unique(np.concatenate([[0, len(whole) - 2], rng.integers(0, len(whole), 20 if kept_times else 40)]))
        for at in places:
            bits = int(rng.integers(1, 256))
            flip(path, int(at), bits)
            if kept_times:
                os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
            if path.suffix == ".json" and same_json(path.read_bytes(), whole):  # one white space for another
                used(store)
            else:
                refused(store, str(path))
                assert not es.verify(store).clean or kept_times
            flip(path, int(at), bits)
    used(store)
    assert es.verify(store).clean


def same_json(one: bytes, other: bytes) -> bool:
    try:
        return bool(json.loads(one) == json.loads(other))
    except ValueError:
        return False


@pytest.mark.parametrize("name", ["base-000001.faiss", "labels-000001.npy", "index.json"])
@pytest.mark.parametrize("how", ["truncated", "empty", "longer", "missing"])
def test_files_that_are_not_whole(store: es.Store, name: str, how: str) -> None:
    used(store)
    path = folder_of(store) / name
    data = path.read_bytes()
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes({"truncated": data[:-7], "empty": b"", "longer": data + b"x"}[how])
    if (name, how) == ("index.json", "missing"):  # then there is no index
        assert [hit.id for hit in asked(store).results] == expected(store)
    else:
        refused(store, str(path))
        assert not es.verify(store).clean
    index(store, factory="IVF8,SQ8", recall=0.8)
    used(store)
    assert es.verify(store).clean


@pytest.mark.parametrize("how", ["truncated", "empty", "missing", "flipped", "of another index"])
def test_where_walks_begin_is_checked_as_well(store: es.Store, how: str) -> None:
    index(store, factory="HNSW8,Flat", recall=0.8)
    assert asked(store).index["type"] == "HNSW8,Flat"
    path = folder_of(store) / "entries-000002.faiss"
    data = path.read_bytes()
    match how:
        case "missing":
            path.unlink()
        case "flipped":
            flip(path, len(data) // 2, 4)
        case "of another index":
            write_store(store.path.parent / "b.store", n=100)
            other = es.Store.open(store.path.parent / "b.store")
            index(other, factory="HNSW8,Flat", recall=0.8)
            shutil.copy(folder_of(other) / "entries-000001.faiss", path)
        case _:
            path.write_bytes({"truncated": data[:-7], "empty": b""}[how])
    refused(store, str(path))
    assert not es.verify(store).clean


def test_a_graph_without_entries_answers_too(store: es.Store) -> None:
    index(store, factory="HNSW8,Flat", recall=0.8)
    folder = folder_of(store)
    record = IndexRecord.read(folder)
    assert record is not None
    with Folder.at(folder) as opened:
        replace(record, files={role: file for role, file in record.files.items() if role != "entries"}).write(opened)
    assert not list(folder.glob("entries-*"))
    result = asked(store)
    assert (result.index["type"], len(result.results)) == ("HNSW8,Flat", K)


def test_files_that_cannot_be_read(store: es.Store) -> None:
    path = folder_of(store) / "base-000001.faiss"
    path.unlink()
    path.mkdir()
    refused(store)
    assert not es.verify(store).clean


def test_an_index_of_another_store(store: es.Store, tmp_path: Path) -> None:
    other = write_store(tmp_path / "other.store", seed=1)
    index(other, factory="IVF8,SQ8", recall=0.8)
    shutil.rmtree(folder_of(store))
    shutil.copytree(folder_of(other), folder_of(store))
    refused(store, "compacted, restored or replaced")
    data = {"id": ["a", "b"], "text": ["1 2", "3 4"]}
    es.embed(MemorySource(data), tmp_path / "narrow.store", text=Telling(2, "text", "telling"))
    narrow = es.Store.open(tmp_path / "narrow.store")
    shutil.copytree(folder_of(other), folder_of(narrow))
    result = es.search(narrow, id="a")
    assert [hit.id for hit in result.results] == ["b"]
    assert result.note is not None
    for word in (narrow.space("text").fingerprint, other.space("text").fingerprint):
        assert word in result.note


def test_an_index_of_an_older_or_later_state(store: es.Store, tmp_path: Path) -> None:
    backup = shutil.copytree(store.path, tmp_path / "backup")
    write_store(store.path, n=60, seed=2, first=N)
    used(store)  # it only grew
    index_of_old = shutil.copytree(folder_of(store), tmp_path / "index")
    index(store.path, factory="IVF8,SQ8", recall=0.8)
    for path in ("store.json", "items", "spaces/text/part-000000.h5"):  # a backup is restored, the index is not
        shutil.rmtree(store.path / path, ignore_errors=True)
        copy: Callable[..., Any] = shutil.copytree if (backup / path).is_dir() else shutil.copy2
        (store.path / path).unlink(missing_ok=True)
        copy(backup / path, store.path / path)
    refused(store, "compacted, restored or replaced")
    shutil.rmtree(folder_of(store))
    shutil.copytree(index_of_old, folder_of(store))
    used(store)
    with es.Store.open(store.path).writer() as writer:
        from embedstore.store.rewrite import compact_parts

        compact_parts(writer)
    refused(store, "compacted, restored or replaced")


@pytest.mark.parametrize("cache", ["a file", "damaged", "no home"])
def test_without_a_cache_folder_files_are_read_again(
    store: es.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if cache == "a file":
        (tmp_path / "cache").write_text("x")
    elif cache == "no home":
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setenv("HOME", "/proc/nowhere")
    used(store)
    for note in tmp_path.glob("cache/embedstore/checked/*"):
        note.write_bytes(b"\xff\xfe")
    digests._NOTES.clear()  # as in another process
    count = counted(monkeypatch)
    used(store)
    assert len(count) == 2


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files whose digest is computed from now on."""
    names: list[str] = []
    real = digests.sha256_file

    def count(path: Path) -> str:
        names.append(path.name)
        return real(path)

    monkeypatch.setattr(digests, "sha256_file", count)
    return names


def test_digests_are_computed_once(store: es.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "CLOCK_TICK_NS", 0)
    names = counted(monkeypatch)
    used(store)
    assert sorted(names) == ["base-000001.faiss", "labels-000001.npy"]
    for _ in range(3):
        used(store)
    assert len(names) == 2
    assert es.verify(store).clean
    assert len(names) == 4  # verify trusts nothing
    os.utime(folder_of(store) / "base-000001.faiss")
    used(store)
    assert len(names) == 5


def test_a_file_of_this_very_moment_is_not_remembered(store: es.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change within the same tick of the file system's clock would leave no trace in the times."""
    monkeypatch.setattr(digests, "CLOCK_TICK_NS", 3600 * 10**9)
    used(store)
    names = counted(monkeypatch)
    used(store)
    assert len(names) == 2


def test_a_full_disk_leaves_the_old_index(store: es.Store) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(StoreError, match="could not be written") as error:
            index(store, factory="IVF16,SQ8", recall=0.8)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(error.value)
    used(store)
    assert not list(folder_of(store).glob("*.tmp"))
    assert es.verify(store).clean


def test_a_folder_that_cannot_be_written(store: es.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(folder_of(store))
    folder_of(store).write_text("in the way")
    with pytest.raises(StoreError, match=r"index is a file, not a folder of this store\. Move it away\.") as error:
        index(store, factory="IVF8,SQ8")
    assert "\n" not in str(error.value)
    assert [hit.id for hit in asked(store).results] == expected(store)


def test_two_builders_at_once(store: es.Store) -> None:
    seen: list[str] = []

    def second(text: str) -> None:
        if not seen:
            seen.append(text)
            with pytest.raises(StoreLockedError, match="Another process is building an index of space 'text'"):
                index(store, factory="IVF8,SQ8")

    index(store, factory="IVF8,SQ8", recall=0.8, on_progress=second)
    assert seen
    used(store)


KILLED = """
import os, signal, sys
from embedstore._core import folders
from embedstore.retrieval.index import index
real, left = folders.publish, [int(sys.argv[2])]
def publish(folder, temporary, name):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    real(folder, temporary, name)
folders.publish = publish
index(sys.argv[1], factory="IVF16,SQ8", recall=0.8)
"""


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_kill_while_building_leaves_the_old_index(store: es.Store, at: int) -> None:
    run("-c", KILLED, store.path, at, code=-signal.SIGKILL)
    assert list(folder_of(store).glob("*.tmp"))
    used(store)
    assert es.verify(store).clean
    index(store, factory="IVF8,SQ8", recall=0.8)  # goes on where the killed one left its files
    used(store)
    record = IndexRecord.read(folder_of(store))
    assert record is not None
    left = {path.name for path in folder_of(store).iterdir()} - {"index.lock"}
    assert left == {"index.json", *(entry.file for entry in record.files.values())}


def test_names_of_index_files_are_not_used_again(store: es.Store) -> None:
    index(store, factory="Flat")
    index(store, factory="IVF8,SQ8", recall=0.8)
    assert sorted(path.name for path in folder_of(store).glob("*-*")) == ["base-000003.faiss", "labels-000003.npy"]


def test_a_space_called_index_is_cleaned_like_any_other(tmp_path: Path) -> None:
    data = {"id": ["a"], "text": ["1 2"]}
    es.embed(MemorySource(data), tmp_path / "s", text={"index": Telling(2, "text", "telling")})
    left = tmp_path / "s" / "spaces" / "index" / "part-000009.h5"
    left.write_bytes(b"half")
    assert "part-000009" in es.verify(tmp_path / "s").notes[0]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.dictionaries(st.text(max_size=5), st.none() | st.integers() | st.floats(allow_nan=False) | st.text()))
def test_record_round_trip(tmp_path: Path, data: dict[str, object]) -> None:
    record = IndexRecord("text", "f" * 16, [("a", "b")], {"faiss": IndexFile("x", 1, "c")}, data, 3)
    folder = tmp_path / "index"
    with Folder.last(folder, 1, create=True) as opened:
        record.write(opened)
    assert IndexRecord.read(folder) == record


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip", b"\x93NUMPY", b"x"])
def test_queries_that_are_no_array(store: es.Store, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "q.npy").write_bytes(content)
    with pytest.raises(UsageError, match="not an array of queries"):
        index(store, queries=tmp_path / "q.npy")
    with pytest.raises(UsageError, match="not an array of queries"):
        es.search_batch(store, tmp_path / "q.npy", tmp_path / "out.csv")
