"""The reading half of the pipeline: chunks of a source in, batches of prepared payloads out, in order.

Runs in one thread of its own, with a pool of workers that read, hash and decode.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore._core.keys import hash_payload, keys_from_bytes
from embedstore._core.ordered import ordered_map
from embedstore.errors import EmbedstoreError, PayloadError, one_line
from embedstore.ingest.chunks import LEAST_ROWS, LEAST_TEXTS, LEAST_WITH_TEXTS, chunks
from embedstore.ingest.claims import SpaceState
from embedstore.ingest.embed_options import EmbedOptions
from embedstore.ingest.plan import Chunk, Planner, SpaceWork
from embedstore.ingest.stages import Clock
from embedstore.ingest.typed_batches import Typed
from embedstore.sources.base import Source
from embedstore.sources.files import read_payload
from embedstore.store.parts import row_numbers

Positions = npt.NDArray[np.intp]
ReadPayload = tuple[bytes, npt.NDArray[np.uint64]] | PayloadError
"""A payload and its content hash (2,), or why it could not be read."""

SORTED_TEXTS = 2048
"""Are prepared before the first of them are encoded: more have less padding, fewer keep a fast device waiting less."""
GROUP, GROUP_BYTES = 32, 16 << 20
"""So many files, or files of so many bytes, are claimed at once."""


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
        clock: Clock,
        options: EmbedOptions,
    ) -> None:
        self._source = source
        self._typed = typed
        self._planner = planner
        self._states = list(states)
        self._pool = pool
        self._clock = clock
        self._options = options
        self._settled = {} if options.retry_failed else {state.name: _settled_failures(state) for state in states}

    def events(self) -> Iterator[Batch | ChunkEnd]:
        for start, table in chunks(self._typed.batches(self._source.batches()), self._least_rows()):
            with self._clock.measure("compare"):
                chunk = self._planner.plan(table, start)
            del table  # it holds the payloads, which are let go as soon as they are read
            for modality in chunk.missing:
                yield from self._modality(chunk, modality)
                chunk.payloads.pop(modality, None)
            yield ChunkEnd(chunk, {state.name: state.claims for state in self._states})

    def _least_rows(self) -> int:
        modalities = {state.encoder.spec.modality for state in self._states}
        if "text" not in modalities:
            return LEAST_ROWS
        return LEAST_WITH_TEXTS if len(modalities) > 1 else LEAST_TEXTS

    def _modality(self, chunk: Chunk, modality: str) -> Iterator[Batch]:
        n = len(chunk)
        chunk.hashes[modality] = np.zeros((n, 2), np.uint64)
        chunk.was_read[modality] = np.zeros(n, bool)
        states = [state for state in self._states if state.encoder.spec.modality == modality]
        if not states:
            return
        wanted = {state.name: self._wanted(chunk, state) for state in states}
        for state in states:
            chunk.work[state.name] = SpaceWork.empty(n)
        to_read = np.flatnonzero(np.logical_or.reduce(list(wanted.values())))
        to_read = to_read[~np.isin(to_read, list(chunk.read_failures[modality]))]
        if modality == "text":
            yield from self._texts(chunk, states, wanted, to_read)
        else:
            yield from self._files(chunk, states, wanted, to_read, modality)

    def _wanted(self, chunk: Chunk, state: SpaceState) -> npt.NDArray[np.bool_]:
        """Items (n,) whose payload this space has to look at."""
        modality = state.encoder.spec.modality
        old = np.maximum(chunk.old_row, 0)
        done = (chunk.old_row >= 0) & state.space.has(old)
        if self._settled:
            done |= (chunk.old_row >= 0) & np.isin(chunk.old_row, self._settled[state.name])
        return ~chunk.missing[modality] & (chunk.suspect[modality] | ~done)

    def _texts(
        self, chunk: Chunk, states: list[SpaceState], wanted: dict[str, npt.NDArray[np.bool_]], to_read: Positions
    ) -> Iterator[Batch]:
        """Texts: hashed in one go, encoded in order of length, by bytes roughly and by what the encoder says exactly."""
        import pyarrow as pa

        with self._clock.measure("read"):
            column = chunk.table.column("text").take(pa.array(to_read))
            payloads = [text.encode() for text in column.to_pylist()]
            hashes = keys_from_bytes(b"".join(map(hash_payload, payloads)))
        chunk.hashes["text"][to_read] = hashes
        chunk.was_read["text"][to_read] = True
        for state in states:
            mine = np.flatnonzero(wanted[state.name][to_read])
            with self._clock.measure("compare"):
                claim, copy, first = state.claim(hashes[mine])
            work = chunk.work[state.name]
            work.claim[to_read[mine]], work.copy[to_read[mine]] = claim, copy
            lengths = np.fromiter((len(payloads[i]) for i in mine[first]), np.int64, len(first))
            order = first[np.argsort(lengths, kind="stable")]
            step = max(SORTED_TEXTS, state.batch_size)
            for lo in range(0, len(order), step):
                some = order[lo : lo + step]
                with self._clock.measure("decode"):
                    prepared = [_prepare(state, payloads[i]) for i in mine[some]]
                for i in [i for i, p in enumerate(prepared) if isinstance(p, PayloadError)]:
                    state.fail(int(claim[some[i]]), prepared[i])
                good = [i for i, p in enumerate(prepared) if not isinstance(p, PayloadError)]
                good.sort(key=lambda i: state.cost(prepared[i]))
                while good:
                    size = state.batch_size  # read once: the thread that encodes may halve it at any time
                    batch, good = good[:size], good[size:]
                    yield Batch(state, claim[some[batch]], [prepared[i] for i in batch])

    def _files(
        self,
        chunk: Chunk,
        states: list[SpaceState],
        wanted: dict[str, npt.NDArray[np.bool_]],
        to_read: Positions,
        modality: str,
    ) -> Iterator[Batch]:
        """Files: read and hashed by the workers, decoded by them where no identical payload was claimed before."""
        reads = ordered_map(self._pool, self._read, _to_read(chunk, modality, to_read), window=4 * self._options.threads + 4)
        batchers = {state.name: _Batcher(state) for state in states}
        for positions, payloads in self._groups(chunk, modality, zip(to_read.tolist(), reads, strict=True)):
            digests = chunk.hashes[modality][positions]
            for state in states:
                mine = [
                    k
                    for k, i in enumerate(positions)
                    if wanted[state.name][i] and not self._has_failed(state, int(chunk.old_row[i]), digests[k])
                ]
                if not mine:
                    continue
                with self._clock.measure("compare"):
                    claim, copy, first = state.claim(digests[mine])
                work = chunk.work[state.name]
                at = [positions[k] for k in mine]
                work.claim[at], work.copy[at] = claim, copy
                for k in first.tolist():
                    future = self._pool.submit(self._timed_prepare, state, payloads[mine[k]])
                    yield from batchers[state.name].add(int(claim[k]), future)
        for batcher in batchers.values():
            yield from batcher.flush()

    def _groups(
        self, chunk: Chunk, modality: str, reads: Iterable[tuple[int, ReadPayload]]
    ) -> Iterator[tuple[list[int], list[bytes]]]:
        """Positions and bytes of what could be read, a few at a time: to claim one by one takes longer than to read.

        Notes in `chunk` what was read, its hash, and what could not be read.
        """
        positions: list[int] = []
        payloads: list[bytes] = []
        held = 0
        for i, result in reads:
            if isinstance(result, PayloadError):
                chunk.read_failures[modality][i] = result
                continue
            payload, digest = result
            chunk.hashes[modality][i] = digest
            chunk.was_read[modality][i] = True
            positions.append(i)
            payloads.append(payload)
            held += len(payload)
            if len(positions) >= GROUP or held >= GROUP_BYTES:
                yield positions, payloads
                positions, payloads, held = [], [], 0
        if positions:
            yield positions, payloads

    def _has_failed(self, state: SpaceState, row: int, digest: npt.NDArray[np.uint64]) -> bool:
        """Whether the row's recorded failure is of this very payload, and it is not to be tried again."""
        if row < 0 or not self._settled:
            return False
        before = state.space.failures_by_row.get(row)
        return before is not None and before.stage != "read" and before.hash == digest.tobytes()

    def _read(self, work: tuple[str, bytes | None]) -> ReadPayload:
        uri, payload = work
        with self._clock.measure("read"):
            try:
                payload = (
                    read_payload(uri, timeout=self._options.timeout, root=self._options.confined)
                    if payload is None
                    else payload
                )
            except PayloadError as error:
                return error
            return payload, keys_from_bytes(hash_payload(payload))[0]

    def _timed_prepare(self, state: SpaceState, payload: bytes) -> Any:
        with self._clock.measure("decode"):
            return _prepare(state, payload)


def _to_read(chunk: Chunk, modality: str, positions: Positions) -> Iterable[tuple[str, bytes | None]]:
    """(uri, bytes) of the payloads at `positions`; no bytes: the uri is to be read. Lazily, for each copies its bytes."""
    uris = chunk.table.column(modality).to_pylist()
    payloads = chunk.payloads.get(modality)
    return ((uris[i], payloads[int(i)].as_py() if payloads is not None else None) for i in positions)


def _prepare(state: SpaceState, payload: bytes) -> Any:
    """The prepared payload, or the `PayloadError` that it costs."""
    try:
        return state.encoder.prepare(payload)
    except PayloadError as error:
        return error
    except EmbedstoreError:  # of the encoder, not of this payload
        raise
    except Exception as error:  # an encoder's own, or one of a library: it costs this payload alone
        return PayloadError("decode", one_line(error))


class _Batcher:
    """Collects decoded payloads of one space in order; at most two batches are decoded ahead."""

    def __init__(self, state: SpaceState) -> None:
        self._state = state
        self._futures: deque[tuple[int, Future[Any]]] = deque()
        self._claims: list[int] = []
        self._prepared: list[Any] = []

    def add(self, claim: int, future: Future[Any]) -> Iterator[Batch]:
        self._futures.append((claim, future))
        while self._futures and (len(self._futures) > 2 * self._state.batch_size or self._futures[0][1].done()):
            yield from self._take()

    def flush(self) -> Iterator[Batch]:
        while self._futures:
            yield from self._take()
        if self._claims:
            yield self._batch()

    def _take(self) -> Iterator[Batch]:
        claim, future = self._futures.popleft()
        prepared = future.result()
        if isinstance(prepared, PayloadError):
            self._state.fail(claim, prepared)
            return
        self._claims.append(claim)
        self._prepared.append(prepared)
        if len(self._claims) >= self._state.batch_size:
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
