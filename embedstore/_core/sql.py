"""One way to open DuckDB, to end what takes too long there, and to write names and strings in its SQL."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import duckdb

T = TypeVar("T")

FILTER_BYTES = 2 << 30
"""Memory that a filter may take; one that only picks rows takes a hundredth of it."""
THREAD = "embedstore-sql"
GRACE, POLL = 1.0, 0.02  # seconds that a query has to end in once it was interrupted; some functions of DuckDB never look


def bounded(connection: duckdb.DuckDBPyConnection) -> None:
    """Let `connection` take `FILTER_BYTES` of memory, or half of the machine's where that is less, and nothing of the disk."""
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    connection.execute(f"SET memory_limit='{min(FILTER_BYTES, physical // 2)}B'; SET temp_directory=''")


def within(seconds: float, connection: duckdb.DuckDBPyConnection, work: Callable[[], T]) -> T:
    """`work`, which uses and closes `connection`, in a thread of its own; Ctrl-C and the time limit interrupt its query.

    Raises
    ------
    TimeoutError
        It took longer than `seconds`.
    """
    results: list[T] = []
    errors: list[BaseException] = []
    done = threading.Event()  # `Thread.join` takes a thread for ended where Ctrl-C ends the waiting

    def run() -> None:
        try:
            with connection:
                results.append(work())
        except BaseException as error:
            errors.append(error)
        done.set()

    threading.Thread(target=run, name=THREAD).start()  # a daemon would be torn out of DuckDB, which ends the process
    in_time = False
    try:
        in_time = done.wait(seconds)
    finally:
        until = time.monotonic() + GRACE
        while not done.is_set() and time.monotonic() < until:
            with contextlib.suppress(Exception):  # closed meanwhile
                connection.interrupt()
            done.wait(POLL)
    if not in_time:
        raise TimeoutError
    if errors:
        raise errors[0]
    return results[0]


def connect(*, frugal: bool = False) -> duckdb.DuckDBPyConnection:
    """A database in memory that prints nothing: its progress bar would end up in the middle of a JSON document on stdout.

    Parameters
    ----------
    frugal : bool
        One thread and small buffers, which are given back at once.
    """
    import duckdb

    connection = duckdb.connect()
    # DuckDB turns its bar on where it can show one. In a notebook without ipywidgets it cannot, and every change of the
    # setting raises there, even to off.
    if connection.execute("SELECT current_setting('enable_progress_bar')").fetchall() != [(False,)]:
        connection.execute("SET enable_progress_bar = false")
    if frugal:
        connection.execute("SET threads = 1; SET streaming_buffer_size = '1MB'")
        connection.execute("SET allocator_flush_threshold = '1MB'; SET allocator_bulk_deallocation_flush_threshold = '1MB'")
    return connection


def quoted(name: str) -> str:
    """`name` as SQL writes a column."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: Any) -> str:
    """`value` as SQL writes a string."""
    return "'" + str(value).replace("'", "''") + "'"
