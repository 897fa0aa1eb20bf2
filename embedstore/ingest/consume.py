"""The encoding half of the pipeline: batches through encoders, chunks into commits.

Runs in the caller's thread; commits run in a thread of their own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from embedstore._core.device_errors import device_failure, without_frames
from embedstore._core.pieces import Pieces
from embedstore.encoders.base import Vectors, encoded, pieces_of, stands_for
from embedstore.encoders.runtimes.base import Pending
from embedstore.errors import EmbedstoreError, EncoderError, EncoderOutOfMemoryError, PayloadError, one_line
from embedstore.ingest.carry import carried, pieces_kept, recorded_failures, recorded_hashes
from embedstore.ingest.claims import SpaceState
from embedstore.ingest.plan import Chunk, new_item_rows
from embedstore.ingest.produce import Batch, ChunkEnd
from embedstore.ingest.report import EmbedReport
from embedstore.ingest.stages import Background, Clock
from embedstore.spec import FILES
from embedstore.store.format import PartRef
from embedstore.store.part_files import VECTORS, PartFiles
from embedstore.store.parts import read_array
from embedstore.store.reader import StoreReader
from embedstore.store.space import Failure, Space, failures_table
from embedstore.store.writer import NewVectors, StoreWriter

if TYPE_CHECKING:
    import pyarrow as pa

Mask = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]

MAX_REPORTED_FAILURES = 20
CONTENT_ERRORS = (PayloadError, RuntimeError, ValueError, TypeError, IndexError)
ENCODING_ERRORS = (*CONTENT_ERRORS, EncoderOutOfMemoryError)


def encode_batch(batch: Batch) -> None:
    """Encode a batch; on an error in halves, until what is at fault is alone; smaller from then on where memory ran out."""
    state, prepared = batch.state, batch.prepared
    if len(prepared) > state.batch_size:  # made before the size was halved
        _in_pieces(batch, state.batch_size)
        return
    error = _attempted(batch, partial(encoded, state.encoder, prepared))
    if error is None:
        return
    if isinstance(error, EncoderOutOfMemoryError):
        if len(prepared) == 1:
            raise error
        state.batch_size = len(prepared) // 2
        _in_pieces(batch, state.batch_size)
    elif len(prepared) > 1:
        _in_pieces(batch, -(-len(prepared) // 2))
    else:
        failure = error if isinstance(error, PayloadError) else PayloadError("encode", one_line(error))
        state.fail(int(batch.claims[0]), failure)


def _attempted(batch: Batch, found: Callable[[], tuple[Vectors, Pieces | None]]) -> Exception | None:
    """Put the vectors of `batch` into its space; what went wrong if a smaller batch, or another payload, may go better.

    The error comes without the frames it was raised in. They hold what the encoder had made of the batch so far: a retry
    would find no more memory than the attempt.

    Raises
    ------
    EmbedstoreError
        It is the encoder's, or the device's, and not a payload's.
    """
    try:
        batch.state.put(batch.claims, *found())
    except ENCODING_ERRORS as error:
        if isinstance(error, EmbedstoreError) and not isinstance(error, PayloadError | EncoderOutOfMemoryError):
            raise  # of the encoder, not of a payload
        failed = device_failure(error) or error
        if not isinstance(failed, ENCODING_ERRORS):
            raise failed from error
        without_frames(error)
        return failed
    return None


class Encoding:
    """Encodes batches and closes chunks in the order of events; the next batch is begun before the last ones are waited for.

    Parameters
    ----------
    close : callable
        Takes a `ChunkEnd` all of whose batches are encoded.
    """

    def __init__(self, clock: Clock, close: Callable[[ChunkEnd], None]) -> None:
        self._clock = clock
        self._close = close
        self._waiting: deque[tuple[Batch | ChunkEnd, Pending | None]] = deque()

    def add(self, event: Batch | ChunkEnd) -> None:
        """Begin a batch, then finish what came before it; a chunk is closed when its last batch is done."""
        if isinstance(event, ChunkEnd):
            self._waiting.append((event, None))
            return
        try:
            with self._clock.measure("encode"):
                begun = _begun(event)
        except Exception:
            self.finish()
            raise
        self._waiting.append((event, begun))
        self._finish(getattr(event.state.encoder, "lanes", 1))

    def finish(self) -> None:
        """Wait for all of it."""
        self._finish(0)

    def stop(self) -> None:
        """Wait for what was begun and forget it: memory that a model reads is not to be freed under it."""
        while self._waiting:
            if (begun := self._waiting.popleft()[1]) is not None:
                with suppress(Exception):
                    begun()

    def _finish(self, left: int) -> None:
        while len(self._waiting) > left:
            event, begun = self._waiting.popleft()
            if isinstance(event, ChunkEnd):
                self._close(event)
                continue
            with self._clock.measure("encode"):
                _finished(event, begun)


def _begun(batch: Batch) -> Pending | None:
    """A batch that is being encoded; None if the encoder has no `start` or makes pieces, or the batch is too large or fails.

    `encode_batch` then runs it synchronously.
    """
    starts = stands_for(batch.state.encoder, "start", "encode") and pieces_of(batch.state.encoder) is None
    if not starts or len(batch.prepared) > batch.state.batch_size:
        return None
    try:
        return batch.state.encoder.start(batch.prepared)  # type: ignore[attr-defined,no-any-return]
    except ENCODING_ERRORS as error:
        without_frames(error)  # what it holds is not to be in the way of the batch before, which is still computed
        return None


def _finished(batch: Batch, begun: Pending | None) -> None:
    if begun is None or _attempted(batch, lambda: (begun(), None)) is not None:
        encode_batch(batch)  # which knows what to do about an error


def _in_pieces(batch: Batch, size: int) -> None:
    for lo in range(0, len(batch.prepared), size):
        encode_batch(Batch(batch.state, batch.claims[lo : lo + size], batch.prepared[lo : lo + size]))


class ChunkCloser:
    """Turns an encoded chunk into one commit: new item rows, tombstones, vectors and failures of every space.

    Parameters
    ----------
    store : StoreReader
        As it was when the run began.
    writer : StoreWriter
    states : mapping of space name to SpaceState
        The spaces that this run embeds into.
    report : EmbedReport
        Counted up here.
    strict : bool
        Raise on a chunk's first failure instead of committing it.
    """

    def __init__(
        self,
        store: StoreReader,
        writer: StoreWriter,
        states: Mapping[str, SpaceState],
        report: EmbedReport,
        clock: Clock,
        *,
        strict: bool,
    ) -> None:
        self._store = store
        self._writer = writer
        self._states = dict(states)
        self._report = report
        self._clock = clock
        self._strict = strict
        self._next_row = writer.next_row
        self._background = Background()

    def close(self, chunk: Chunk, claims: Mapping[str, int]) -> None:
        """Commit `chunk`; `claims` says where each space's claims end.

        Raises
        ------
        PayloadError
            In strict mode, naming the item.
        EncoderError
            The stored dtype cannot hold a vector.
        """
        for name, state in self._states.items():
            state.close_chunk(claims[name])
            _refuse_unfit(chunk, state)
        changed = self._changed(chunk)
        looked_at = self._looked_at()
        items = None
        if changed.any():
            items = new_item_rows(chunk, self._store.items, changed, self._next_row, looked_at)
        row = chunk.old_row.copy()
        row[changed] = np.arange(self._next_row, self._next_row + int(changed.sum()))
        removed = chunk.old_row[changed & (chunk.old_row >= 0)]
        vectors, claimed = {}, {}
        noted: list[tuple[int, str, Failure]] = []
        for name, state in self._states.items():
            if state.payload in chunk.missing:
                vectors[name], claimed[name] = self._embedded(chunk, state, changed, row, noted)
            else:
                vectors[name] = self._carried(chunk, state.space, changed, row)
        for _, name, failure in sorted(noted, key=lambda note: note[0]):  # in the dataset's order, whatever failed first
            self._note_failure(name, failure)
        for name, space in self._store.spaces.items():
            if name not in self._states and len(removed):
                vectors[name] = self._carried(chunk, space, changed, row)
        self._next_row += int(changed.sum())
        self._report.items += len(chunk)
        self._report.added += int((chunk.old_row < 0).sum())
        self._report.updated += len(removed)
        self._background.submit(partial(self._commit, items, removed, vectors, claimed))

    def finish(self) -> None:
        """Wait for the last commit."""
        self._background.finish()

    def _commit(
        self, items: pa.Table | None, removed: Rows, vectors: Mapping[str, NewVectors], claimed: Mapping[str, Rows]
    ) -> None:
        with self._clock.measure("write"):
            self._writer.commit(items, removed=removed, vectors=vectors)
            for name, claims in claimed.items():
                if len(claims):
                    entry = self._writer.store.manifest.spaces[name]
                    space = self._states[name].space
                    part = partial(read_array, self._store.files, entry.parts[-1], VECTORS, space.dtype, space.dim)
                    several = vectors[name].pieces
                    read = None if several is None else partial(_mapped, self._store.files, entry.pieces[-1], space.dtype)
                    self._states[name].committed(part, claims, several, read)

    def _changed(self, chunk: Chunk) -> Mask:
        """Items (n,) that need a new row: new ones, and those whose metadata or a payload's content differs."""
        changed = (chunk.old_row < 0) | chunk.metadata_changed
        for modality, read in chunk.was_read.items():
            if modality not in FILES and modality not in chunk.parts:
                continue  # compared as a column
            at = np.flatnonzero(read & (chunk.old_row >= 0) & chunk.suspect[modality])
            computed = [s for s in self._store.spaces.values() if s.payload == modality and not s.spec.declared]
            recorded = recorded_hashes(computed, chunk.old_row[at])
            # Bytes that no space has seen yet change nothing in the item's row; a file's size and mtime do.
            tells = recorded.any(axis=1) | ~chunk.inline[modality][at]
            changed[at] |= (recorded != chunk.hashes[modality][at]).any(axis=1) & tells
        return changed

    def _embedded(
        self, chunk: Chunk, state: SpaceState, changed: Mask, row: Rows, noted: list[tuple[int, str, Failure]]
    ) -> tuple[NewVectors, Rows]:
        """What the chunk adds to a space of this run, and the claim of each added vector (-1: copied).

        Failures are added to `noted` with their position and the space.
        """
        modality = state.payload
        work, space = chunk.work[state.name], state.space
        read = chunk.was_read[modality] & ((work.claim >= 0) | (work.copy >= 0))
        had = (chunk.old_row >= 0) & space.has(np.maximum(chunk.old_row, 0))
        failed_claim = np.zeros(len(chunk), bool)
        if state.failed:
            failed_claim = np.isin(work.claim, np.fromiter(state.failed, np.int64)) & (work.claim >= 0)
        lost = np.zeros(len(chunk), bool)
        lost[list(chunk.read_failures[modality])] = True
        lost &= had & ~chunk.replaced[modality]  # the file is gone or unreadable: its vector stays
        same = had & ~chunk.missing[modality] & (~chunk.suspect[modality] | self._same_content(chunk, space, modality) | lost)
        carry = same & changed
        fresh = read & ~failed_claim & ~same
        copy = np.where(carry, chunk.old_row, work.copy)
        at = np.flatnonzero(fresh | carry)
        at = at[np.argsort(row[at], kind="stable")]
        claim = np.where(carry[at], -1, work.claim[at])
        vectors = np.empty((len(at), space.dim), space.dtype)
        vectors[claim >= 0] = state.take_claims(claim[claim >= 0])
        vectors[claim < 0] = space.take(copy[at][claim < 0])
        hashes = np.where(fresh[at, None], chunk.hashes[modality][at], space.hash_of(np.maximum(copy[at], 0)))
        failures, failed = self._failures(chunk, state, changed, row, failed_claim, same, noted)
        report = self._report.spaces[state.name]
        report.embedded += int(fresh.sum())
        report.unchanged += int((same & ~failed).sum())
        report.missing += int(chunk.missing[modality].sum())
        report.failed += int(failed.sum())
        report.kept += int((failed & same).sum())
        return NewVectors(row[at], vectors, hashes, failures, pieces_kept(state, claim, copy[at])), claim

    def _same_content(self, chunk: Chunk, space: Space, modality: str) -> Mask:
        """Items (n,) that were read and whose content hash is the one their old vector was made from."""
        at = np.flatnonzero(chunk.was_read[modality] & (chunk.old_row >= 0))
        same = np.zeros(len(chunk), bool)
        same[at] = (space.hash_of(chunk.old_row[at]) == chunk.hashes[modality][at]).all(axis=1)
        return same

    def _failures(
        self,
        chunk: Chunk,
        state: SpaceState,
        changed: Mask,
        row: Rows,
        failed_claim: Mask,
        same: Mask,
        noted: list[tuple[int, str, Failure]],
    ) -> tuple[pa.Table, Mask]:
        """Failure rows to add, and which items (n,) count as failed."""
        modality = state.payload
        errors: dict[int, PayloadError] = dict(chunk.read_failures[modality])
        errors.update({int(i): state.failed[int(chunk.work[state.name].claim[i])] for i in np.flatnonzero(failed_claim)})
        before = recorded_failures(state.space, chunk.old_row)
        failed = np.zeros(len(chunk), bool)
        failed[list(errors)] = True
        add: list[Failure] = []
        for i, old in before.items():
            looked_at = chunk.work[state.name].claim[i] >= 0 or chunk.work[state.name].copy[i] >= 0
            if i not in errors and not same[i] and not looked_at and not chunk.missing[modality][i]:
                failed[i] = True
                noted.append((i, state.name, old))
                if changed[i]:
                    add.append(old._replace(row=int(row[i])))
        for i, error in errors.items():
            digest = chunk.hashes[modality][i].tobytes() if chunk.was_read[modality][i] else b""
            failure = Failure(int(row[i]), chunk.id(i), error.stage, error.reason, digest)
            noted.append((i, state.name, failure))
            if failure != before.get(i) and not same[i]:
                add.append(failure)
        return failures_table(sorted(add)), failed

    def _note_failure(self, space: str, failure: Failure) -> None:
        if self._strict:
            raise PayloadError(
                failure.stage,
                f"item {failure.id!r}, space {space!r}: {failure.reason}. Nothing of this part was kept (--strict).",
            )
        if len(self._report.failures) < MAX_REPORTED_FAILURES:
            self._report.failures.append((space, failure.id, failure.stage, failure.reason))

    def _carried(self, chunk: Chunk, space: Space, changed: Mask, row: Rows) -> NewVectors:
        """Vectors and failures that updated items keep in a space whose payload this run does not look at."""
        modality = space.payload
        keep = changed & (chunk.old_row >= 0)
        if modality in chunk.replaced and not space.spec.declared:  # imported vectors go with the id, not with a payload
            keep &= ~chunk.replaced[modality]
            read = np.flatnonzero(keep & chunk.was_read[modality])  # for another space, which may have shown it to be new
            keep[read] = (recorded_hashes([space], chunk.old_row[read]) == chunk.hashes[modality][read]).all(axis=1)
        for part in space.info.parts:  # of which the dataset may have one alone
            if part in chunk.replaced:
                keep &= ~chunk.replaced[part] & ~self._may_differ(chunk, part)
        return carried(space, chunk.old_row, keep, row)

    def _may_differ(self, chunk: Chunk, part: str) -> Mask:
        """Items (n,) whose file may be another than it was, for all that this run has seen of it; texts are columns."""
        doubt: Mask = chunk.suspect[part] & (chunk.old_row >= 0) & (part in FILES)
        at = np.flatnonzero(doubt & chunk.was_read[part])
        seen = (space for space in self._store.spaces.values() if space.payload == part and not space.spec.declared)
        doubt[at] = (recorded_hashes(seen, chunk.old_row[at]) != chunk.hashes[part][at]).any(axis=1)
        return doubt

    def _looked_at(self) -> set[str]:
        """What this run has looked at: payloads, and the parts of messages that are in no space outside of it."""
        mine = {column for state in self._states.values() for column in state.space.info.columns}
        others = {c for name, space in self._store.spaces.items() if name not in self._states for c in space.info.columns}
        return {state.payload for state in self._states.values()} | (mine - others)


def _mapped(files: PartFiles, ref: PartRef, dtype: np.dtype[Any], name: str, width: int) -> npt.NDArray[Any]:
    """A dataset of a part of pieces."""
    return read_array(files, ref, name, dtype if name == VECTORS else np.float64, width)


def _refuse_unfit(chunk: Chunk, state: SpaceState) -> None:
    if state.unfit:
        claim = chunk.work[state.name].claim
        first = next(i for i, number in enumerate(claim.tolist()) if number in state.unfit)
        raise EncoderError(
            f"The vector that {state.encoder.spec.name} makes of item {chunk.id(first)!r} {state.unfit[int(claim[first])]}"
        )
