"""One generation of a store as it is served: its searcher, and what is asked of its items again and again."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from embedstore.errors import EmbedstoreError, UsageError
from embedstore.heads import TargetsHead
from embedstore.heads.io import HeadRecord
from embedstore.retrieval.aligned_spaces import ProjectedSpace, SearchableSpace
from embedstore.retrieval.searcher import Searcher
from embedstore.serving.filters import compiled, filterable
from embedstore.serving.models import Condition
from embedstore.serving.once import Once
from embedstore.sources.base import RESERVED
from embedstore.spec import MODALITIES
from embedstore.store import Store
from embedstore.store.items import ID
from embedstore.training.saved import open_head

__all__ = ["Session"]

Rows = npt.NDArray[np.int64]
Value = TypeVar("Value")

KEPT = 256
"""Of filters, columns and the like that a session keeps, each."""
WARM_K, WARM_ROWS = 10, 48


class Session:
    """What requests see of a store: one generation, whatever is committed meanwhile. Threads share it.

    Parameters
    ----------
    store : Store
    device : str
        For encoding queries.
    before : Session, optional
        Of the same store: its encoders are taken over; of the same `Store` object, where a head or an index alone is another,
        all that was read of items and vectors.
    """

    def __init__(self, store: Store, *, device: str = "auto", before: Session | None = None) -> None:
        self.store = store
        self.searcher: Searcher = Searcher(store, device=device, resident=True, before=before.searcher if before else None)
        self.types = store.items.column_types()
        self.payloads = [name for name in MODALITIES if name in self.types]
        """Columns of texts and files, as far as the store has them."""
        self.columns = [name for name in self.types if name not in RESERVED]
        """Columns of metadata."""
        same = before if before is not None and before.store is store else None
        self.maps: dict[str, Any] = same.maps if same else {}
        """Maps that were made of this generation, by their keys."""
        self.drawn: dict[tuple[str, str], Any] = before.drawn if before else {}
        """The last map of each space by each method, of whichever generation."""
        self._kept: Once[Hashable, Any] = same._kept if same else Once(KEPT)
        self._kept_of_heads: Once[Hashable, Any] = Once(KEPT)

    @property
    def generation(self) -> int:
        return self.store.generation

    @cached_property
    def rows(self) -> Rows:
        """Every item (n,), in the order of the store."""
        return self.store.items.rows

    def warm(self) -> Session:
        """Open every index and read what searches read, so that no request waits for it; returns self."""
        for space in self.searcher.queries.spaces.values():
            if len(space):
                query = np.asarray(space.take(space.rows[:1]), np.float32)
                for _ in range(2):  # exact search keeps its copy from the second on
                    self.searcher.nearest(space, query if query.any() else query + 1, min(WARM_K, len(space)))
        _ = self.rows, self.store.items.id_table
        return self

    def read_ahead(self) -> None:
        """Read the columns that answers have, where they are small; requests need not wait for the end."""
        lookup, columns = self.store.items.lookup, [ID, *self.payloads, *self.columns]
        lookup.values(self.rows[:WARM_ROWS], columns)  # what is imported for it is there as well
        lookup.read_ahead(columns)

    def keep(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """What `make` returns of items and vectors, made once for each key as long as there is room for it; see `Once.get`."""
        kept: Value = self._kept.get(key, make)
        return kept

    def keep_of_heads(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """`keep` for what depends on heads, which may be others in the same generation."""
        kept: Value = self._kept_of_heads.get(key, make)
        return kept

    def where(self, conditions: Sequence[Condition] | None) -> str | None:
        """A filter as the SQL that the store takes."""
        return compiled(conditions, self.types)

    def matching(self, where: str | None) -> Rows:
        """Rows (n,) of the items that match a condition, ascending."""
        if where is None:
            return self.rows
        return self.searcher.filters.rows(where)

    def column(self, name: str) -> Any:
        """The values of a column for every item, in the order of `rows`: a pyarrow array."""
        known = filterable(self.types)
        if name not in known:
            raise UsageError(f"No column is called {name!r}. Columns: {', '.join(known)}.")
        return self.keep(("column", name), lambda: self.store.items.table([name]).column(name).combine_chunks())

    def head(self, name: str) -> HeadRecord:
        """A saved head; `UsageError` lists those there are."""
        return self.keep_of_heads(("head", name), lambda: open_head(self.store, name))

    def sees(self, record: HeadRecord, rows: Rows) -> npt.NDArray[np.bool_]:
        """Which of the items at `rows` (n,) have any of a head's inputs."""
        inputs = [self.store.spaces[name] for name in record.inputs if name in self.store.spaces]
        return np.asarray(np.any([np.zeros(len(rows), bool), *(space.has(rows) for space in inputs)], axis=0))

    def space(self, name: str) -> SearchableSpace:
        """A space that can be searched; `UsageError` lists those there are."""
        return self.searcher.queries.space(name)

    def stored(self, names: Sequence[str]) -> list[str]:
        """Names of stored spaces, each once; without any, the first that has an encoder's vectors."""
        for name in names:
            self.store.space(name)
        if not self.store.spaces:
            raise UsageError(f"{self.store.path} has no space yet. Embed something first.")
        return list(dict.fromkeys(names)) or [next(iter(self.store.spaces))]

    def describe(self, *, writable: bool, version: str) -> dict[str, Any]:
        """The document of ``GET /v1/store``."""
        return {
            "name": self.store.path.name,
            "version": version,
            "generation": self.generation,
            "n_items": len(self.store),
            "writable": writable,
            "spaces": [self._space(space) for space in self.searcher.queries.spaces.values()],
            "columns": [{"name": name, "type": kind} for name, kind in self.store.items.column_words().items()],
            "heads": self.keep_of_heads("heads", self._heads),
        }

    def _space(self, space: SearchableSpace) -> dict[str, Any]:
        queries = self.searcher.queries
        accepts = [m for m in MODALITIES if m == space.spec.modality or queries.crosses(space, m)]
        base = space.base if isinstance(space, ProjectedSpace) else space
        return {
            "name": space.name,
            "modality": space.spec.modality,
            "dim": space.dim,
            "encoder": base.spec.name,
            "fingerprint": space.fingerprint,
            "accepts": accepts,
            "n": len(space),
            "aligned": isinstance(space, ProjectedSpace),
            "index": self.index_of(space),
        }

    def index_of(self, space: SearchableSpace) -> dict[str, Any] | None:
        """Type, number and measured recall of the index of a space; None where it is searched exactly."""
        opened = self.searcher.index(space)
        report = opened.index.report_
        if opened.index.base_ is None:
            return None
        number = opened.record.number if opened.record else 0
        return {"type": report.type, "generation": number, "recall": report.level(None).lowest.value}

    def _heads(self) -> list[dict[str, Any]]:
        """Heads that predict; those that align spaces are told as spaces."""
        found = []
        for name in self.store.heads:
            try:
                record = self.head(name)
            except EmbedstoreError:  # an alignment, or one that is damaged, which costs no other
                continue
            several = isinstance(record.head, TargetsHead)
            classes = None if several else getattr(record.head, "classes_", None)
            found.append(
                {
                    "name": name,
                    "task": str(record.report.get("task", record.head.task)),
                    "target": record.target,
                    "targets": list(record.head.targets_) if isinstance(record.head, TargetsHead) else [],
                    "classes": [] if classes is None else [str(one) for one in classes.tolist()],
                    "inputs": list(record.inputs),
                }
            )
        return found
