"""The reading half of the pipeline: chunks of a source in, batches of prepared payloads out, in order.

Runs in one thread of its own, with a pool of workers. Payloads are read and hashed, then claimed in order, and prepared where
no identical payload was claimed before; each step is begun so far ahead of the next that workers do not wait, not at the end of
a chunk either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore._core.keys import Keys, hash_payload, keys_from_bytes
from embedstore._core.ordered import ahead
from embedstore.encoders.base import prepare_all
from embedstore.errors import PayloadError
from embedstore.ingest.chunks import LEAST_ROWS, LEAST_TEXTS, LEAST_WITH_TEXTS, chunks
from embedstore.ingest.claims import SpaceState
from embedstore.ingest.embed_options import EmbedOptions
from embedstore.ingest.plan import Chunk, Planner, SpaceWork
from embedstore.ingest.readers import Group, Payload, Reader, ToRead
from embedstore.ingest.stages import Clock
from embedstore.ingest.typed_batches import Typed
from embedstore.sources.base import Source
from embedstore.spec import FILES
from embedstore.store.items import SIZE
from embedstore.store.parts import row_numbers

Positions = npt.NDArray[np.intp]
Wanted = dict[str, npt.NDArray[np.bool_]]

SORTED_TEXTS = 2048
"""Are prepared before the first of them are encoded: more have less padding, fewer keep a fast device waiting less."""
GROUP, GROUP_BYTES = 32, 4 << 20
"""So many files, or files of so many bytes, are read, claimed and prepared at once."""
USUAL_BYTES = 1 << 16
"""Of a payload that counts as one of those that are prepared ahead."""


@dataclass
class Batch:
    """Prepared payloads for one `Encoder.encode`; `claims` (n,) are their numbers in `state`."""

    state: SpaceState
    claims: npt.NDArray[np.int64]
    prepared: list[Any]


@dataclass
class ChunkEnd:
    """Every batch of `chunk` came before; `claims` says where each space's claims of this chunk end."""

    chunk: Chunk
    claims: dict[str, int]


@dataclass
class _Reading:
    """Payloads of `size` bytes, as far as that is known, of the items of a chunk at `positions`, which are being read."""

    chunk: Chunk
    modality: str
    wanted: Wanted
    positions: list[int]
    size: int
    future: Future[Group]


@dataclass
class _Preparing:
    """Payloads of `size` bytes with the numbers `claims` (n,) in `state`, which are being prepared."""

    state: SpaceState
    claims: npt.NDArray[np.int64]
    size: int
    future: Future[list[Any]]


@dataclass
class _Texts:
    """The texts of a chunk's items `to_read`, of the column `modality`."""

    chunk: Chunk
    modality: str
    wanted: Wanted
    to_read: Positions


@dataclass
class _FilesEnd:
    """All of a chunk's payloads of one modality came before."""

    chunk: Chunk
    modality: str


class Producer:
    """Reads a source for several spaces.

    Parameters
    ----------
    source : Source
    typed : Typed
        Gives the source's columns their types.
    planner : Planner
    states : sequence of SpaceState
    pool : ThreadPoolExecutor
        Of as many threads as the options say.
    reader : Reader
        Reads and prepares, called by the pool's threads.
    clock : Clock
    options : EmbedOptions
    """

    def __init__(
        self,
        source: Source,
        typed: Typed,
        planner: Planner,
        states: Sequence[SpaceState],
        pool: ThreadPoolExecutor,
        reader: Reader,
        clock: Clock,
        options: EmbedOptions,
    ) -> None:
        self._source = source
        self._typed = typed
        self._planner = planner
        self._states = list(states)
        self._pool = pool
        self._reader = reader
        self._clock = clock
        self._threads = options.threads
        self._settled = {} if options.retry_failed else {state.name: _settled_failures(state) for state in states}

    def events(self) -> Iterator[Batch | ChunkEnd]:
        most = max([2 * self._threads * GROUP, *(2 * state.batch_size for state in self._states)])
        groups = 2 * self._threads + 2
        read = ahead(
            self._read(), groups, lambda entry: min(groups, _groups_in(entry))
        )  # one is read while another is prepared
        prepared = ahead(self._claimed(read), most, _weight)
        batchers = {state.name: _Batcher(state) for state in self._states}
        for entry in prepared:
            if isinstance(entry, _Preparing):
                yield from batchers[entry.state.name].add(entry.claims, entry.future.result())
            elif isinstance(entry, _FilesEnd):
                for batcher in batchers.values():
                    yield from batcher.flush()
            else:
                yield entry

    def _read(self) -> Iterator[_Reading | _Texts | _FilesEnd | ChunkEnd]:
        """Plan chunk after chunk, and begin to read their payloads; the claims of a `ChunkEnd` are not known here."""
        for start, table in chunks(self._typed.batches(self._source.batches()), self._least_rows()):
            with self._clock.measure("compare"):
                chunk = self._planner.plan(table, start)
            del table  # it holds the payloads, which are let go as soon as they are read
            for modality in chunk.missing:
                yield from self._modality(chunk, modality)
            yield ChunkEnd(chunk, {})

    def _least_rows(self) -> int:
        modalities = {state.encoder.spec.modality for state in self._states}
        if "text" not in modalities:
            return LEAST_ROWS
        return LEAST_WITH_TEXTS if len(modalities) > 1 else LEAST_TEXTS

    def _modality(self, chunk: Chunk, modality: str) -> Iterator[_Reading | _Texts | _FilesEnd]:
        n = len(chunk)
        chunk.hashes[modality] = np.zeros((n, 2), np.uint64)
        chunk.was_read[modality] = np.zeros(n, bool)
        if states := self._of(modality):
            wanted = {state.name: self._wanted(chunk, state) for state in states}
            for state in states:
                chunk.work[state.name] = SpaceWork.empty(n)
            to_read = np.flatnonzero(np.logical_or.reduce(list(wanted.values())))
            to_read = to_read[~np.isin(to_read, list(chunk.read_failures[modality]))]
            if modality not in FILES and modality not in chunk.parts:
                yield _Texts(chunk, modality, wanted, to_read)
            else:
                for positions, work in _groups(chunk, modality, to_read, max(1, min(GROUP, len(to_read) // self._threads))):
                    size = sum(one.held for one in work)
                    yield _Reading(chunk, modality, wanted, positions, size, self._pool.submit(self._timed_read, work))
        yield _FilesEnd(chunk, modality)

    def _of(self, modality: str) -> list[SpaceState]:
        return [state for state in self._states if state.payload == modality]

    def _wanted(self, chunk: Chunk, state: SpaceState) -> npt.NDArray[np.bool_]:
        """Items (n,) whose payload this space has to look at."""
        modality = state.payload
        old = np.maximum(chunk.old_row, 0)
        done = (chunk.old_row >= 0) & state.space.has(old)
        if self._settled:
            done |= (chunk.old_row >= 0) & np.isin(chunk.old_row, self._settled[state.name])
        return ~chunk.missing[modality] & (chunk.suspect[modality] | ~done)

    def _claimed(
        self, entries: Iterator[_Reading | _Texts | _FilesEnd | ChunkEnd]
    ) -> Iterator[_Preparing | Batch | _FilesEnd | ChunkEnd]:
        """Claim what was read, in order, and begin to prepare it."""
        for entry in entries:
            if isinstance(entry, _Reading):
                yield from self._files(entry)
            elif isinstance(entry, _Texts):
                yield from self._texts(entry)
            elif isinstance(entry, _FilesEnd):
                entry.chunk.payloads.pop(entry.modality, None)
                yield entry
            else:
                yield ChunkEnd(entry.chunk, {state.name: state.claims for state in self._states})

    def _texts(self, texts: _Texts) -> Iterator[Batch]:
        """Texts: hashed in one go, encoded in order of length, by bytes roughly and by what the encoder says exactly."""
        import pyarrow as pa

        chunk, modality, to_read = texts.chunk, texts.modality, texts.to_read
        with self._clock.measure("read"):
            column = chunk.table.column(modality).take(pa.array(to_read))
            payloads = [text.encode() for text in column.to_pylist()]
            hashes = keys_from_bytes(b"".join(map(hash_payload, payloads)))
        chunk.hashes[modality][to_read] = hashes
        chunk.was_read[modality][to_read] = True
        for state in self._of(modality):
            mine = np.flatnonzero(texts.wanted[state.name][to_read])
            claim, first = self._claim(chunk, state, to_read[mine], hashes[mine])
            lengths = np.fromiter((len(payloads[i]) for i in mine[first]), np.int64, len(first))
            order = first[np.argsort(lengths, kind="stable")]
            step = max(SORTED_TEXTS, state.batch_size)
            for lo in range(0, len(order), step):
                some = order[lo : lo + step]
                with self._clock.measure("decode"):
                    found = prepare_all(state.encoder, [payloads[i] for i in mine[some]])
                for i in [i for i, p in enumerate(found) if isinstance(p, PayloadError)]:
                    state.fail(int(claim[some[i]]), found[i])
                good = [i for i, p in enumerate(found) if not isinstance(p, PayloadError)]
                good.sort(key=lambda i: state.cost(found[i]))
                while good:
                    size = state.batch_size  # read once: the thread that encodes may halve it at any time
                    batch, good = good[:size], good[size:]
                    yield Batch(state, claim[some[batch]], [found[i] for i in batch])

    def _files(self, reading: _Reading) -> Iterator[_Preparing]:
        """Files: noted in their chunk, claimed, and prepared by the workers where no identical payload was claimed before."""
        chunk, modality = reading.chunk, reading.modality
        group = reading.future.result()
        good = []
        for k, (i, payload) in enumerate(zip(reading.positions, group.payloads, strict=True)):
            if isinstance(payload, PayloadError):
                chunk.read_failures[modality][i] = payload
            else:
                good.append(k)
        positions = np.asarray(reading.positions, np.intp)[good]
        digests = keys_from_bytes(b"".join(group.digests[k] for k in good))
        chunk.hashes[modality][positions] = digests
        chunk.was_read[modality][positions] = True
        for state in self._of(modality):
            mine = np.flatnonzero(reading.wanted[state.name][positions])
            mine = mine[[not self._has_failed(state, int(chunk.old_row[positions[m]]), digests[m]) for m in mine]]
            if not len(mine):
                continue
            claim, first = self._claim(chunk, state, positions[mine], digests[mine])
            if len(first):
                payloads = [group.payloads[good[m]] for m in mine[first]]
                size = sum(map(len, payloads))
                yield _Preparing(state, claim[first], size, self._pool.submit(self._timed_prepare, state, payloads))

    def _claim(
        self, chunk: Chunk, state: SpaceState, positions: Positions, hashes: Keys
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.intp]]:
        """Claims (n,) of the items at `positions` (n,), and which of them (m,) are the first of theirs."""
        with self._clock.measure("compare"):
            claim, copy, first = state.claim(hashes)
        work = chunk.work[state.name]
        work.claim[positions], work.copy[positions] = claim, copy
        return claim, first

    def _has_failed(self, state: SpaceState, row: int, digest: npt.NDArray[np.uint64]) -> bool:
        """Whether the row's recorded failure is of this very payload, and it is not to be tried again."""
        if row < 0 or not self._settled:
            return False
        before = state.space.failures_by_row.get(row)
        return before is not None and before.stage != "read" and before.hash == digest.tobytes()

    def _timed_read(self, work: list[ToRead]) -> Group:
        with self._clock.measure("read"):
            return self._reader.read(work)

    def _timed_prepare(self, state: SpaceState, payloads: list[Payload]) -> list[Any]:
        with self._clock.measure("decode"):
            return self._reader.prepare(state.encoder, payloads)


def _groups_in(entry: _Reading | _Texts | _FilesEnd | ChunkEnd) -> int:
    """How much of what may be read ahead it takes: groups, one of a large file counting as several."""
    return max(1, entry.size // GROUP_BYTES) if isinstance(entry, _Reading) else 0


def _weight(entry: _Preparing | Batch | _FilesEnd | ChunkEnd) -> int:
    """How much of what may be prepared ahead it takes: payloads, large ones counting as several."""
    return max(len(entry.claims), entry.size // USUAL_BYTES) if isinstance(entry, _Preparing) else 0


def _groups(chunk: Chunk, modality: str, at: Positions, size: int) -> Iterator[tuple[list[int], list[ToRead]]]:
    """The payloads at the positions `at`, up to `size` or `GROUP_BYTES` at once. Bytes are copied as they are asked for."""
    to_read = _message(chunk, modality) if modality in chunk.parts else _payload(chunk, modality)
    positions: list[int] = []
    work: list[ToRead] = []
    held = 0
    for i in at.tolist():
        one = to_read(i)
        positions.append(i)
        work.append(one)
        held += one.held
        if len(work) >= size or held >= GROUP_BYTES:
            yield positions, work
            positions, work, held = [], [], 0
    if work:
        yield positions, work


def _payload(chunk: Chunk, column: str) -> Callable[[int], ToRead]:
    """What to read of a column for the item at a position."""
    values = chunk.table.column(column).to_pylist()
    if column not in FILES:
        return lambda i: ToRead("", str(values[i]).encode())
    sizes, payloads = chunk.table.column(column + SIZE).to_pylist(), chunk.payloads.get(column)
    return lambda i: ToRead(values[i], payloads[i].as_py() if payloads is not None else None, sizes[i])


def _message(chunk: Chunk, key: str) -> Callable[[int], ToRead]:
    """The same for a message, of the parts that its item has."""
    of = {part: _payload(chunk, part) for part in chunk.parts[key]}
    return lambda i: ToRead("", parts=[(part, given(i)) for part, given in of.items() if not chunk.missing[part][i]])


class _Batcher:
    """Collects prepared payloads of one space in order."""

    def __init__(self, state: SpaceState) -> None:
        self._state = state
        self._claims: list[int] = []
        self._prepared: list[Any] = []

    def add(self, claims: npt.NDArray[np.int64], prepared: Sequence[Any]) -> Iterator[Batch]:
        for claim, one in zip(claims.tolist(), prepared, strict=True):
            if isinstance(one, PayloadError):
                self._state.fail(claim, one)
                continue
            self._claims.append(claim)
            self._prepared.append(one)
            if len(self._claims) >= self._state.batch_size:
                yield self._batch()

    def flush(self) -> Iterator[Batch]:
        if self._claims:
            yield self._batch()

    def _batch(self) -> Batch:
        batch = Batch(self._state, np.asarray(self._claims, np.int64), self._prepared)
        self._claims, self._prepared = [], []
        return batch


def _settled_failures(state: SpaceState) -> npt.NDArray[np.int64]:
    """Rows that failed for a reason which only another payload can change: all but failures to read."""
    table = state.space.failures
    stages = np.asarray(table.column("stage").to_pylist(), dtype=object)
    return row_numbers(table)[np.flatnonzero(stages != "read")]
