"""The concurrency of the pipeline: iterators that run ahead, jobs in the background, stage clocks.

Every queue is bounded, so that memory does not grow with the dataset; nothing here knows what flows through.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

PATIENCE = 1.0
"""Seconds that an error waits for a source to give its next item."""
STAGES = ("read", "compare", "decode", "encode", "write")


class Clock:
    """Busy seconds of each stage, summed over threads."""

    def __init__(self) -> None:
        self.busy = dict.fromkeys(STAGES, 0.0)
        self._lock = threading.Lock()

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - start
            with self._lock:
                self.busy[stage] += elapsed

    def shares(self, wall: float, workers: int) -> dict[str, float]:
        """Fraction of `wall` seconds that each stage was busy; `workers` threads read and decode."""
        threads = {"read": workers, "compare": 1, "decode": workers, "encode": 1, "write": 1}
        return {stage: min(1.0, self.busy[stage] / max(wall * threads[stage], 1e-9)) for stage in STAGES}


class _End:
    """Put into the queue after the last item, with the error that ended the iterator."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class RunAhead(Generic[T]):
    """An iterator whose source runs in a thread, at most `depth` items ahead. A context manager."""

    def __init__(self, source: Iterator[T], depth: int) -> None:
        self._source = source
        self._queue: queue.Queue[T | _End] = queue.Queue(depth)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="embedstore-produce", daemon=True)

    def __enter__(self) -> RunAhead[T]:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(None if error is None else PATIENCE)  # Ctrl-C does not wait for a slow source

    def __iter__(self) -> Iterator[T]:
        while True:
            item = self._queue.get()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item

    @property
    def ready(self) -> bool:
        """Whether there is a next item that can be had without waiting; not where the source has ended or failed."""
        with self._queue.mutex:
            return bool(self._queue.queue) and not isinstance(self._queue.queue[0], _End)

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            for item in self._source:
                if not self._put(item):
                    return
        except BaseException as caught:
            error = caught
        finally:
            if isinstance(self._source, Generator):  # here, where it runs: what it has begun for nobody is cancelled
                self._source.close()
        self._put(_End(error))

    def _put(self, item: T | _End) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False


class Background:
    """Runs jobs one after the other in a thread, at most one waiting.

    After a job that raised no other one runs; the error surfaces at the next `submit` or at `finish`.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="embedstore-write")
        self._pending: deque[Future[None]] = deque()
        self._failed = False

    def submit(self, job: Callable[[], None]) -> None:
        while len(self._pending) > 1:
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(self._run, job))

    def _run(self, job: Callable[[], None]) -> None:
        if self._failed:
            return
        try:
            job()
        except BaseException:
            self._failed = True
            raise

    def finish(self) -> None:
        """Wait for every job; raises what one of them raised."""
        try:
            while self._pending:
                self._pending.popleft().result()
        finally:
            self._pool.shutdown(wait=True, cancel_futures=True)
