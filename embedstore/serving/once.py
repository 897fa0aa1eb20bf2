"""Values that threads ask for again and again: each made once, the last ones kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Once(Generic[Key, Value]):
    """Threads share it; values asked for longest ago make room.

    Parameters
    ----------
    limit : int
        What the values that are kept may weigh together.
    weigh : callable, optional
        What one weighs; by default 1, so that `limit` is their number.
    """

    def __init__(self, limit: int, weigh: Callable[[Any], int] = lambda value: 1) -> None:
        self._limit, self._weigh, self._weight = limit, weigh, 0
        self._kept: OrderedDict[Key, Value] = OrderedDict()
        self._making: dict[Key, Future[Value]] = {}
        self._lock = threading.Lock()

    def get(self, key: Key, make: Callable[[], Value]) -> Value:
        """What `make` returns, made once for each key as long as there is room for it.

        Whoever asks while it is made waits for it; what `make` raises is raised there, too, and the next one tries again.
        """
        made: Future[Value] = Future()
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            making = self._making.setdefault(key, made)
        if making is not made:
            return making.result()
        try:
            value = make()
            self._keep(key, value)
            made.set_result(value)
        except BaseException as error:
            made.set_exception(error)
        finally:
            with self._lock:
                del self._making[key]
        return made.result()

    def _keep(self, key: Key, value: Value) -> None:
        with self._lock:
            self._kept[key] = value
            self._weight += self._weigh(value)
            while self._weight > self._limit:
                self._weight -= self._weigh(self._kept.popitem(last=False)[1])
