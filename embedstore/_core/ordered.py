"""Work that a thread pool does ahead of what asks for it, in order. Standard library only."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def ordered_map(pool: ThreadPoolExecutor, function: Callable[[T], R], items: Iterable[T], *, window: int) -> Iterator[R]:
    """`function` of each item in order, computed by `pool` at most `window` items ahead."""
    pending: deque[Future[R]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) >= window:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()


def ahead(entries: Iterable[T], most: int, weight: Callable[[T], int]) -> Iterator[T]:
    """`entries` in order, taken up to a weight of `most` before they are passed on, so that their ``future`` is begun.

    An entry that has no future, or whose future is done, is passed on as soon as it is the first. Futures that nobody asked for
    are cancelled in the end.
    """
    held: deque[T] = deque()
    total = 0
    try:
        for entry in entries:
            held.append(entry)
            total += weight(entry)
            while held and (total > most or _done(held[0])):
                total -= weight(held[0])
                yield held.popleft()
        while held:
            yield held.popleft()
    finally:
        for entry in held:
            if (future := getattr(entry, "future", None)) is not None:
                future.cancel()


def _done(entry: object) -> bool:
    future = getattr(entry, "future", None)
    return future is None or future.done()
