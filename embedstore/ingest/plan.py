"""What has to be done for one chunk of a source, found with whole-column operations.

A chunk is compared with the items that the store holds: which are new, whose payload or metadata may have changed, which
payloads have to be read. Nothing is read or decoded here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from embedstore._core.column_values import blank
from embedstore._core.keys import Keys, KeyTable, hash_strings
from embedstore.errors import DuplicateIdError, PayloadError, SourceError
from embedstore.ingest.chunks import byte_columns
from embedstore.sources.base import BYTES, TEXT_FAILED
from embedstore.sources.confined import Root
from embedstore.spec import FILES, MODALITIES
from embedstore.store.items import ID, MTIME, ROW, SIZE, Items

if TYPE_CHECKING:
    import pyarrow as pa

Mask = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]

_OF_FILES = {modality + suffix: modality for modality in MODALITIES for suffix in (SIZE, MTIME)}


@dataclass
class SpaceWork:
    """Where the vector of each item of a chunk comes from in one space. Arrays are (n,) int64.

    Parameters
    ----------
    claim : int64
        Number of the payload among those encoded in this run, -1 where none.
    copy : int64
        Row whose vector the item shares (its own old row, or one of an identical payload), -1 where none.
    """

    claim: Rows
    copy: Rows

    @classmethod
    def empty(cls, n: int) -> SpaceWork:
        return cls(np.full(n, -1, np.int64), np.full(n, -1, np.int64))


@dataclass
class Chunk:
    """One chunk of the source beside what the store holds of it. Arrays are (n,), aligned with `table`.

    Parameters
    ----------
    start : int
        Position of its first item in the source.
    table : pyarrow.Table
        id, texts and uris, ``M.size`` and ``M.mtime_ns`` of files, metadata; its types are settled (see `Typed`).
    payloads : modality → pyarrow.ChunkedArray
        Bytes that came with the items; null: the uri is that of a file. Emptied once they have been read.
    old_row : int64
        The row of the item, -1 where it is new.
    metadata_changed : bool
        A metadata column or a uri differs from the stored one.
    missing, replaced, suspect : modality → bool
        A metadata column that is embedded is one more modality in these, under its own name.
        The payload is null; its text or path differs from the stored one; it may differ.
    inline : modality → bool
        The payload's bytes came with the item: its content hash alone says what it is.
    parts : key → columns
        What messages are made of; each is one more modality above, under the key that `Space.payload` is.
    read_failures : modality → position → PayloadError
        Of texts from the start; of other payloads filled by the reader.
    hashes : modality → uint64 (n, 2)
        Filled by the reader for those that were read; zeros elsewhere.
    was_read : modality → bool
    work : space → SpaceWork
    """

    start: int
    table: pa.Table
    payloads: dict[str, pa.ChunkedArray]
    old_row: Rows
    metadata_changed: Mask
    missing: dict[str, Mask]
    replaced: dict[str, Mask]
    suspect: dict[str, Mask]
    inline: dict[str, Mask]
    read_failures: dict[str, dict[int, PayloadError]]
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    hashes: dict[str, npt.NDArray[np.uint64]] = field(default_factory=dict)
    was_read: dict[str, Mask] = field(default_factory=dict)
    work: dict[str, SpaceWork] = field(default_factory=dict)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def id(self, position: int) -> str:
        """The id of the item at `position`."""
        return str(self.table.column(ID)[position].as_py())

    def unread(self, modality: str) -> Mask:
        """Items (n,) whose file of `modality` was to be read, for itself or in a message, and could not be."""
        unread = np.zeros(len(self), bool)
        for key in (modality, *(key for key, parts in self.parts.items() if modality in parts)):
            unread[[i for i, error in self.read_failures[key].items() if error.stage == "read"]] = True
        return unread


class Message(NamedTuple):
    """The columns of messages, and whether one that lacks a part is missing."""

    parts: tuple[str, ...]
    whole: bool


def with_messages(chunk: Chunk, messages: Mapping[str, Message]) -> Chunk:
    """`chunk` with what is known of messages whose columns are all there; they precede the columns, whose bytes they need."""
    asked = {key: one for key, one in messages.items() if all(part in chunk.missing for part in one.parts)}
    if not asked:
        return chunk

    def joined(of: Mapping[str, Mask], *, every: bool = False) -> dict[str, Mask]:
        any_of, all_of = np.logical_or.reduce, np.logical_and.reduce
        made = {k: (all_of if every and not m.whole else any_of)([of[p] for p in m.parts]) for k, m in asked.items()}
        return {**made, **of}

    failures = {key: {i: e for part in m.parts for i, e in chunk.read_failures[part].items()} for key, m in asked.items()}
    return replace(
        chunk,
        missing=joined(chunk.missing, every=True),
        replaced=joined(chunk.replaced),
        suspect=joined(chunk.suspect),
        inline=joined(chunk.inline),
        read_failures={**failures, **chunk.read_failures},
        parts={key: one.parts for key, one in asked.items()},
    )


class Planner:
    """Compares chunks with the items of a store.

    Parameters
    ----------
    items : Items
        As they were when the run began.
    source_name : str
    rehash : bool
        Read every file again, whatever its size and mtime.
    unique_ids : bool
        The source has made sure that no two items share an id.
    duplicate_hint : callable, optional
        As `embedstore.sources.Source` has it.
    texts : sequence of str
        Metadata columns whose texts are embedded too, into spaces of their own or in messages.
    messages : mapping of `Space.payload` to Message, optional
    """

    def __init__(
        self,
        items: Items,
        source_name: str,
        *,
        rehash: bool,
        unique_ids: bool = False,
        duplicate_hint: Callable[[int, int], str] | None = None,
        root: Root | None = None,
        texts: Sequence[str] = (),
        messages: Mapping[str, Message] | None = None,
    ) -> None:
        self._messages = dict(messages or {})
        self._texts = tuple(texts)
        self._items = items
        self._source = source_name
        self._hint = duplicate_hint or (lambda first, second: "Make ids unique.")
        self._rehash = rehash
        self._root = root
        self._seen = None if unique_ids else KeyTable(items.root)

    def plan(self, table: pa.Table, start: int) -> Chunk:
        """Compare `table`, which begins at position `start` of the source.

        Raises
        ------
        DuplicateIdError
            Naming both positions.
        """
        n = table.num_rows
        old_row = self._match(table.column(ID).to_pylist(), start)
        table, payloads = _without_bytes(table, self._source)
        table, failed_texts = _without_failures(table)
        inline = {m: np.asarray(column.is_valid()) for m, column in payloads.items()}
        table = _with_stat(table, inline, self._root)
        existing = np.flatnonzero(old_row >= 0)
        changed = np.zeros(n, bool)
        modalities = [m for m in (*MODALITIES, *self._texts) if m in table.column_names]
        replaced = {m: (old_row < 0).copy() for m in modalities}
        suspect = {m: (old_row < 0).copy() for m in modalities}
        if len(existing):
            old = self._items.take(old_row[existing])
            table = _with_unread_texts(table, failed_texts, existing, old)
            new = table.take(_indices(existing))
            for name in table.column_names:
                differs = _differs(new.column(name), old.column(name) if name in old.column_names else None)
                seen_in = _OF_FILES.get(name, name)
                if seen_in in suspect:
                    suspect[seen_in][existing] |= differs
                if name in replaced:
                    replaced[name][existing] |= differs
                if seen_in == name or seen_in not in suspect:
                    changed[existing] |= differs
        for modality, given in inline.items():
            suspect[modality] |= given
            replaced[modality] &= ~given | (old_row < 0)
        if self._rehash:
            for modality in suspect:
                suspect[modality][:] = True
        missing = {m: np.asarray(table.column(m).is_null()) for m in modalities}
        missing |= {m: np.asarray(blank(table.column(m))) for m in modalities if m in self._texts}
        if failed_texts:
            missing["text"][list(failed_texts)] = False
        inline = {m: inline.get(m, np.zeros(n, bool)) for m in modalities}
        failures = {m: dict(failed_texts) if m == "text" else {} for m in modalities}
        chunk = Chunk(start, table, payloads, old_row, changed, missing, replaced, suspect, inline, failures)
        return with_messages(chunk, self._messages)

    def _match(self, ids: list[str], start: int) -> Rows:
        keys = hash_strings(ids)
        if self._seen is not None:
            self._refuse_duplicates(self._seen, keys, ids, start)
        return self._items.id_table.lookup(keys)

    def _refuse_duplicates(self, seen: KeyTable, keys: Keys, ids: list[str], start: int) -> None:
        _, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
        repeated = np.flatnonzero(first[inverse.reshape(-1)] != np.arange(len(ids)))
        if len(repeated):
            later = int(repeated[0])
            self._duplicate(ids[later], start + int(first[inverse.reshape(-1)[later]]), start + later)
        before = seen.lookup(keys)
        if len(repeated := np.flatnonzero(before >= 0)):
            self._duplicate(ids[repeated[0]], int(before[repeated[0]]), start + int(repeated[0]))
        seen.insert(keys, np.arange(start, start + len(ids)))

    def _duplicate(self, item_id: str, first: int, second: int) -> None:
        raise DuplicateIdError(
            f"{self._source}: items {first + 1} and {second + 1} both have the id {item_id!r}. {self._hint(first, second)}"
        )


def _without_bytes(table: pa.Table, source: str) -> tuple[pa.Table, dict[str, pa.ChunkedArray]]:
    """The table with uris alone, and modality → payloads; a payload without a uri is called ``SOURCE#ID``."""
    import pyarrow as pa

    payloads = {}
    for name in byte_columns(table.schema):
        modality = name.removesuffix(BYTES)
        payloads[modality] = column = table.column(name)
        given = column.is_valid().to_pylist()
        uris = table.column(modality).to_pylist() if name != modality else [None] * len(given)
        ids = table.column(ID).to_pylist()
        uris = [f"{source}#{i}" if here and uri is None else uri for i, uri, here in zip(ids, uris, given, strict=True)]
        table = table.drop_columns([name] if name == modality else [name, modality])
        table = table.append_column(modality, pa.array(uris, pa.string()))
    return table, payloads


def _without_failures(table: pa.Table) -> tuple[pa.Table, dict[int, PayloadError]]:
    """The table without the column `TEXT_FAILED`, and what it says: position → error."""
    if TEXT_FAILED not in table.column_names:
        return table, {}
    column = table.column(TEXT_FAILED)
    at = np.flatnonzero(np.asarray(column.is_valid()))
    errors = {i: PayloadError(**column[i].as_py()) for i in at.tolist()}
    return table.drop_columns([TEXT_FAILED]), errors


def _with_unread_texts(
    table: pa.Table, failures: Mapping[int, PayloadError], existing: npt.NDArray[np.intp], old: pa.Table
) -> pa.Table:
    """`table` with the stored text of items whose text could not be read this time: it may be what it was."""
    import pyarrow as pa

    unread = [k for k, i in enumerate(existing.tolist()) if i in failures and failures[i].stage == "read"]
    if not unread or "text" not in old.column_names:
        return table
    texts = table.column("text").to_pylist()
    for k in unread:
        texts[int(existing[k])] = old.column("text")[k].as_py()
    at = table.schema.get_field_index("text")
    return table.set_column(at, "text", pa.array(texts, table.schema.field(at).type))


def _with_stat(table: pa.Table, inline: Mapping[str, Mask], root: Root | None) -> pa.Table:
    """Add size and mtime of every file that a path column names; payloads that are `inline`, or not below `root`, have none."""
    import pyarrow as pa

    for modality in MODALITIES:
        if modality == "text" or modality not in table.column_names:
            continue
        column = table.column(modality)
        if not pa.types.is_string(column.type) and not pa.types.is_large_string(column.type):
            raise SourceError(f"column {modality!r} should hold paths or bytes, but is {column.type}.")
        skip = inline.get(modality, np.zeros(len(table), bool)).tolist()
        stats = [_stat(None if here else path, root) for path, here in zip(column.to_pylist(), skip, strict=True)]
        table = table.append_column(modality + SIZE, pa.array([s[0] for s in stats], pa.int64()))
        table = table.append_column(modality + MTIME, pa.array([s[1] for s in stats], pa.int64()))
    return table


def _stat(path: str | None, root: Root | None) -> tuple[int | None, int | None]:
    try:
        path = path if path is None or root is None else root.inside(path)
        stat = os.stat(path) if path is not None else None
    except (OSError, ValueError, PayloadError):
        stat = None
    return (stat.st_size, stat.st_mtime_ns) if stat else (None, None)


def _differs(new: Any, old: Any | None) -> Mask:
    """Where two Arrow columns differ (n,); null equals null, NaN equals NaN; a column that was not there is null."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if old is None:
        return ~np.asarray(new.is_null())
    old = old.cast(new.type) if old.type != new.type else old
    try:
        differs = pc.fill_null(pc.not_equal(new, old), False)
    except pa.ArrowNotImplementedError:
        pairs = zip(new.to_pylist(), old.to_pylist(), strict=True)
        return np.fromiter((repr(a) != repr(b) for a, b in pairs), bool, len(new))  # NaN equals NaN
    mask = np.asarray(differs) | (np.asarray(new.is_null()) != np.asarray(old.is_null()))
    if pa.types.is_floating(new.type):
        nan = [np.asarray(pc.fill_null(pc.is_nan(column), False)) for column in (new, old)]
        mask &= ~(nan[0] & nan[1])
    return np.asarray(mask, dtype=bool)


def _indices(positions: npt.NDArray[np.intp]) -> pa.Array:
    import pyarrow as pa

    return pa.array(positions, pa.int64())


def new_item_rows(chunk: Chunk, items: Items, changed: Mask, first_row: int, looked_at: set[str]) -> pa.Table:
    """The item rows that `chunk` adds: those new or `changed` (n,), with what the source does not say kept from before."""
    import pyarrow as pa
    import pyarrow.compute as pc

    at = np.flatnonzero(changed)
    out: Mapping[str, Any] = {ROW: pa.array(np.arange(first_row, first_row + len(at)), pa.int64())}
    old_row = chunk.old_row[at]
    kept = items.take(old_row[old_row >= 0]) if (old_row >= 0).any() else None
    back = np.cumsum(old_row >= 0) - 1
    source = chunk.table.take(_indices(at))
    for name, kind in {**items.column_types(), **{f.name: f.type for f in source.schema}}.items():
        if name == ROW:
            continue
        if name in source.column_names:
            out = {**out, name: source.column(name)}
        elif kept is not None and name in kept.column_names:
            out = {**out, name: kept.column(name).take(pa.array(back, pa.int64(), mask=old_row < 0))}
        else:
            out = {**out, name: pa.nulls(len(at), kind)}
    for modality in set(chunk.suspect) & set(FILES):
        # A file that may have changed, and that this run did not or could not read, is left marked for the run that does.
        unseen = chunk.unread(modality) if modality in looked_at else np.True_
        doubt = (chunk.suspect[modality] & unseen)[at] & (old_row >= 0)
        for name in (modality + SIZE, modality + MTIME):
            out = {**out, name: pc.if_else(pa.array(~doubt), out[name], pa.scalar(None, pa.int64()))}
    return pa.table(out)
