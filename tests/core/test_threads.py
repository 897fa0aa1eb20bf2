"""Heavy steps take as many threads as there are idle processors, and put back what they found."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import embedstore._core.threads as threads
from embedstore.heads import make_head


def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, others: float, cpus: int) -> None:
    """One of `cpus` processors, of which other processes use `others`."""
    monkeypatch.setattr(threads.os, "cpu_count", lambda: cpus)
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda pid: set(range(cpus)), raising=False)
    monkeypatch.setattr(threads, "QUOTA", tmp_path / "none")
    for name in threads.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    readings = iter([(0.0, 100.0, 1.0), (10.0, 100.0 + 10 * others + 3, 4.0)])
    monkeypatch.setattr(threads, "_read", lambda: next(readings))
    monkeypatch.setattr(threads.time, "monotonic", lambda: 10.0)
    monkeypatch.setattr(threads, "_USE", threads._Use())


@pytest.mark.parametrize(
    ("others", "cpus", "expected"),
    [(0.0, 2, 2), (0.2, 2, 2), (0.5, 2, 1), (1.0, 2, 1), (2.0, 2, 1), (0.1, 1, 1), (40.2, 64, 24), (64.0, 64, 1)],
)
def test_idle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: float, cpus: int, expected: int) -> None:
    machine(tmp_path, monkeypatch, others=others, cpus=cpus)
    assert threads.idle() == expected
    assert threads.idle() == expected  # within the window nothing is read again


def test_a_kernel_that_does_not_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(tmp_path, monkeypatch, others=2, cpus=2)
    monkeypatch.setattr(threads, "_read", lambda: None)
    monkeypatch.setattr(threads, "_USE", threads._Use())
    assert threads.idle() == 2


def test_the_kernel_is_read() -> None:
    read = threads._read()
    assert read is None or (read[1] > 0 and read[2] > 0)


def test_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(tmp_path, monkeypatch, others=0, cpus=16)
    assert threads.allowed() == 16
    quota = tmp_path / "cpu.max"
    monkeypatch.setattr(threads, "QUOTA", quota)
    for text, expected in (("max 100000\n", 16), ("150000 100000\n", 2), ("50000 100000\n", 1), ("odd", 16)):
        quota.write_text(text)
        assert threads.allowed() == expected
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads.allowed() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "4,2")  # a list is a matter of nested regions
    assert threads.allowed() == 16


def counts() -> dict[str, int]:
    return {pool["filepath"]: pool["num_threads"] for pool in threadpool_info()}


@pytest.fixture
def two() -> Iterator[dict[str, int]]:
    """Pools of two threads, whatever the machine; SciPy has one too, which a fit would load."""
    pytest.importorskip("scipy.linalg")
    with threadpool_limits(2):
        yield counts()


def test_bounded(two: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "idle", lambda: 1)
    with threads.bounded() as outer:
        assert outer == 1
        assert set(counts().values()) == {1}
        monkeypatch.setattr(threads, "idle", lambda: 2)
        with threads.bounded() as inner:  # the machine has become quiet
            assert inner == 2
            assert counts() == two
    assert counts() == two


def test_never_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "idle", lambda: 64)
    with threadpool_limits(1):
        before = counts()
        with threads.bounded():
            assert counts() == before


def test_side_by_side_is_for_blas_alone(two: dict[str, int]) -> None:
    blas = {pool["filepath"] for pool in threadpool_info() if pool.get("threading_layer") == "pthreads"}
    assert blas
    with threads.side_by_side():
        assert counts() == {path: 1 if path in blas else count for path, count in two.items()}
        with threads.side_by_side():
            pass
    assert counts() == two


def test_a_step_has_its_threads_again_after_one_within_it(two: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "idle", threads._FIXED.get)
    one = dict.fromkeys(two, 1)
    with threads.steady(2), threads.bounded():
        with threads.side_by_side():
            assert counts() != two
            with threads.bounded():
                assert counts() == two
            assert counts() != two
        assert counts() == two
    with threads.steady(1), threads.bounded():
        with threads.steady(2), threads.bounded():
            assert counts() == two
        with threads.side_by_side():
            assert counts() == one
        assert counts() == one
    assert counts() == two


def test_put_back_after_an_error(two: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "idle", lambda: 1)

    def fails() -> None:
        with threads.bounded():
            raise ValueError

    with pytest.raises(ValueError):
        fails()
    assert counts() == two


def test_no_thread_is_left_with_less(two: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "idle", lambda: 1)
    entered, leave = threading.Event(), threading.Event()

    def holds() -> None:
        with threads.bounded():
            entered.set()
            leave.wait(10)

    other = threading.Thread(target=holds)
    with threads.bounded():
        other.start()
        assert entered.wait(10)
    blas = {pool["filepath"] for pool in threadpool_info() if pool.get("threading_layer") == "pthreads"}
    still = counts()  # BLAS's threads are the process's, and the other thread's step has not ended
    leave.set()
    other.join()
    assert still == {path: 1 if path in blas else count for path, count in two.items()}
    assert counts() == two


def test_a_second_thread_is_heeded(two: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """threadpoolctl 3.8 heeds the first thread that sets a shared pool, as long as that lives."""
    entered, leave = threading.Event(), threading.Event()

    def holds() -> None:
        with threads.steady(2), threads.bounded():
            entered.set()
            leave.wait(10)

    other = threading.Thread(target=holds)
    other.start()
    assert entered.wait(10)
    with threads.steady(1), threads.bounded():
        assert set(counts().values()) == {1}
    leave.set()
    other.join()
    assert counts() == two


def test_heads_are_fitted_within(two: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "idle", lambda: 1)
    seen = []
    kind = type(make_head("ridge"))
    fit = kind._fit

    def spied(self: object, *args: object) -> None:
        seen.append(set(counts().values()))
        fit(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(kind, "_fit", spied)
    x = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    make_head("ridge").fit(x, (x[:, 0] > 0).astype(int))
    assert seen == [{1}]
    assert two.items() <= counts().items()  # the head may have loaded another pool
