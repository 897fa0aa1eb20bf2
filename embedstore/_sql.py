"""One way to open DuckDB, and to write names and strings in its SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb


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
