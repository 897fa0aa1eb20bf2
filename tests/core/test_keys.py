"""The key table against a dict, collisions of the first half included."""

from __future__ import annotations

import os
import pickle
import resource
import tempfile
import time
import tracemalloc
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from embedstore._core.distinct import distinct
from embedstore._core.keys import KeyTable, hash_payload, hash_strings, keys_from_bytes

halves = st.integers(0, 5)  # few values, so that first halves collide


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.tuples(halves, halves), max_size=12), max_size=12), st.sampled_from([1, 3, 65536]), st.booleans())
def test_table_equals_dict(batches: list[list[tuple[int, int]]], segment: int, on_disk: bool) -> None:
    table, expected = KeyTable(Path(tempfile.gettempdir()) if on_disk else None, segment=segment), {}
    for batch in batches:
        new = [key for key in dict.fromkeys(batch) if key not in expected]
        values = np.arange(len(expected), len(expected) + len(new))
        table.insert(np.array(new, dtype=np.uint64).reshape(-1, 2), values)
        expected.update(zip(new, values.tolist(), strict=True))
    every = [(a, b) for a in range(7) for b in range(7)]
    found = table.lookup(np.array(every, dtype=np.uint64))
    assert found.tolist() == [expected.get(key, -1) for key in every]
    assert len(table) == len(expected)
    assert table.lookup(np.empty((0, 2), np.uint64)).shape == (0,)


def test_a_large_table_takes_24_bytes_an_entry_even_while_it_grows() -> None:
    keys = np.random.default_rng(0).integers(0, 2**64, (400_000, 2), np.uint64)
    tracemalloc.start()
    table = KeyTable()
    for lo in range(0, len(keys), 4096):
        table.insert(keys[lo : lo + 4096], np.arange(lo, min(lo + 4096, len(keys))))
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 25 * len(keys)
    assert peak < 40 * len(keys)
    assert (table.lookup(keys) == np.arange(len(keys))).all()
    assert (table.lookup(keys + np.uint64(1)) == -1).all()


def test_a_large_table_on_disk_takes_little_memory_and_leaves_nothing(tmp_path: Path) -> None:
    keys = np.random.default_rng(0).integers(0, 2**64, (400_000, 2), np.uint64)
    tracemalloc.start()
    table = KeyTable(tmp_path)
    for lo in range(0, len(keys), 4096):
        table.insert(keys[lo : lo + 4096], np.arange(lo, min(lo + 4096, len(keys))))
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 2_000_000  # whatever is recent
    assert peak < 8_000_000
    assert (table.lookup(keys) == np.arange(len(keys))).all()
    assert (table.lookup(keys + np.uint64(1)) == -1).all()
    assert not list(tmp_path.iterdir())


def open_files(folder: Path) -> int:
    """How many files of this process lie in `folder`, those without a name too."""
    links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return sum(str(folder) in os.readlink(link) for link in links)


def test_a_table_that_cannot_be_written_stays_in_memory(tmp_path: Path) -> None:
    keys = np.random.default_rng(0).integers(0, 2**64, (1000, 2), np.uint64)
    missing, full = KeyTable(tmp_path / "none", segment=64), KeyTable(tmp_path, segment=64)
    full.insert(keys[:300], np.arange(300))
    assert open_files(tmp_path) == 1
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        full.insert(keys[300:], np.arange(300, 1000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    missing.insert(keys, np.arange(1000))
    for table in (missing, full):
        assert (table.lookup(keys) == np.arange(1000)).all()
    assert open_files(tmp_path) == 0  # its room is free


def test_a_table_on_disk_can_be_pickled(tmp_path: Path) -> None:
    keys = np.random.default_rng(0).integers(0, 2**64, (1000, 2), np.uint64)
    table = KeyTable(tmp_path, segment=64)
    table.insert(keys[:900], np.arange(900))
    again = pickle.loads(pickle.dumps(table))
    again.insert(keys[900:], np.arange(900, 1000))
    assert (again.lookup(keys) == np.arange(1000)).all()


@given(st.lists(st.integers(-5, 5)))
def test_distinct_values_are_those_of_a_set(values: list[int]) -> None:
    assert distinct(np.array(values, np.int64)).tolist() == sorted(set(values))


def test_distinct_values_of_many_cost_little_more_than_sorting_them() -> None:
    values = np.random.default_rng(0).integers(0, 2**40, 1_000_000)
    took = {}
    for name, function in (("sort", np.sort), ("distinct", distinct)):
        start = time.process_time()
        for _ in range(3):
            function(values)
        took[name] = time.process_time() - start
    assert took["distinct"] < 10 * took["sort"]
    assert (distinct(values) == np.unique(values)).all()


def test_strings_and_payloads_share_one_hash() -> None:
    assert (hash_strings(["ä"]) == keys_from_bytes(hash_payload("ä".encode()))).all()
