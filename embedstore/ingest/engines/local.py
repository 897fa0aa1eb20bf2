"""The engine of one machine: a thread that reads ahead with a pool of workers, the caller's that encodes, one that commits."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

from embedstore._core.threads import allowed, side_by_side
from embedstore.encoders.base import outside_of
from embedstore.ingest.consume import ChunkCloser, Encoding
from embedstore.ingest.engines.base import Job
from embedstore.ingest.plan import Message, Planner
from embedstore.ingest.process_reader import ProcessReader
from embedstore.ingest.produce import ChunkEnd, Producer
from embedstore.ingest.readers import Reader, ThreadReader
from embedstore.ingest.report import Progress
from embedstore.ingest.stages import RunAhead
from embedstore.ingest.text_columns import texts_embedded

AHEAD = 4
"""Batches that are read before they are encoded."""
PROCESSES = 2
"""For each processor at most, to read and decode: some wait for disks, more are in one another's way."""


def run(job: Job) -> None:
    """Embed the whole source, or raise what stopped it; what was committed by then stays."""
    options, states = job.options, list(job.states.values())
    with (
        side_by_side(),
        closing(_reader(job)) as reader,
        ThreadPoolExecutor(options.threads, thread_name_prefix="embedstore-read") as pool,
        _abandoned_on_error(reader),
    ):
        producer = Producer(job.source, job.typed, _planner(job), states, pool, reader, job.clock, options)
        closer = ChunkCloser(job.store, job.writer, job.states, job.report, job.clock, strict=options.strict)

        def close(end: ChunkEnd) -> None:
            closer.close(end.chunk, end.claims)
            if options.prune:
                job.seen[end.chunk.old_row[end.chunk.old_row >= 0]] = True

        encoding = Encoding(job.clock, close)
        try:
            _encode_all(job, producer, encoding)
        finally:
            try:
                encoding.stop()
            finally:
                closer.finish()


@contextmanager
def _abandoned_on_error(reader: Reader) -> Iterator[None]:
    """What stops a run does not wait for payloads that are being read and prepared."""
    try:
        yield
    except BaseException:
        reader.abandon()
        raise


def _reader(job: Job) -> Reader:
    """Processes where an encoder's payloads can be prepared by them, else threads."""
    options, encoders = job.options, [state.encoder for state in job.states.values()]
    if any(outside_of(encoder) for encoder in encoders):
        count = min(options.threads, PROCESSES * allowed())
        return ProcessReader(count, encoders, options.timeout, options.confined)
    return ThreadReader(options.timeout, options.confined)


def _planner(job: Job) -> Planner:
    source = job.source
    spaces = [*job.store.spaces.values(), *(state.space for state in job.states.values())]
    return Planner(
        job.store.items,
        source.name,
        rehash=job.options.rehash,
        unique_ids=getattr(source, "unique_ids", False),
        duplicate_hint=getattr(source, "duplicate_hint", None),
        root=job.options.confined,
        texts=texts_embedded(spaces),
        messages={space.payload: Message(space.info.parts, space.info.whole) for space in spaces if space.info.parts},
    )


def _encode_all(job: Job, producer: Producer, encoding: Encoding) -> None:
    states, total = job.states.values(), job.source.count()
    with RunAhead(producer.events(), depth=AHEAD) as events:
        for event in events:
            encoding.add(event)
            if not events.ready:
                encoding.finish()
            done = job.report.items + sum(state.waiting for state in states) // max(len(states), 1)
            job.on_progress(Progress(done, total, sum(state.encoded for state in states)))
        encoding.finish()
