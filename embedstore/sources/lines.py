"""JSON lines from a stream that can be read once, such as standard input."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import IO, TYPE_CHECKING, Any

from embedstore._core.column_types import as_text
from embedstore.errors import SourceError, UsageError
from embedstore.sources.base import BATCH_ROWS, ID, free_name, kept_names, renamed
from embedstore.sources.files import relative_to
from embedstore.sources.records import SNIFFED, JsonColumns, as_batches, record_of
from embedstore.spec import MODALITIES

if TYPE_CHECKING:
    import pyarrow as pa


LINE_BYTES = 64 << 20
"""Most bytes of a line, which is parsed as a whole."""


class LinesSource:
    """One JSON object a line, in their order; never more than a batch of them in memory.

    Columns as in a table; paths are relative to the working directory. The types of the metadata are learned as it comes, from
    `SNIFFED` lines at first, which are waited for.

    Parameters
    ----------
    stream : binary file
    columns : mapping, optional
        ``"id"`` or modality → key.
    name : str
        What messages call it.
    bare : bool
        As in a `embedstore.sources.table.TableSource`.
    """

    def __init__(
        self,
        stream: IO[bytes],
        columns: Mapping[str, str] | None = None,
        name: str = "standard input",
        *,
        bare: bool = False,
    ) -> None:
        self._name = name
        records = self._parsed(stream)
        first = list(islice(records, SNIFFED))
        if not first:
            raise SourceError(f"{name} is empty; expected one JSON object a line.")
        keys = list(dict.fromkeys(key for _, record in first for key in record))
        self._columns = self._assigned(keys, columns or {})
        if not self.modalities and not bare:
            raise SourceError(
                f"{name} has no key called {', '.join(MODALITIES)}. Keys: {', '.join(keys)}. "
                "Name one, such as --image-column NAME."
            )
        self._metadata = JsonColumns((record for _, record in first), without=self._columns.values())
        self._kept: dict[str, str] = {}
        self._records: Iterator[tuple[int, Mapping[str, Any]]] | None = chain(first, records)

    @property
    def name(self) -> str:
        return self._name

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(m for m in MODALITIES if m in self._columns)

    def count(self) -> int | None:
        return None

    def batches(self) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        if self._records is None:
            raise SourceError(f"{self._name} can be read only once.")
        records, self._records = self._records, None
        fixed = [(name, pa.string()) for name in (ID, *self.modalities)]
        return as_batches(
            self._rows(records),
            lambda: pa.schema([*fixed, *((self._kept[key], kind) for key, kind in self._metadata.types().items())]),
        )

    def leave_text(self, names: Iterable[str]) -> None:
        """See `embedstore.sources.base.Source`."""
        self._metadata.leave_text(names, free_name)

    @property
    def notes(self) -> list[str]:
        """The keys that have another name in the store."""
        return renamed(self._kept)

    def _rows(self, records: Iterator[tuple[int, Mapping[str, Any]]]) -> Iterator[dict[str, Any]]:
        while group := list(islice(records, BATCH_ROWS)):
            self._metadata.learn(record for _, record in group)
            self._kept = kept_names(self._metadata.kinds, self._name)
            for n, record in group:
                yield self._row(n, record)

    def _row(self, n: int, record: Mapping[str, Any]) -> dict[str, Any]:
        row = {self._kept[k]: v for k, v in self._metadata.values(record, f"{self._name}: line {n}").items()}
        for word, key in self._columns.items():
            value = as_text(record.get(key))
            row[word] = value if value and value.strip() else None
            if row[word] and word not in (ID, "text"):
                row[word] = relative_to(os.getcwd(), row[word])
        row[ID] = self._id(n, record)
        return row

    def _id(self, n: int, record: Mapping[str, Any]) -> str:
        named = next((word for word in (ID, "image", "video", "audio") if word in self._columns), None)
        if named is None:
            return str(n - 1)
        value = as_text(record.get(self._columns[named]))
        if value is None:
            raise SourceError(f"{self._name}: line {n} has no {self._columns[named]!r}, which gives the id.")
        return value

    def _assigned(self, keys: list[str], named: Mapping[str, str]) -> dict[str, str]:
        by_lower = {key.lower(): key for key in reversed(keys)}
        found = {word: by_lower[word] for word in (ID, *MODALITIES) if word in by_lower}
        for word, key in named.items():
            if key not in keys:
                raise UsageError(f"{self._name} has no key {key!r} in its first {SNIFFED:,} lines. Keys: {', '.join(keys)}.")
            found = {w: k for w, k in found.items() if k != key} | {word: key}
        return found

    def _parsed(self, stream: IO[bytes]) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """(line number, object), blank lines skipped."""
        for n, line in enumerate(iter(lambda: stream.readline(LINE_BYTES + 1), b""), start=1):
            if len(line) > LINE_BYTES:
                raise SourceError(f"{self._name}: line {n} has more than {LINE_BYTES:,} bytes.")
            if not line.strip():
                continue
            try:
                record = record_of(line)
            except ValueError as error:
                raise SourceError(f"{self._name}: line {n} {error}") from error
            yield n, record
