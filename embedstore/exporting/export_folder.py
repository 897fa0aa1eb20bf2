"""`FolderExporter`: targets that are files, written slice by slice, each of them whole or not there."""

from __future__ import annotations

import hashlib
import os
import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from embedstore._core.atomic_files import read_json, write_json
from embedstore._core.folders import Folder
from embedstore._core.keys import hash_strings
from embedstore._core.locks import locked
from embedstore._core.result_files import writing
from embedstore._core.unit import unit_rows
from embedstore.errors import OutputError, UsageError
from embedstore.exporting.base import ID, Array, Changes, Exporter, Found, Int, Items, Mask, Plan, Progress, Slice, check_record
from embedstore.indexing.exact import Best

if TYPE_CHECKING:
    import pyarrow as pa

RECORD_FILE = "_embedstore-export.json"
"""Readers of folders of Parquet pass over names that begin so."""
LOCK = ".embedstore-export.lock"
SCORED = 8192  # vectors at once


class FolderExporter(Exporter):
    """A folder of files and `RECORD_FILE`, which names them. What a slice is made of decides whether it is written again."""

    slice_bytes: ClassVar[int] = 128 << 20
    """Of vectors in one file."""
    most_items: ClassVar[int] = 262_144
    kind: ClassVar[str]
    nan_for_missing: ClassVar[bool] = False
    """Whether a row of NaN stands for an item without a vector."""

    def __init__(self, out: str) -> None:
        super().__init__(out)
        self._slices: list[dict[str, Any]] = []
        self._before: list[dict[str, Any]] = []
        self._all, self._same_items = "", False
        self._held = ExitStack()

    def close(self) -> None:
        self._held.close()

    @property
    def folder(self) -> Path:
        return Path(self.out)

    @abstractmethod
    def files(self, number: int) -> list[str]:
        """Names, below the folder, of the files of slice `number`."""

    @abstractmethod
    def write(self, number: int, items: Slice) -> None:
        """Write the files of a slice, each of them at once."""

    @abstractmethod
    def read(self, number: int, *, vectors: bool = True) -> tuple[pa.Table, dict[str, tuple[Array, Mask]]]:
        """A slice as it lies there: ids and metadata, and for each column vectors (n, dim) and which are there (n,)."""

    @property
    def own_columns(self) -> tuple[str, ...]:
        return (ID,)

    def begin(self, items: Items, digests: Sequence[str], done: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """What of the slices `done` before stays, now that those with `digests` are wanted."""
        return done

    def finish(self) -> None:
        """Put what was written in its place."""

    def open(self, plan: Plan) -> None:
        self._plan = plan
        self.slice_items = max(1, min(self.most_items, self.slice_bytes // max(1, plan.bytes_per_item)))
        other = "Choose another folder."
        with writing(self.folder):
            if self.folder.exists() and not self.folder.is_dir():
                raise UsageError(f"{self.out} is a file; {self.kind} is exported to a folder. {other}")
            self.folder.mkdir(parents=True, exist_ok=True)
            if not os.path.lexists(self.folder / RECORD_FILE) and set(os.listdir(self.folder)) - {LOCK}:
                raise UsageError(f"{self.out} holds other files, and no export of embedstore. {other}")
            folder = self._held.enter_context(Folder.at(self.folder))
            busy = f"Another process is exporting to {self.out}. Wait for it."
            self._held.enter_context(locked(folder, LOCK, busy=busy))
            if not os.path.lexists(self.folder / RECORD_FILE):
                self._record(complete=False)
        held = read_json(self.folder / RECORD_FILE)
        if held.get("to", self.kind) != self.kind:
            raise UsageError(f"{self.out} was exported as {held.get('to')}, not as {self.kind}. {other}")
        check_record(held, plan, self.out, other)
        slices = held.get("slices")
        self._before = slices if isinstance(slices, list) else []
        self._slices = list(self._before) if held.get("layout") == self._layout else []
        self._all = str(held.get("items", ""))
        self._was_complete = held.get("complete") is True

    @property
    def _layout(self) -> dict[str, Any]:
        """What all slices depend on."""
        metadata = [[field.name, str(field.type)] for field in self._plan.metadata]
        return {"slice_items": self.slice_items, "metadata": metadata}

    def _record(self, *, complete: bool) -> None:
        state = {"complete": complete, "items": self._all, "slices": self._slices}
        write_json(self.folder / RECORD_FILE, {**self._plan.record, "to": self.kind, "layout": self._layout, **state})

    def update(self, items: Items, progress: Progress) -> Changes:
        if self.nan_for_missing and any(items.count(column.column) < len(items) for column in self._plan.vectors):
            self.notes.append("rows of NaN stand for items that have no vector")
        with writing(self.folder):
            digests = [_digest(versions, ids) for versions, ids in items.versions(self.slice_items)]
            changes = Changes(removed=self._gone(items, digests))
            wanted = _digest_of(digests)
            self._same_items, self._all = self._all == wanted, wanted
            self._slices = self.begin(items, digests, list(self._slices))
            for number, digest in enumerate(digests):
                start, stop = number * self.slice_items, min((number + 1) * self.slice_items, len(items))
                if self._stands(number, digest):
                    changes.unchanged += stop - start
                else:
                    if number < len(self._slices):  # a kill must not leave a new file under an old digest
                        self._slices[number] = {}
                        self._record(complete=False)
                    self.write(number, items.take(np.arange(start, stop)))
                    changes.written += stop - start
                    self._slices[number : number + 1] = [self._told(number, digest, stop - start)]
                    self._record(complete=False)
                progress(stop)
            self.finish()
            self._drop(len(digests))
            self._slices = self._slices[: len(digests)]
            self._record(complete=True)
        return changes

    def path(self, name: str) -> Path:
        """Where a file of a slice lies now."""
        return self.folder / name

    def _told(self, number: int, digest: str, count: int) -> dict[str, Any]:
        sizes = {name: self.path(name).stat().st_size for name in self.files(number)}
        return {"digest": digest, "items": count, "files": sizes}

    def _stands(self, number: int, digest: str) -> bool:
        """Whether the files of a slice are those that would be written."""
        told = self._slices[number] if number < len(self._slices) else {}
        return told.get("digest") == digest and self._lies_there(number, told)

    def _lies_there(self, number: int, told: Mapping[str, Any]) -> bool:
        """Whether the files of a slice have the sizes that the record says."""
        try:
            sizes = {name: self.path(name).stat().st_size for name in self.files(number)}
        except OSError:
            return False
        return sizes == told.get("files")

    def _gone(self, items: Items, digests: Sequence[str]) -> int:
        """How many items go: of those in slices that are about to be replaced or dropped."""
        gone = 0
        for number, told in enumerate(self._before):
            same = number < len(digests) and told.get("digest") == digests[number]
            if not same and self._lies_there(number, told):
                held = self.read(number, vectors=False)[0].column(ID).to_pylist()
                gone += int((items.positions(held) < 0).sum())
        return gone

    def _drop(self, number: int) -> None:
        """Remove the files of slices from `number` on, whatever the record says: it may be of an export that was killed."""
        for found in sorted(self._lying(number), reverse=True):
            for name in self.files(found):
                (self.folder / name).unlink(missing_ok=True)

    def _lying(self, number: int) -> set[int]:
        """Numbers from `number` on of which some file lies there; a kill between two removals may have left gaps."""
        found = set[int]()
        for name in self.files(0):
            before, _, after = Path(name).name.rpartition(f"{0:05d}")
            slices = re.compile(rf"{re.escape(before)}(\d{{5,}}){re.escape(after)}")
            there = os.listdir((self.folder / name).parent)
            found.update(int(match[1]) for other in there if (match := slices.fullmatch(other)))
        return {each for each in found if each >= number}

    def parts(self, *, vectors: bool) -> Iterator[tuple[pa.Table, dict[str, tuple[Array, Mask]]]]:
        for number in range(len(self._slices)):
            yield self.read(number, vectors=vectors)

    def counts(self) -> tuple[int, dict[str, int] | None]:
        items, vectors = 0, {column.column: 0 for column in self._plan.vectors}
        for table, found in self.parts(vectors=True):
            items += table.num_rows
            for name, (x, has) in found.items():
                if len(x) != table.num_rows:
                    raise OutputError(f"{self.out}: {len(x):,} vectors in {name!r} beside {table.num_rows:,} ids.")
                vectors[name] += int(has.sum())
        return items, vectors

    def fetch(self, ids: Sequence[str]) -> dict[str, Found]:
        import pyarrow as pa

        found: dict[str, Found] = {}
        wanted = pa.array(ids, pa.string())
        for table, vectors in self.parts(vectors=True):
            at = np.flatnonzero(_is_in(table.column(ID), wanted))
            rows = table.take(pa.array(at)).to_pylist()
            for i, row in zip(at.tolist(), rows, strict=True):
                found[row[ID]] = Found(row, {name: x[i] if has[i] else None for name, (x, has) in vectors.items()})
        return found

    def prepare(self, exact: bool) -> bool:
        return exact  # a folder has no way of its own to search

    def nearest(self, column: str, queries: Array, k: int, *, exact: bool) -> list[list[str]]:
        best, ids = Best(len(queries), k), list[str]()
        for table, vectors in self.parts(vectors=True):
            x, has = vectors[column]
            names = [name for name, there in zip(table.column(ID).to_pylist(), has, strict=True) if there]
            there = x[has]
            for lo in range(0, len(there), SCORED):
                best.add(queries @ unit_rows(there[lo : lo + SCORED]).T, len(ids) + lo)
            ids += names
        return [[ids[i] for i in row if i >= 0] for row in best.sorted()[1].tolist()]


def _digest(versions: Int, ids: Sequence[str]) -> str:
    """What a slice is known by: which items, and in which state."""
    digest = hashlib.sha256(hash_strings(ids).tobytes())
    digest.update(versions.tobytes())
    return digest.hexdigest()[:32]


def _digest_of(digests: Sequence[str]) -> str:
    """What all slices together are known by."""
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:32]


def _is_in(column: Any, wanted: Any) -> Mask:
    import pyarrow.compute as pc

    return np.asarray(pc.is_in(column, wanted))
