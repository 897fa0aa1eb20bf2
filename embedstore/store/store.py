"""`Store`: a store's folder, to read, to look at through views, and to write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from embedstore._core.arguments import strings
from embedstore._core.distinct import distinct
from embedstore.store.reader import StoreReader
from embedstore.store.view import View, make_view
from embedstore.store.writer import StoreWriter


class Store(StoreReader):
    """A folder of items, their vectors in one or more spaces, and the heads trained on them.

    Reading needs no lock: everything that a generation names is immutable. `refresh` moves to the latest generation.
    """

    def view(
        self,
        *,
        inputs: Sequence[str],
        target: str | Sequence[str] | None = None,
        where: str | None = None,
        group: str | None = None,
        seed: int = 0,
    ) -> View:
        """Items joined over the spaces `inputs`: what a head trains on. See `embedstore.store.view.View`.

        Several targets are a list of columns, or a text with commas between their names.
        """
        return make_view(self, inputs=strings(inputs, "inputs"), target=target, where=where, group=group, seed=seed)

    def writer(self, *, discard_if_empty: bool = False) -> StoreWriter:
        """A context manager that holds the store's one write lock."""
        return StoreWriter(self, discard_if_empty=discard_if_empty)

    def remove(self, ids: Sequence[str]) -> Self:
        """Remove items by id (tombstones; the rows are never reused) and return the new generation.

        Ids that are not there are left out, so that a removal can be repeated: `absent` says which they are.
        """
        ids = strings(ids, "ids")
        with self.writer() as writer:
            rows = writer.store.items.known_rows(ids)
            if (rows >= 0).any():
                writer.commit(removed=distinct(rows[rows >= 0]))
        return self.refresh()
