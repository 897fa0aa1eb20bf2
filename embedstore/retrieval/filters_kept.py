"""`Filters`: which items of a store, and which positions of a space, match a filter; the last ones asked for are kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from embedstore.retrieval.aligned_spaces import SearchableSpace
from embedstore.store import Store

Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value", Mask, Rows)

KEPT, KEPT_BYTES = 64, 128 << 20
"""Masks, and rows, that are kept: so many, and no more bytes than that beside the last one. Ten million rows are 80 MB."""


class Filters:
    """The filters of one store. Threads may share it.

    Parameters
    ----------
    store : Store
    before : Filters, optional
        Of the same `Store` object: the rows that it found are taken over.
    """

    def __init__(self, store: Store, before: Filters | None = None) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._masks: OrderedDict[tuple[str, str], Mask] = OrderedDict()
        self._matches: OrderedDict[str, Rows] = OrderedDict()
        if before is not None:
            with before._lock:
                self._matches.update(before._matches)

    def positions(self, space: SearchableSpace, where: str | None) -> Mask | None:
        """Which positions (n,) of `space.raw` may be found; None for all."""
        if where is None:
            return space.live
        key = (space.name, where)
        with self._lock:
            mask = self._masks.get(key)
        if mask is None:
            mask = self.among(space, self.rows(where))
        with self._lock:
            return _kept(self._masks, key, mask)

    def rows(self, where: str) -> Rows:
        """Rows (n,) ascending of the items that match a filter."""
        with self._lock:
            rows = self._matches.get(where)
        if rows is None:
            rows = self._store.where(where)  # may take long: other searches go on
        with self._lock:
            return _kept(self._matches, where, rows)

    def among(self, space: SearchableSpace, rows: Rows) -> Mask:
        """Which positions (n,) of `space.raw` are of items in `rows` (m,) and not removed."""
        table = np.zeros(self._store.manifest.next_row + 1, bool)
        table[rows] = True
        mask = table[space.raw_rows]
        mask = mask if space.live is None else mask & space.live
        mask.flags.writeable = False
        return mask


def _kept(cache: OrderedDict[Key, Value], key: Key, value: Value) -> Value:
    """What `cache` has under `key`, which is `value` if it had nothing; the keys asked for longest ago make room."""
    found = cache.setdefault(key, value)
    cache.move_to_end(key)
    while len(cache) > KEPT or (len(cache) > 1 and sum(kept.nbytes for kept in cache.values()) > KEPT_BYTES):
        cache.popitem(last=False)
    return found
