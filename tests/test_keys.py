"""The key table against a dict, collisions of the first half included."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedstore._keys import KeyTable, hash_payload, hash_strings, keys_from_bytes

halves = st.integers(0, 5)  # few values, so that first halves collide


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.tuples(halves, halves), max_size=12), max_size=12), st.sampled_from([1, 3, 65536]))
def test_table_equals_dict(batches: list[list[tuple[int, int]]], segment: int) -> None:
    table, expected = KeyTable(segment), {}
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


@pytest.mark.parametrize("segment", [1, 65536])
def test_assign_replaces_values(segment: int) -> None:
    keys = hash_strings(["a", "b", "c"])
    table = KeyTable(segment)
    table.insert(keys, np.array([0, 1, 2]))
    table.assign(keys[1:2], np.array([7]))
    assert table.lookup(keys).tolist() == [0, 7, 2]


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


def test_strings_and_payloads_share_one_hash() -> None:
    assert (hash_strings(["ä"]) == keys_from_bytes(hash_payload("ä".encode()))).all()
