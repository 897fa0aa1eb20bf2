"""One way to open DuckDB."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb


def connect() -> duckdb.DuckDBPyConnection:
    """A database in memory that prints nothing: its progress bar would end up in the middle of a JSON document on stdout."""
    import duckdb

    connection = duckdb.connect()
    connection.execute("SET enable_progress_bar_print = false; SET enable_progress_bar = false")
    return connection
