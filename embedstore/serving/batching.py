"""What waits while a batch runs makes the next batch: no timer, no wait where nothing else runs."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Generic, TypeVar

from embedstore.errors import EmbedstoreError

Job = TypeVar("Job")
Result = TypeVar("Result")


class BusyError(Exception):
    """More waits than can be done in time."""


class Batcher(Generic[Job, Result]):
    """Collects jobs of one event loop and hands them to `run` many at a time, in a thread of `pool`.

    Parameters
    ----------
    run : callable
        From jobs to as many results; a result that is an `EmbedstoreError` is raised where the job was asked.
    pool : Executor
    most : int
        Jobs of one batch.
    waiting : int
        Jobs that may wait; one more is refused.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Job]], Sequence[Result | EmbedstoreError]],
        pool: Executor,
        *,
        most: int = 64,
        waiting: int = 1024,
    ) -> None:
        self._run, self._pool = run, pool
        self._most, self._may_wait = most, waiting
        self._waiting: deque[tuple[Job, asyncio.Future[Result]]] = deque()
        self._draining: asyncio.Task[None] | None = None

    async def ask(self, job: Job) -> Result:
        """The result of `job`.

        Raises
        ------
        BusyError
            Too many wait already.
        """
        if len(self._waiting) >= self._may_wait:
            raise BusyError
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((job, future))
        if self._draining is None or self._draining.done():
            self._draining = asyncio.create_task(self._drain())
        return await future

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            await asyncio.sleep(0)  # what arrived in the same turn of the loop comes along
            some = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
            some = [(job, future) for job, future in some if not future.done()]  # whoever asked may have gone
            try:
                results = await loop.run_in_executor(self._pool, self._run, [job for job, _ in some])
            except Exception as error:
                for _, future in some:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), result in zip(some, results, strict=True):
                if future.done():
                    continue
                if isinstance(result, EmbedstoreError):
                    future.set_exception(result)
                else:
                    future.set_result(result)
