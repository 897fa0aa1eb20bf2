"""Work that is done ahead comes in order, is bounded, and is cancelled where nobody asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from typing import NamedTuple

from embedstore._core.ordered import ahead


class Entry(NamedTuple):
    number: int
    future: Future[None]


def test_entries_come_in_order_and_so_many_ahead() -> None:
    begun: list[Entry] = []

    def entries() -> Iterator[Entry]:
        for i in range(10):
            begun.append(Entry(i, Future()))
            yield begun[-1]

    passed = ahead(entries(), 3, lambda entry: 1)
    assert next(passed).number == 0
    assert len(begun) == 4
    begun[1].future.set_result(None)
    assert next(passed).number == 1  # done: passed on at once
    assert next(passed).number == 2
    assert len(begun) == 6
    passed.close()  # type: ignore[attr-defined]
    assert [entry.future.cancelled() for entry in begun] == [False, False, False, True, True, True]


def test_what_has_no_future_waits_for_what_came_before_it_alone() -> None:
    first = Entry(0, Future())
    assert list(ahead(iter([first, "end"]), 5, lambda entry: 1)) == [first, "end"]
    assert next(ahead(iter(["end", first]), 5, lambda entry: 1)) == "end"
