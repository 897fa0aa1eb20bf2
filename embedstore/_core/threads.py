"""How many threads a heavy step may use: as many as there are idle processors, so that it does not wait for busy ones.

BLAS and OpenMP divide a product among their threads and then wait, spinning, for the slowest. Beside other work that one waits
for a processor: a step may take twenty times as long, and keeps the others from ending. With as many threads as there are idle
processors nothing waits; on a quiet machine that is all of them. Sums may differ in the last bit with the number of threads.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["allowed", "bounded", "idle", "side_by_side", "steady"]

SHARE = 0.3
"""The share of a processor that others may use before it no longer counts as idle."""
WINDOW, FIRST_WINDOW = 0.2, 0.05
"""Seconds over which use is measured: the kernel counts hundredths. Asked again within them, the last answer stands."""
VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
STAT, QUOTA = Path("/proc/stat"), Path("/sys/fs/cgroup/cpu.max")


def allowed() -> int:
    """Threads that this process may use at most: by affinity, by the container's quota, and by what the user set."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = QUOTA.read_text().split()
        if quota != "max":
            count = min(count, -(-int(quota) // int(period)))
    except (OSError, ValueError):
        pass  # no such limit here
    given = [int(value) for name in VARIABLES if (value := os.environ.get(name, "")).isdecimal()]
    return max(1, min([count, *filter(None, given)]))


def idle() -> int:
    """Threads that would each find a processor now: those `allowed`, less what other processes have used of late."""
    most = allowed()
    if (fixed := _FIXED.get()) is not None:
        return min(most, fixed)
    return most if most == 1 else min(most, max(1, int((os.cpu_count() or 1) - _USE.of_others() + SHARE)))


@contextmanager
def steady(threads: int) -> Iterator[None]:
    """Within it as many processors are `idle`, so that sums are the same to the last bit whenever they are made."""
    token = _FIXED.set(max(1, threads))
    try:
        yield
    finally:
        _FIXED.reset(token)


@contextmanager
def bounded() -> Iterator[int]:
    """Every BLAS and OpenMP pool that is loaded, and torch, at `idle` threads, or fewer if they had fewer; yields how many.

    It may be nested: each entry asks again, each exit puts back what the step around it had. XGBoost and FAISS take the number
    yielded.
    """
    threads = idle()
    _POOLS.enter(threads)
    try:
        yield threads
    finally:
        _POOLS.leave()


@contextmanager
def side_by_side() -> Iterator[None]:
    """NumPy's BLAS at one thread, for steps that many threads take at once; torch keeps its own.

    A small product that is divided makes BLAS's threads spin until the next one, on the processors that the others need: mel
    filters took 14 times the processor time (benchmarks/RESULTS.md). One thread gives the same numbers to the last bit.
    """
    _POOLS.enter(1, numpy_alone=True)
    try:
        yield
    finally:
        _POOLS.leave()


class _Use:
    """What the other processes of the machine use, by the kernel's counters since they were last read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._before = _read()
        self._others: float | None = None

    def of_others(self) -> float:
        """Processors in use by others, on average since the last call (0 where the kernel does not say)."""
        with self._lock:
            if self._before is None:
                return 0.0
            age = time.monotonic() - self._before[0]
            if self._others is not None and age < WINDOW:
                return self._others
            time.sleep(max(0.0, FIRST_WINDOW - age))
            now = _read() or self._before
            seconds, busy, own = (after - before for after, before in zip(now, self._before, strict=True))
            self._before, self._others = now, max(0.0, (busy - own) / max(seconds, FIRST_WINDOW))
            return self._others


def _read() -> tuple[float, float, float] | None:
    """The time, and processor seconds used by all processes and by this one."""
    try:
        fields = [int(field) for field in STAT.read_text().split("\n", 1)[0].split()[1:9]]
    except (OSError, ValueError):
        return None
    user, nice, system, _, _, irq, softirq, steal = fields
    return time.monotonic(), (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK"), time.process_time()


class _Limit(NamedTuple):
    """A step that is bounded: its `threads`, and whether torch and OpenMP are left as they are."""

    threads: int
    numpy_alone: bool


class _Pools:
    """The pools' numbers of threads: lowered while a step is bounded, never raised.

    A step within a step has its own number, and the outer one has its own again afterwards. NumPy's pools belong to the
    process: where a thread's last step ends they get the least number of the other threads' steps. The others' numbers belong
    to the thread that sets them, which puts back what it had, or it would be left with less for good.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._limits: dict[int, list[_Limit]] = {}
        self._before: dict[tuple[str, int], tuple[Any, int]] = {}
        self._libraries: list[Any] = []
        self._looked = (0, "")
        self._torch_before: int | None = None

    def enter(self, threads: int, *, numpy_alone: bool = False) -> None:
        with self._lock:
            limits = self._limits.setdefault(threading.get_ident(), [])
            limits.append(_Limit(threads, numpy_alone))
            pools, torch = self._loaded(), _torch()
            for pool in pools:  # all are asked before any is told: some share a runtime
                key = pool.filepath, 0 if _of_numpy(pool) else threading.get_ident()
                self._before.setdefault(key, (pool, pool.num_threads))
            if torch is not None and self._torch_before is None:
                self._torch_before = torch.get_num_threads()
            self._apply(limits, numpy_alone)

    def _loaded(self) -> list[Any]:
        """The pools there are. To look for them takes milliseconds, and an import is what brings one."""
        from threadpoolctl import ThreadpoolController

        if self._looked != (modules := (len(names := list(sys.modules)), names[-1])):
            self._libraries, self._looked = ThreadpoolController().lib_controllers, modules
        return self._libraries

    def leave(self) -> None:
        with self._lock:
            limits = self._limits[threading.get_ident()]
            left = limits.pop()
            if not limits:
                del self._limits[threading.get_ident()]
            self._apply(limits, left.numpy_alone)
            if not limits:
                self._before = {key: found for key, found in self._before.items() if key[1] != threading.get_ident()}
            if not self._limits:
                self._before.clear()
                self._torch_before = None

    def _apply(self, limits: list[_Limit], numpy_alone: bool) -> None:
        """Give each pool, or NumPy's alone, the number of the innermost of this thread's `limits` that is for it."""
        every = next((limit.threads for limit in reversed(limits) if not limit.numpy_alone), None)
        others = min((theirs[-1].threads for theirs in self._limits.values()), default=None)
        numpy = limits[-1].threads if limits else others
        for (_, thread), (pool, before) in self._before.items():
            if thread not in (0, threading.get_ident()):
                continue
            if (of_numpy := _of_numpy(pool)) or not numpy_alone:
                threads = numpy if of_numpy else every
                _tell(pool, before if threads is None else min(threads, before))
        if self._torch_before is not None and not numpy_alone:  # also for its threads that are yet to begin
            _torch().set_num_threads(self._torch_before if every is None else min(every, self._torch_before))


def _tell(pool: Any, threads: int) -> None:
    """Set a pool's number of threads.

    Of a pool that the process shares, threadpoolctl heeds one thread alone, or they would fight: `_Pools` keeps them apart.
    """
    if (let_go := getattr(pool, "clear_controlling_thread", None)) is not None:
        let_go(force=True)
    pool.set_num_threads(threads)


def _of_numpy(pool: Any) -> bool:
    """Whether it is a BLAS with threads of its own, as in NumPy's wheels; torch and FAISS share those of OpenMP."""
    return pool.user_api == "blas" and getattr(pool, "threading_layer", "") == "pthreads" and "torch" not in pool.filepath


def _torch() -> Any:
    """torch, if it has been imported."""
    module = sys.modules.get("torch")
    return module if hasattr(module, "set_num_threads") else None


_FIXED: ContextVar[int | None] = ContextVar("_FIXED", default=None)
_USE = _Use()
_POOLS = _Pools()
