"""`EngineExporter`: targets that are written item by item, and asked what they hold."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import numpy as np

from embedstore.errors import EmbedstoreError, OutputError, UsageError, one_line
from embedstore.exporting.base import Changes, Exporter, Int, Items, Plan, Progress, Slice


class EngineExporter(Exporter):
    """A database. What it holds decides what is written: a kill costs the request in progress, and twice adds nothing."""

    holds: ClassVar[str] = "collection"
    """What it calls the place of one export."""
    slice_bytes: ClassVar[int] = 8 << 20
    """Of vectors in one request."""
    most_items: ClassVar[int] = 4096

    def __init__(self, out: str) -> None:
        super().__init__(out)
        self.slice_items = self.most_items
        self._name = ""

    @property
    def where(self) -> str:
        return f"{self.out}: {self.holds} {self._name!r}" if self._name else self.out

    def begin(self, plan: Plan) -> None:
        """Learn what the place is called, and how many items go in a request."""
        self._name = plan.name
        self.slice_items = max(1, min(self.most_items, self.slice_bytes // max(1, plan.bytes_per_item)))

    @abstractmethod
    def held(self) -> Iterator[tuple[list[str], Int]]:
        """Ids and versions of everything that is there, some at a time."""

    @abstractmethod
    def write(self, items: Slice, known: Sequence[str]) -> None:
        """Put items in the place of those with their ids; `known` are the ids that are there already."""

    @abstractmethod
    def remove(self, ids: Sequence[str]) -> None: ...

    def finish(self) -> None:
        """Make what was written durable and visible."""

    def update(self, items: Items, progress: Progress) -> Changes:
        with engine_errors(self.where):
            versions, there, gone = self._compared(items)
            for lo in range(0, len(gone), self.slice_items):
                self.remove(gone[lo : lo + self.slice_items])
            changes = Changes(removed=len(gone))
            start = 0
            for wanted, ids in items.versions(self.slice_items):
                stop = start + len(wanted)
                stale = ~there[start:stop] | (versions[start:stop] != wanted)
                if stale.any():
                    known = [ids[i] for i in np.flatnonzero(stale & there[start:stop])]
                    self.write(items.take(start + np.flatnonzero(stale)), known)
                changes.written += int(stale.sum())
                changes.unchanged += int((~stale).sum())
                progress(start := stop)
            self.finish()
        return changes

    def _compared(self, items: Items) -> tuple[Int, np.ndarray[tuple[int], np.dtype[np.bool_]], list[str]]:
        """Versions (n,) that the target has of the items, which of them are there (n,), and the ids that are not wanted."""
        versions, there = np.zeros(len(items), np.int64), np.zeros(len(items), np.bool_)
        gone: list[str] = []
        twice: list[int] = []
        for ids, held in self.held():
            at = items.positions(ids)
            gone += [ids[i] for i in np.flatnonzero(at < 0)]
            mine = at[at >= 0]
            twice += mine[there[mine]].tolist()
            versions[mine], there[mine] = held[at >= 0], True
        versions[twice] = ~versions[twice]  # two exports at once may leave an item twice: it is written again
        return versions, there, gone


AGAIN = "What was written is kept: run the same command again when that is mended."
OPENING = "Nothing was written. Check its address or path, that it answers, and that it may be written to."


@contextmanager
def engine_errors(where: str, then: str = AGAIN) -> Iterator[None]:
    """What an engine says, on one line that names it and says what to do."""
    try:
        yield
    except (EmbedstoreError, MemoryError):
        raise
    except Exception as error:
        said = one_line(str(getattr(error, "message", "") or error), 200)
        raise OutputError(f"{where}: {said} ({type(error).__name__}). {then}") from error


def not_a_file(out: str, what: str) -> None:
    """Refuse a file where an engine keeps a folder."""
    if "://" not in out and Path(out).is_file():
        raise UsageError(f"{out} is a file; {what} keeps a folder. Choose another path.")
