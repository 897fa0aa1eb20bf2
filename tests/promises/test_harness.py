"""The campaign itself: it sees what it is there to see."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest

from benchmarks._faults.crafted import mutated
from benchmarks._faults.disk import Cut, Recorder
from benchmarks._faults.forge import DELETED, places, put
from benchmarks._faults.hooks import Counter, Killer, install
from benchmarks._faults.outcomes import Ending, Table, Trial, in_turn, worst
from benchmarks._faults.processes import Worker, call, traceback_in
from benchmarks._faults.soak import Journal
from benchmarks._faults.state import NOTHING, between, same


def written(root: Path) -> None:
    """One file that is flushed with its folder, one flushed without it, one not at all, and one in a new folder."""
    for name, flushed in (("kept", True), ("unnamed", True), ("lost", False)):
        with open(root / f"{name}.tmp", "wb") as file:
            file.write(b"0123456789")
            file.flush()
            if flushed:
                os.fsync(file.fileno())
        os.replace(root / f"{name}.tmp", root / name)
        if name == "kept":
            folder = os.open(root, os.O_RDONLY)
            os.fsync(folder)
            os.close(folder)
    os.mkdir(root / "new")


def recorded(root: Path, blobs: Path) -> dict[str, Any]:
    recorder = Recorder(root, blobs)
    install(recorder, root)
    written(root)
    recorder.note()
    return {"top": recorder.top, "cut": recorder.cuts[-1].to_dict()}


def test_a_cut_of_power_leaves_what_was_flushed(tmp_path: Path) -> None:
    found = call(recorded, tmp_path / "disk", tmp_path / "blobs", folder=tmp_path / "child").value
    left = {}
    for variant in ("strict", "empty", "torn"):
        Cut.from_dict(found["cut"]).rebuild(variant, found["top"], tmp_path / "blobs", tmp_path / variant)
        left[variant] = {path.name: path.read_bytes() if path.is_file() else None for path in (tmp_path / variant).iterdir()}
    assert left["strict"] == {"kept": b"0123456789"}
    assert left["empty"] == {"kept": b"0123456789", "unnamed": b"0123456789", "lost": b"", "new": None}
    assert left["torn"] == left["empty"] | {"lost": b"01234"}


def counted(root: Path) -> list[tuple[str, str]]:
    counter = Counter()
    install(counter, root)
    here = os.open(root, os.O_RDONLY)
    os.close(os.open("inside", os.O_WRONLY | os.O_CREAT, dir_fd=here))
    os.replace("inside", "moved", src_dir_fd=here, dst_dir_fd=here)
    (root / "text").write_text("x")
    (root.parent / "outside").write_text("x")
    os.unlink("moved", dir_fd=here)
    return [(name, os.path.basename(path)) for name, path in counter.seen]


def test_operations_are_seen_by_path_and_by_open_folder(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    seen = call(counted, tmp_path / "root", folder=tmp_path / "child").value
    assert seen == [["open", "inside"], ["replace", "moved"], ["open", "text"], ["unlink", "moved"]]


def killed(root: Path, at: int, when: str) -> None:
    install(Killer(at, when), root)
    written(root)


@pytest.mark.parametrize(("at", "when", "left"), [(0, "before", []), (0, "after", ["kept.tmp"]), (1, "torn", ["kept.tmp"])])
def test_kills_come_where_they_are_asked_for(tmp_path: Path, at: int, when: str, left: list[str]) -> None:
    (tmp_path / "root").mkdir()
    ended = call(killed, tmp_path / "root", at, when, folder=tmp_path / "child")
    assert ended.killed
    assert os.listdir(tmp_path / "root") == left
    if when == "torn":
        assert (tmp_path / "root" / "kept.tmp").read_bytes() == b"01234"


def failing(what: str) -> int:
    if what == "crash":
        os.abort()
    if what == "hang":
        os.read(os.pipe()[0], 1)
    if what == "fail":
        raise ZeroDivisionError("by hand")
    return 3


def test_a_worker_tells_crashes_hangs_and_tracebacks_apart(tmp_path: Path) -> None:
    with Worker(tmp_path / "worker") as worker:
        assert worker.ask(failing, "no").value == 3
        assert worker.ask(failing, "crash").code == -6
        assert worker.ask(failing, "hang", limit=0.2).hung
        assert traceback_in(worker.ask(failing, "fail").err).startswith("ZeroDivisionError: by hand (File ")
        assert worker.ask(failing, "no").value == 3


def test_what_was_lost_is_seen() -> None:
    before = NOTHING | {"generation": 1, "items": {"a": "1", "b": "2"}, "spaces": {"s": {"a": "x"}}}
    after = before | {"generation": 2, "items": {"a": "3", "b": "2"}, "spaces": {"s": {"a": "y"}}}
    assert between(before, before, after) == between(before, after, after) == ""
    assert between(before, before | {"items": {"a": "1"}}, after) == "items: b was lost"
    assert between(before, before | {"spaces": {"s": {"a": "z"}}}, after) == "s: a is neither what it was nor what it becomes"
    assert "generation 0" in between(before, before | {"generation": 0}, after)
    assert same(before, before | {"generation": 9}) == ""
    assert same(before, after) == "items: a: 1 ≠ 3"


def test_a_journal_says_what_a_generation_must_and_must_not_hold(tmp_path: Path) -> None:
    Journal.write(tmp_path, "came", [1, 2, 3], 4)
    Journal.write(tmp_path, "went", [1], None)
    Journal.write(tmp_path, "went", [1], 6)
    Journal.write(tmp_path, "went", [2], None)
    journal = Journal.read(tmp_path)
    assert [journal.surely_in(g) for g in (3, 4, 6)] == [[], [1, 3], [3]]
    assert [journal.surely_not_in(g) for g in (5, 6)] == [set(), {1}]


def test_documents_are_changed_everywhere() -> None:
    document = {"a": [{"b": 1}, 2], "c": {}}
    assert list(places(document)) == [("a",), ("a", "0"), ("a", "0", "b"), ("a", "1"), ("c",)]
    put(document, ("a", "0", "b"), -1)
    put(document, ("c",), DELETED)
    assert document == {"a": [{"b": -1}, 2]}
    assert all(mutated(b"0123456789" * 9, random.Random(i)) != b"0123456789" * 9 for i in range(50))


def test_the_table_counts_and_says_how_to_repeat() -> None:
    table = Table(7)
    cases = in_turn([["x 1", "x 2"], iter(["y 1"])], lambda case: Trial("kills", case, Ending.HELD))
    for trial in cases:
        table.add(trial)
    table.add(Trial("flips", "store.json 1 2", *worst([(Ending.DETECTED, ""), (Ending.WRONG, "seen"), (Ending.HARMLESS, "")])))
    assert list(table.lines())[2:] == [
        "| kills | 3 | 3 | 0 | 0 | 0 | 0 | 0 | 0 | 0 |",
        "| flips | 1 | 0 | 0 | 0 | 1 | 0 | 0 | 0 | 0 |",
        "| all | 4 | 3 | 0 | 0 | 1 | 0 | 0 | 0 | 0 |",
    ]
    assert table.repeat(table.faults[0]).endswith('--only flips --seed 7 --case "store.json 1 2"')
