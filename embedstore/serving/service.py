"""What one server holds: the session of the latest generation, bounded threads, and the two queues of plain questions."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar

from embedstore._core.threads import bounded, idle, steady
from embedstore.errors import EmbedstoreError, one_line
from embedstore.retrieval.search_options import SearchOptions
from embedstore.retrieval.search_result import SearchResult
from embedstore.retrieval.together import answer_all, joins
from embedstore.serving.batching import Batcher, BusyError
from embedstore.serving.gauges import Gauges
from embedstore.serving.serve_options import ServeOptions
from embedstore.serving.session import Session
from embedstore.store import Store
from embedstore.store.format import MANIFEST

__all__ = ["Service"]

P = ParamSpec("P")
T = TypeVar("T")
Key = tuple[Hashable, ...]

LOG = logging.getLogger("embedstore")
POLL = 0.25
"""Seconds between two looks whether something was committed."""
SHARE = 4
"""To follow a store that changes all the time may take a fifth of the time: one looks again so many times later as it took."""
WAITING = 256
"""Requests that may wait for a thread."""


LONG_WAITING = 8
LONG_KEPT = 8
"""Results of long work of each kind that a generation keeps: duplicates at so many thresholds, maps of so many spaces."""


class Job(NamedTuple):
    """One plain question to one generation."""

    session: Session
    wanted: SearchOptions


class Long(NamedTuple, Generic[T]):
    """Work that may take minutes, and when it was asked for."""

    future: Future[T]
    started: float

    async def within(self, seconds: float) -> bool:
        """Whether it is done, at the latest after so many seconds."""
        done, _ = await asyncio.wait([asyncio.wrap_future(self.future)], timeout=seconds)
        return bool(done)


class Busy:
    """How many threads are within it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running = 0

    def __enter__(self) -> int:
        with self._lock:
            self._running += 1
            return self._running

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._running -= 1


class Service:
    """Answers for an application; made of a store, started and stopped with the server.

    Parameters
    ----------
    store : Store
    options : ServeOptions
    """

    def __init__(self, store: Store, options: ServeOptions) -> None:
        self.options = options
        self.session = Session(store, device=options.device)
        self.problem: str | None = None
        """Why the latest generation could not be opened, if it could not."""
        self.gauges = Gauges()
        self._seen = self._state()
        self._pool = ThreadPoolExecutor(options.threads, thread_name_prefix="embedstore-serve")
        self._batches = ThreadPoolExecutor(2, thread_name_prefix="embedstore-serve-batch")
        self._opening = ThreadPoolExecutor(1, thread_name_prefix="embedstore-serve-follow")
        self._texts: Batcher[Job, SearchResult] = Batcher(self._answered, self._batches)
        self._others: Batcher[Job, SearchResult] = Batcher(self._answered, self._batches)
        self._busy = Busy()
        self._slow: dict[str, ThreadPoolExecutor] = {}
        """A thread for each kind of long work."""
        self._long: weakref.WeakKeyDictionary[Store | Session, dict[Key, Long[Any]]] = weakref.WeakKeyDictionary()
        self._running = 0
        self._following: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Warm up, and follow the store from now on."""
        await asyncio.get_running_loop().run_in_executor(self._opening, self.session.warm)
        self._read_ahead()
        self._following = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """Let go of threads; what runs in them ends by itself."""
        if self._following is not None:
            self._following.cancel()
        for pool in (self._pool, self._batches, self._opening, *self._slow.values()):
            pool.shutdown(wait=False, cancel_futures=True)

    async def run(self, work: Callable[P, T], *given: P.args, **named: P.kwargs) -> T:
        """`work` in one of the server's threads.

        Raises
        ------
        BusyError
            Too many requests wait already.
        TimeoutError
            It takes longer than a request may; it goes on without anybody waiting.
        """
        if self._running >= self.options.threads + WAITING:
            raise BusyError
        self._running += 1
        future = self._pool.submit(work, *given, **named)
        future.add_done_callback(self._count_down)
        return await asyncio.wait_for(asyncio.wrap_future(future), self.options.seconds)

    def once(self, owner: Store | Session, key: Key, make: Callable[[], T]) -> Long[T]:
        """Work that may take minutes, done once for each key, one work of a kind at a time.

        Parameters
        ----------
        owner : Store or Session
            What it depends on: a session where heads count, which may be others in the same generation.
        key : tuple
            The kind of work in a word, then what it depends on.

        Raises
        ------
        BusyError
            Too much waits already.
        """
        known = self._long.setdefault(owner, {})
        if key in known:
            known[key] = known.pop(key)  # the last ones that were asked for stay
        else:
            kind = str(key[0])
            done = [name for name, work in known.items() if name[0] == kind and work.future.done()]
            for name in done[: max(0, len(done) - LONG_KEPT + 1)]:
                del known[name]
            if sum(not one.future.done() for works in self._long.values() for one in works.values()) >= LONG_WAITING:
                raise BusyError
            if kind not in self._slow:
                self._slow[kind] = ThreadPoolExecutor(1, thread_name_prefix="embedstore-serve-slow")
            known[key] = Long(self._slow[kind].submit(make), time.monotonic())
        work = known[key]
        if work.future.done() and work.future.exception() is not None:
            del known[key]  # the next one who asks tries again
        return work

    def _read_ahead(self) -> None:
        """Decode what answers hold, beside the requests: they wait for no more of it than they need."""
        with suppress(BusyError):
            self.once(self.session.store, ("columns",), self.session.read_ahead)

    def _count_down(self, _: object) -> None:
        self._running -= 1

    async def search(self, session: Session, wanted: SearchOptions) -> SearchResult:
        """The answer to a question: with others where it is plain, in a thread of its own where it is not."""
        if not joins(wanted):
            return await self.run(session.searcher.answer, wanted)
        if wanted.where is not None:  # a filter may take long: nobody else waits for it
            await self.run(session.matching, wanted.where)
        batcher = self._others if wanted.text is None else self._texts
        return await asyncio.wait_for(batcher.ask(Job(session, wanted)), self.options.seconds)

    def _answered(self, jobs: Sequence[Job]) -> list[SearchResult | EmbedstoreError]:
        """A batch, with its share of the processors: those that are idle, among the batches that run."""
        with self._busy as running, steady(idle() // running), bounded():
            return answered(jobs)

    async def _follow(self) -> None:
        """Serve each generation from when it is committed; requests that run keep the one they began with."""
        loop = asyncio.get_running_loop()
        pause = POLL
        while True:
            await asyncio.sleep(pause)
            started = time.monotonic()
            try:
                session = await loop.run_in_executor(self._opening, self.newer)
                self.problem = None
            except Exception as error:  # of the store or of a library: it is served as it was, and looked at again
                session, problem = None, one_line(error)
                if problem != self.problem:
                    LOG.warning("The store changed, and cannot be followed: %s", problem)
                self.problem = problem
            if session is not None:
                self.session = session
                self._read_ahead()
            pause = max(POLL, SHARE * (time.monotonic() - started))

    def newer(self) -> Session | None:
        """A session of the latest generation, ready to answer, if the one at hand is not it."""
        state = self._state()
        if state == self._seen and self.session.searcher.current():
            return None
        store, held = self.session.store.refresh(), self.session.store
        if store.manifest == held.manifest:  # a head or an index is another: what was read of items and vectors stays
            store = held
        session = Session(store, device=self.options.device, before=self.session).warm()
        self._seen = state
        return session

    def _state(self) -> tuple[int, int] | None:
        """What tells a manifest from the one that replaced it."""
        try:
            found = os.stat(self.session.store.path / MANIFEST)
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino


def answered(jobs: Sequence[Job]) -> list[SearchResult | EmbedstoreError]:
    """Answers to questions of any generations, those of one generation together."""
    answers: dict[int, SearchResult | EmbedstoreError] = {}
    sessions: dict[int, list[int]] = {}
    for at, job in enumerate(jobs):
        sessions.setdefault(id(job.session), []).append(at)
    for members in sessions.values():
        searcher = jobs[members[0]].session.searcher
        answers.update(zip(members, answer_all(searcher, [jobs[at].wanted for at in members]), strict=True))
    return [answers[at] for at in range(len(jobs))]
