"""A few items by row: the same values as from whole parts, in bounded memory, whatever was removed, added or left out."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from helpers import write_csv

import embedstore as es
from embedstore.encoders.hash import HashEncoder
from embedstore.errors import StoreError
from embedstore.sources import MemorySource
from embedstore.store import parts
from embedstore.store.lookup import Lookup

N = 300


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> es.Store:
    """Three parts of several row groups, a column that only one part has, and rows that are removed."""
    monkeypatch.setattr(parts, "GROUP", 32)
    path, encoder = tmp_path / "a.store", HashEncoder(8, "text", "hash:8")
    for first, more in ((0, {}), (100, {"late": [f"only here {i}" for i in range(100)]}), (200, {})):
        ids = [f"i{first + i:03d}" for i in range(100)]
        columns = {"id": ids, "text": [f"text of {i}" for i in ids], "price": [float(first + i) for i in range(100)], **more}
        es.embed(MemorySource(columns), path, text=encoder)
    opened = es.Store.open(path)
    with opened.writer() as writer:
        writer.commit(removed=np.asarray([3, 150, 299]))
    return es.Store.open(path)


def expected(store: es.Store, rows: np.ndarray, columns: list[str]) -> list[list[object]]:
    table = store.items.take(rows, columns)
    return [table.column(name).to_pylist() for name in columns]


def test_values_are_those_of_whole_parts(store: es.Store) -> None:
    rng = np.random.default_rng(0)
    columns = ["id", "late", "price", "text"]
    for size in (1, 2, 10, 500):
        rows = rng.choice(store.items.rows, size)
        assert store.items.lookup.values(rows, columns) == expected(store, rows, columns)
    assert store.items.lookup.values(np.empty(0, np.int64), columns) == [[], [], [], []]
    assert "only here" in str(store.items.lookup.values(np.asarray([120]), ["late"]))


def test_memory_is_bounded(store: es.Store) -> None:
    part = store.items.lookup
    small = Lookup(store.files, part._parts, limit=2000)
    rng = np.random.default_rng(1)
    for _ in range(50):
        rows = rng.choice(store.items.rows, 5)
        assert small.values(rows, ["id", "text"]) == expected(store, rows, ["id", "text"])
        kept = [column.nbytes for column in small._kept.values() if column is not None]
        assert sum(kept) == small._bytes <= 2000


def test_a_row_that_is_not_there(store: es.Store) -> None:
    for row in (N, 10**9, -1):
        with pytest.raises(StoreError, match=f"Row {row} is not in the store"):
            store.items.lookup.values(np.asarray([5, row]), ["id"])


def test_rows_with_gaps(store: es.Store) -> None:
    es.compact(store.path, force=True)
    compacted = es.Store.open(store.path)
    rows = compacted.items.rows[::-7]
    assert compacted.items.lookup.values(rows, ["id", "late"]) == expected(compacted, rows, ["id", "late"])
    with pytest.raises(StoreError, match="Row 150 is not in the store"):
        compacted.items.lookup.values(np.asarray([150]), ["id"])


def test_a_few_ids_before_and_after_there_is_a_table(store: es.Store) -> None:
    ids = ["i000", "i299", "i150", "nobody", "i298"]
    for _ in range(6):
        assert store.items.known_rows(ids).tolist() == [0, -1, -1, -1, 298]


def test_threads_share_it(store: es.Store) -> None:
    rows = store.items.rows
    wanted = expected(store, rows, ["id", "text"])
    small = Lookup(store.files, store.items.lookup._parts, limit=3000)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: small.values(rows[i::9], ["id", "text"]), range(9)))
    for i, (ids, texts) in enumerate(found):
        assert [ids, texts] == [wanted[0][i::9], wanted[1][i::9]]


def test_columns_of_every_type(tmp_path: Path) -> None:
    table = write_csv(tmp_path / "t.csv", [{"id": f"{i}", "text": f"t{i}", "day": "2026-01-02", "yes": "x"} for i in range(9)])
    es.embed(table, tmp_path / "s", text="hash:8", types={"day": "date"})
    store = es.Store.open(tmp_path / "s")
    assert store.items.column_types()["day"] == pa.date32()
    assert store.items.lookup.values(store.items.rows, ["day", "yes"]) == expected(store, store.items.rows, ["day", "yes"])


class Counting(Lookup):
    """Says what it decodes, and waits there until it may go on."""

    def __init__(self, *given: object) -> None:
        super().__init__(*given)  # type: ignore[arg-type]
        self.read: list[tuple[int, int, tuple[str, ...]]] = []
        self.began, self.may_go_on = threading.Event(), threading.Event()
        self.may_go_on.set()

    def _read(self, part, group, names):  # type: ignore[no-untyped-def]
        self.read.append((part, group, tuple(names)))
        self.began.set()
        assert self.may_go_on.wait(30)
        return super()._read(part, group, names)


def test_threads_decode_a_group_once_and_others_meanwhile(store: es.Store) -> None:
    """Who misses a group that is being decoded waits for it; what is kept, and other groups, are answered meanwhile."""
    lookup = Counting(store.files, store.items.lookup._parts)
    (expected_id,) = lookup.values(np.asarray([0]), ["id"])
    lookup.read.clear()
    lookup.began.clear()
    lookup.may_go_on.clear()
    with ThreadPoolExecutor(8) as pool:
        same = [pool.submit(lookup.values, np.asarray([row]), ["text"]) for row in (0, 1, 2, 4)]
        assert lookup.began.wait(30)
        assert lookup.values(np.asarray([0]), ["id"]) == [expected_id]  # kept: nothing is waited for
        lookup.began.clear()
        other = pool.submit(lookup.values, np.asarray([250]), ["text"])
        assert lookup.began.wait(30)  # another group is decoded beside the first
        assert not any(one.done() for one in (*same, other))
        lookup.may_go_on.set()
        found = [one.result(30) for one in (*same, other)]
    assert [values for ((values,),) in found] == [f"text of i{row:03d}" for row in (0, 1, 2, 4, 250)]
    assert lookup.read == [(0, 0, ("text",)), (2, 1, ("text",))]


def test_what_is_read_ahead_is_not_decoded_again_and_has_room(store: es.Store) -> None:
    lookup = Counting(store.files, store.items.lookup._parts)
    lookup.read_ahead(["id", "late", "price"])
    read = list(lookup.read)
    assert len(read) == 12
    columns = ["price", "late", "id"]
    assert lookup.values(store.items.rows, columns) == expected(store, store.items.rows, columns)
    assert lookup.read == read
    parts = store.items.lookup._parts
    for limit in (sum(part.bytes for part in parts), 2000):
        small = Counting(store.files, parts, limit)
        small.read_ahead(["id"])
        assert small.read == []


def test_a_group_that_could_not_be_read_is_asked_for_again(store: es.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    lookup = Counting(store.files, store.items.lookup._parts)

    def broken(*_: object) -> None:
        raise StoreError("The disk is gone.")

    monkeypatch.setattr(Lookup, "_read", broken)
    with pytest.raises(StoreError, match="The disk is gone"):
        lookup.values(np.asarray([0]), ["id"])
    monkeypatch.undo()
    assert lookup.values(np.asarray([0]), ["id"]) == [["i000"]]


def test_looking_for_an_id_keeps_no_column(store: es.Store) -> None:
    """It reads every id once, of which a few are wanted: what answers show stays in memory instead."""
    lookup = store.items.lookup
    assert store.items.known_rows(["i299", "i100", "nobody"]).tolist() == [-1, 100, -1]
    assert lookup._bytes == 0
    lookup.values(np.asarray([100]), ["id", "text"])
    kept = dict(lookup._kept)
    assert store.items.known_rows(["i100"]).tolist() == [100]
    assert dict(lookup._kept) == kept
