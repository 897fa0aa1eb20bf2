"""Links, pipes and other strange things in a store's places: one line, no hang, and nothing outside it touched."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import TESTS, Telling, telling_store

import embedstore as es
from embedstore._core import folders
from embedstore._core.atomic_files import of_one_generation
from embedstore._core.encoding import sealed
from embedstore._core.folders import Folder, make_root, plain_name, regular_file, split_root
from embedstore._core.locks import locked
from embedstore.errors import CorruptStoreError, EmbedstoreError, StoreError, StoreLockedError
from embedstore.retrieval.index import index, open_index
from embedstore.sources import MemorySource
from embedstore.store import create

MORE = {"id": ["new"], "text": ["1 2 3"], "label": ["a"], "n": [1]}

WRITES: dict[str, Callable[[Path], object]] = {
    "embed": lambda path: es.embed(MemorySource(MORE), path, text=Telling(3, "text", "telling")),
    "remove": lambda path: es.Store.open(path).remove(["i1"]),
    "compact": lambda path: es.compact(path, force=True),
    "index": lambda path: index(path, "text", factory="IVF4,SQ8", recall=0.5),
    "train": lambda path: es.train(path, "label", replace=True, report=False),
    "verify": lambda path: es.verify(path),
    "search": lambda path: es.search(path, vector=[1.0, 2.0, 3.0], k=2),
    "predict": lambda path: es.predict(path, "label"),
}
"""Writers, and readers, which have less to spoil."""

FOLDERS = ["items", "spaces", "spaces/text", "spaces/text/index", "heads", "heads/label"]
FILES = [
    "store.json",
    "store.lock",
    "store.json.tmp",
    "embeddings.h5",
    "embeddings.h5.tmp",
    "items/part-000000.parquet",
    "items/part-000001.parquet.tmp",
    "items/tombstones-000000.parquet",
    "spaces/text/space.json",
    "spaces/text/part-000000.h5",
    "spaces/text/part-000001.h5",
    "spaces/text/index/index.json",
    "spaces/text/index/index.lock",
    "spaces/text/index/base-000001.faiss",
    "spaces/text/index/left.tmp",
    "heads/.label.lock",
    "heads/label/head.json",
    "heads/label/head.json.tmp",
    "heads/label/WEIGHTS",
    "heads/label/left.parquet",
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with everything in it."""
    path = tmp_path_factory.mktemp("whole") / "a.store"
    telling_store(path, 60)
    es.Store.open(path).remove(["i0"])
    index(path, "text", factory="IVF4,SQ8", recall=0.5)
    es.train(path, "label", report=False)
    return path


@pytest.fixture
def path(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "a.store"))


def place_of(path: Path, name: str) -> Path:
    return next((path / "heads" / "label").glob("weights-*")) if name.endswith("WEIGHTS") else path / name


def seen(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file below `folder`: its bytes and its time of change."""
    return {
        str(file.relative_to(folder)): (file.read_bytes(), file.stat().st_mtime_ns)
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def said(write: Callable[[Path], object], path: Path) -> str:
    """The error of `write`, or what it returned, as text."""
    try:
        return str(write(path))
    except EmbedstoreError as error:
        return str(error) if one_line(error) else f"more than a line: {error!r}"


def one_line(error: BaseException) -> bool:
    return isinstance(error, EmbedstoreError) and "\n" not in str(error)


@pytest.mark.parametrize("name", FOLDERS + FILES)
def test_what_a_link_leads_to_is_never_touched(path: Path, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "precious"
    place = place_of(path, name)
    if name in FOLDERS:
        shutil.move(place, outside)
        (outside / "precious.txt").write_text("mine")
        (outside / "empty").mkdir()
    else:
        outside.mkdir()
        shutil.move(place, outside / "file") if place.exists() else (outside / "file").write_text("mine")
    place.symlink_to(outside if name in FOLDERS else outside / "file")
    before = seen(outside)
    told = []
    for write in WRITES.values():
        told.append(said(write, path))
        assert seen(outside) == before
        assert place.is_symlink() or place.suffix == ".tmp"
    assert not any(text.startswith("more than a line") for text in told)
    assert any(re.search(rf"{re.escape(str(place))} is a link, not a (folder|file) of this store", text) for text in told)
    if name in FOLDERS:
        assert (outside / "empty").is_dir()


def test_a_link_to_nothing_is_no_place_for_a_store(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "store.json").symlink_to(tmp_path / "nothing")
    with pytest.raises(StoreError, match=r"store\.json is a link"):
        es.Store.open(tmp_path / "s", create=True)
    assert not (tmp_path / "nothing").exists()


def test_the_root_may_be_a_link(path: Path, tmp_path: Path) -> None:
    (tmp_path / "link.store").symlink_to(path)
    for write in WRITES.values():
        write(tmp_path / "link.store")
    assert es.verify(path).clean


PIPES = """
import sys
sys.path[:0] = sys.argv[1].split(":")
from pathlib import Path
from test_safe_files import WRITES, said
for path in sys.argv[2:]:
    for name, write in WRITES.items():
        print(Path(path).name, name, said(write, Path(path)), flush=True)
"""


def test_a_pipe_is_never_waited_for(whole: Path, tmp_path: Path) -> None:
    places = {}
    for i, name in enumerate(FILES):
        path = Path(shutil.copytree(whole, tmp_path / f"{i}.store"))
        places[path] = place = place_of(path, name)
        place.unlink(missing_ok=True)
        os.mkfifo(place)
    done = subprocess.run(
        [sys.executable, "-c", PIPES, f"{Path(__file__).parent}:{TESTS}", *map(str, places)],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert "more than a line" not in done.stdout
    for place in places.values():
        assert f"{place} is a pipe, not a file of this store. Remove it: rm {place}" in done.stdout


@pytest.mark.parametrize("kind", ["folder", "socket"])
def test_other_strange_things_are_one_line(path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    (path / "store.json").unlink()
    monkeypatch.chdir(path)  # names of sockets are short
    if kind == "folder":
        (path / "store.json").mkdir()
    else:
        socket.socket(socket.AF_UNIX).bind("store.json")
    for write in WRITES.values():
        with pytest.raises(StoreError, match=f"store.json is a {kind}, not a file of this store"):
            write(path)


@pytest.mark.parametrize("name", ["../../../precious", "/etc/passwd", "..", ".hidden", "a/b", "", None, 7])
def test_a_head_and_an_index_name_files_beside_them_alone(path: Path, name: object) -> None:
    import json

    head = path / "heads" / "label" / "head.json"
    document = json.loads(head.read_text())
    document["files"]["weights.safetensors"]["file"] = name
    head.write_text(json.dumps(sealed(document)))
    with pytest.raises(CorruptStoreError, match="cannot lie beside it"):
        es.predict(path, "label")
    assert any("cannot lie beside it" in problem for problem in es.verify(path).problems)

    from embedstore.store.indexes import IndexRecord

    record = IndexRecord.read(path / "spaces" / "text" / "index")
    assert record is not None
    object.__setattr__(record.files["faiss"], "file", name)
    (path / "spaces" / "text" / "index" / "index.json").write_text(json.dumps(record.to_dict()))
    assert "cannot lie beside it" in str(open_index(es.Store.open(path).space("text")).problem)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("items/part-000000.parquet", "items/../../precious-000000.parquet"),
        ("items/part-000000.parquet", "/etc/part-000000.parquet"),
        ("items/part-000000.parquet", "items/tombstones-000000.parquet"),
        ("spaces/text/part-000000.h5", "spaces/other/part-000000.h5"),
        ("spaces/text/part-000000.h5", "spaces/text/part-00000.h5"),
        ('"text": {', '"../text": {'),
    ],
)
def test_a_manifest_names_files_of_its_own_store_alone(path: Path, old: str, new: str) -> None:
    manifest = path / "store.json"
    text = manifest.read_text()
    assert old in text
    manifest.write_text(text.replace(old, new, 1))
    with pytest.raises(CorruptStoreError):
        es.Store.open(path)


def test_heads_and_spaces_are_called_as_their_folders(path: Path) -> None:
    """What else a file calls them would become paths."""
    import json

    from embedstore._core.atomic_files import sha256_file
    from embedstore.heads.io import load_head

    for file in (path / "heads" / "label" / "head.json", path / "spaces" / "text" / "space.json"):
        file.write_text(json.dumps(sealed({**json.loads(file.read_text()), "name": "../../../evil"})))
    manifest = json.loads((path / "store.json").read_text())
    manifest["spaces"]["text"]["spec_sha256"] = sha256_file(file)
    (path / "store.json").write_text(json.dumps(sealed(manifest)))
    assert load_head(path / "heads" / "label").name == "label"
    with pytest.raises(CorruptStoreError, match=r"describes a space '../../../evil', not 'text'"):
        es.Store.open(path).space("text")


# Creation.


def test_the_second_of_two_creators_opens_what_the_first_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first commits everything between the second's look and its write."""
    path = tmp_path / "s"
    real = create._create_in
    raced = []

    def slowly(folder: Folder) -> None:
        if not raced:
            raced.append(1)
            telling_store(path, 40)
        real(folder)

    monkeypatch.setattr(create, "_create_in", slowly)
    second = es.Store.open(path, create=True)
    assert raced
    assert (len(second), second.generation) == (40, es.Store.open(path).generation)
    assert es.verify(path).clean


def test_a_creator_beside_a_writer_opens_its_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s"
    with es.Store.open(path, create=True).writer() as writer:
        monkeypatch.setattr("embedstore.store.reader.is_store", lambda root: False)
        assert es.Store.open(path, create=True).generation == writer.store.generation


def test_a_creator_beside_another_is_told(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.mkdir()
    with Folder.at(path) as folder, locked(folder, "store.lock"), pytest.raises(StoreLockedError, match="Another process"):
        es.Store.open(path, create=True)
    assert es.Store.open(path, create=True).generation == 0


def test_a_lock_of_a_file_that_was_discarded_is_not_taken_for_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the opening of the lock file and the locking, whoever held it removes it."""
    opened = []
    real = Folder.open_lock

    def open_lock(self: Folder, name: str) -> object:
        file = real(self, name)
        opened.append(os.fstat(file.fileno()).st_ino)
        if len(opened) == 1:
            (tmp_path / name).unlink()
            (tmp_path / "other").touch()  # so that the number is not used again
        return file

    monkeypatch.setattr(Folder, "open_lock", open_lock)
    with Folder.at(tmp_path) as folder, locked(folder, "x.lock"):
        assert len(opened) == 2
        assert (tmp_path / "x.lock").stat().st_ino == opened[1]
        with pytest.raises(StoreLockedError, match=r"^busy$"), locked(folder, "x.lock", busy="busy"):
            pass


def test_a_creator_in_a_folder_that_is_discarded_makes_it_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s"
    real, raced = create._create_in, []

    def slowly(folder: Folder) -> None:
        if not raced:
            raced.append(1)
            path.rmdir()
        real(folder)

    monkeypatch.setattr(create, "_create_in", slowly)
    assert es.Store.open(path, create=True).generation == 0
    assert es.verify(path).clean


def test_what_others_put_beside_a_discarded_store_stays(tmp_path: Path) -> None:
    path, outside = tmp_path / "s", tmp_path / "precious"
    outside.mkdir()
    (outside / "file").write_text("mine")

    def fail() -> None:
        with es.Store.open(path).writer(discard_if_empty=True):
            (path / "notes").symlink_to(outside)
            (path / "items").mkdir()
            raise KeyError

    es.Store.open(path, create=True)
    with pytest.raises(KeyError):
        fail()
    assert [entry.name for entry in path.iterdir()] == ["notes"]
    assert (outside / "file").read_text() == "mine"


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_says_so(path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def flock(file: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    for name in ("embed", "remove", "compact", "index", "train"):
        with pytest.raises(EmbedstoreError, match="file system without locks") as told:
            WRITES[name](path)
        assert one_line(told.value)
    assert WRITES["search"](path)
    with pytest.raises(StoreError, match="file system without locks"):
        es.Store.open(path.parent / "new.store", create=True)


# Heads and indexes that are replaced while they are read.


def saved_again(path: Path, n: int) -> None:
    """Another head under the same name."""
    es.train(path, "label", replace=True, report=False, where=f"n > {n}")


def test_a_head_that_is_replaced_while_it_is_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from embedstore.heads import io

    real, raced = io._contents, []

    def contents(*arguments: Any) -> Any:
        if len(raced) < 3:
            raced.append(1)
            saved_again(path, len(raced))
        return real(*arguments)

    monkeypatch.setattr(io, "_contents", contents)
    explained = es.predict(path, "label", explained=True)
    monkeypatch.undo()
    assert raced == [1, 1, 1]
    assert explained.to_dict() == es.predict(path, "label", explained=True).to_dict()


def test_all_of_a_head_is_of_one_generation(path: Path) -> None:
    """Its split is that of the weights, whatever was saved since."""
    from embedstore.heads.io import load_head
    from embedstore.training.saved import fitted_ids

    before = load_head(path / "heads" / "label")
    ids = fitted_ids(before).tolist()
    saved_again(path, 30)
    assert fitted_ids(before).tolist() == ids
    assert fitted_ids(load_head(path / "heads" / "label")).tolist() != ids


def test_an_alignment_that_was_saved_while_a_head_was_trained_stays(path: Path) -> None:
    import json

    from embedstore.errors import HeadError
    from embedstore.heads.io import load_head, save_head

    record, head = load_head(path / "heads" / "label"), path / "heads" / "label" / "head.json"
    head.write_text(json.dumps({**json.loads(head.read_text()), "kind": "align"}))
    before = seen(path)
    with pytest.raises(HeadError, match="is an alignment, which search uses, and is not replaced"):
        save_head(path / "heads" / "label", record, {})
    assert seen(path) == before


def test_a_head_that_lost_a_file_is_damaged_and_not_read_for_ever(path: Path) -> None:
    place_of(path, "WEIGHTS").unlink()
    with pytest.raises(CorruptStoreError, match=r"weights-\w+.safetensors is missing. Train the head again"):
        es.predict(path, "label")


def test_an_index_that_is_replaced_while_it_is_opened(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from embedstore.store.indexes import IndexRecord

    real, raced = IndexRecord.checked, []

    def checked(self: IndexRecord, folder: Path, name: str, **options: bool) -> Path:
        if not raced:
            raced.append(1)
            index(path, "text", factory="IVF8,SQ8", recall=0.5)
        return real(self, folder, name, **options)

    monkeypatch.setattr(IndexRecord, "checked", checked)
    opened = open_index(es.Store.open(path).space("text"))
    assert raced
    assert opened.problem is None
    assert "IVF8" in opened.index.report_.type


def test_verify_of_a_head_that_is_replaced_meanwhile(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from embedstore.store import verify

    real, raced = verify.sha256_file, []

    def sha256_file(file: Path) -> str:
        if "heads" in file.parts and not raced:
            raced.append(1)
            saved_again(path, 30)
        return real(file)

    monkeypatch.setattr(verify, "sha256_file", sha256_file)
    assert es.verify(path).problems == []
    assert raced


def test_what_is_replaced_for_ever_is_given_up() -> None:
    versions = iter(range(1000))

    def use(version: int) -> None:
        raise KeyError(version)

    with pytest.raises(StoreError, match="replaced 20 times"):
        of_one_generation(lambda: next(versions), use)
    with pytest.raises(KeyError):
        of_one_generation(lambda: 1, use)


PREDICTS = """
import sys
import embedstore as es
for _ in range(int(sys.argv[2])):
    es.predict(sys.argv[1], "label", explained=True, ids=["i5"])
"""


@pytest.mark.slow
def test_predict_beside_train(path: Path) -> None:
    reader = subprocess.Popen([sys.executable, "-c", PREDICTS, str(path), "60"], stderr=subprocess.PIPE, text=True)
    n = 0
    while reader.poll() is None:
        n += 1
        saved_again(path, n % 7)
    assert reader.returncode == 0, reader.stderr.read() if reader.stderr else ""
    assert n > 3


# What is durable, and in which order.


class Recorded:
    """Calls of the operating system that make names and make them durable, by path."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, str]] = []
        real_mkdir, real_fsync, real_rename = os.mkdir, os.fsync, os.rename

        def mkdir(name: str, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
            real_mkdir(name, mode, dir_fd=dir_fd)
            self.calls.append(("mkdir", os.path.join(named(dir_fd), name)))

        def fsync(file: int) -> None:
            real_fsync(file)
            self.calls.append(("fsync", named(file)))

        def rename(old: str, new: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
            real_rename(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
            self.calls.append(("rename", os.path.join(named(dst_dir_fd), new)))

        monkeypatch.setattr(os, "mkdir", mkdir)
        monkeypatch.setattr(os, "fsync", fsync)
        monkeypatch.setattr(os, "rename", rename)

    def at(self, kind: str, path: Path, start: int = 0) -> int:
        """When it was first, not before `start`."""
        return self.calls.index((kind, str(path)), start)


def named(file: int | None) -> str:
    return "" if file is None else os.readlink(f"/proc/self/fd/{file}")


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_new_folders_are_durable_before_what_names_their_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "deep" / "s"
    recorded = Recorded(monkeypatch)
    telling_store(path, 60)
    index(path, "text", factory="IVF4,SQ8", recall=0.5)
    es.train(path, "label", report=False)
    first, last = recorded.at("rename", path / "store.json"), len(recorded.calls)
    commits = [i for i, call in enumerate(recorded.calls) if call == ("rename", str(path / "store.json"))]
    for folder in (path, path.parent, path.parent.parent):
        made = recorded.at("mkdir", folder)
        assert recorded.at("fsync", folder.parent, made) < first
    for folder, before in (
        (path / "items", commits[1]),
        (path / "spaces", commits[1]),
        (path / "spaces" / "text", commits[1]),
        (path / "spaces" / "text" / "index", recorded.at("rename", path / "spaces" / "text" / "index" / "index.json")),
        (path / "heads", recorded.at("rename", path / "heads" / "label" / "head.json")),
        (path / "heads" / "label", recorded.at("rename", path / "heads" / "label" / "head.json")),
    ):
        assert recorded.at("fsync", folder.parent, recorded.at("mkdir", folder)) < before
    for i in range(last):
        kind, name = recorded.calls[i]
        if kind == "rename":
            if threaded(recorded, i):
                assert ("fsync", f"{name}.tmp") in recorded.calls[:i]
            else:
                assert recorded.calls[i - 1] == ("fsync", f"{name}.tmp")
                assert recorded.calls[i + 1] == ("fsync", os.path.dirname(name))


def threaded(recorded: Recorded, i: int) -> bool:
    """Parts of one commit are written by several threads."""
    return "/part-" in recorded.calls[i][1] or "/failures-" in recorded.calls[i][1]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_a_folder_that_a_killed_writer_made_is_made_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "s"
    (tmp_path / "new").mkdir()
    with monkeypatch.context() as first:
        recorded = Recorded(first)
        es.Store.open(path, create=True)
        commit = recorded.at("rename", path / "store.json")
        assert recorded.at("fsync", tmp_path) < recorded.at("fsync", path.parent) < commit
    (path / "items").mkdir()
    (path / "spaces" / "text").mkdir(parents=True)
    recorded = Recorded(monkeypatch)
    es.embed(MemorySource({"id": ["a"], "text": ["b"]}), path, text="hash:8")
    commit = recorded.at("rename", path / "store.json")
    assert recorded.at("fsync", path) < commit
    assert recorded.at("fsync", path / "spaces") < commit


# The folder itself.


def test_a_failed_write_leaves_the_old_file_and_no_trace(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")

    def fail(folder: Folder) -> None:
        with folder.replacing("a") as file:
            file.write(b"half")
            raise KeyError

    with Folder.at(tmp_path) as folder:
        with pytest.raises(KeyError):
            fail(folder)
        assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a", "old")]
        folder.write("a", b"new")
        assert folder.read("a") == b"new"
        assert folder.listing() == (["a"], [])
        folder.unlink("a")
        folder.unlink("a")
        with pytest.raises(FileNotFoundError):
            folder.read("a")
        with pytest.raises(FileNotFoundError):
            folder.child("b")


def test_an_old_beginning_of_a_write_is_not_written_through(tmp_path: Path) -> None:
    """A hard link to what lies elsewhere: the name goes, the file stays."""
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "s").mkdir()
    os.link(tmp_path / "precious", tmp_path / "s" / "a.tmp")
    with Folder.at(tmp_path / "s") as folder:
        folder.write("a", b"new")
    assert (tmp_path / "precious").read_text() == "mine"


def test_results_are_not_written_through_a_link(tmp_path: Path) -> None:
    """Not in a store: the user's own folder, in which somebody left a link of the name that is used meanwhile."""
    import pyarrow as pa

    from embedstore._core.atomic_files import write_bytes
    from embedstore._core.result_files import write_tables

    (tmp_path / "precious").write_text("mine")
    for name in ("page.html.tmp", ".out.csv.part"):
        (tmp_path / name).symlink_to(tmp_path / "precious")
    write_bytes(tmp_path / "page.html", b"new")
    table = pa.table({"id": ["a"]})
    write_tables(tmp_path / "out.csv", table.schema, [table])
    assert (tmp_path / "precious").read_text() == "mine"
    assert (tmp_path / "out.csv").read_text().split() == ["id", "a"]


def test_names_and_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [name for name in ("a", "a.b", "..", ".a", "a/b", "", "a\0", None) if plain_name(name)] == ["a", "a.b"]
    monkeypatch.chdir(tmp_path)
    assert split_root(Path("x"), 3) == (tmp_path.parent.parent, (tmp_path.parent.name, tmp_path.name, "x"))
    assert split_root(Path("/x"), 3) == (Path("/"), ("x",))
    make_root(Path("a/b"))
    make_root(Path("a/b"))
    (tmp_path / "a" / "b" / "c").write_text("1")
    assert regular_file(tmp_path, "a/b/c").st_size == 1
    assert folders.read_file(tmp_path, "a/b/c") == b"1"
    with pytest.raises(FileNotFoundError):
        regular_file(tmp_path, "a/x/c")
