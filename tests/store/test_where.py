"""Filters are bounded in time and memory, and touch nothing but the store's items."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import run

import embedstore as es
from embedstore._core import sql
from embedstore.errors import UsageError
from embedstore.sources import MemorySource
from embedstore.store import items
from embedstore.store.access import Access

ENDLESS = "(select count(*) from items a, items b, items c, items d, items e where a.n + e.n > items.n) > 3"


@pytest.fixture
def numbered(tmp_path: Path) -> es.Store:
    data = {"id": [f"i{i}" for i in range(3000)], "text": [f"t{i}" for i in range(3000)], "n": list(range(3000))}
    es.embed(MemorySource(data), tmp_path / "a.store", text="hash:8")
    return es.Store.open(tmp_path / "a.store")


def test_a_filter_ends_after_its_time(numbered: es.Store) -> None:
    limited = es.Store.open(numbered.path, where_timeout=0.2)
    for attempt in (lambda: numbered.items.where(ENDLESS, timeout=0.2), lambda: limited.where(ENDLESS)):
        with pytest.raises(UsageError, match=r"not done in 0\.2 s.*--where-timeout"):
            attempt()
    assert len(numbered.where("n < 10")) == 10
    with pytest.raises(UsageError, match="not done"):
        es.search(limited, id="i1", where=ENDLESS)
    assert limited.refresh().access.where_timeout == 0.2


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_a_time_limit_is_seconds(seconds: float) -> None:
    with pytest.raises(UsageError, match="above 0"):
        Access(seconds)


def test_the_command_line_has_the_limit(numbered: es.Store) -> None:
    done = run("search", numbered.path, "--id", "i1", "--where", ENDLESS, "--where-timeout", "0.3", code=2)
    assert done.stderr.count("\n") == 1
    assert "not done in 0.3 s" in done.stderr


def test_a_filter_is_bounded_in_memory(numbered: es.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "FILTER_BYTES", 64 << 20)
    with pytest.raises(UsageError, match="needs more than"):
        numbered.where("(select count(distinct a.n * 3001 + b.n) from items a, items b) > 3")
    assert not (Path.cwd() / ".tmp").exists()


def test_a_filter_reads_no_other_file(numbered: es.Store, tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("a\n1\n")
    for expression in (
        f"n in (select a from read_csv('{tmp_path}/secret.csv'))",
        f"n in (select a from '{tmp_path}/secret.csv')",
    ):
        with pytest.raises(UsageError):
            numbered.where(expression)


def test_the_name_of_a_folder_above_is_no_value(tmp_path: Path) -> None:
    """DuckDB takes ``label=cat`` in a path for the value of a column, where it is not told otherwise."""
    below = tmp_path / "label=cat" / "n=1"
    es.embed(MemorySource({"id": ["a", "b"], "text": ["x", "y"], "label": ["dog", "cat"]}), below / "s", text="hash:8")
    store = es.Store.open(below / "s")
    assert store.where("label = 'cat'").tolist() == store.items.rows_of(["b"]).tolist()
    with pytest.raises(UsageError, match="Columns: row"):
        store.where("n = 1")


def test_a_query_that_does_not_look_up_is_left_behind(monkeypatch: pytest.MonkeyPatch, numbered: es.Store) -> None:
    """Some functions of DuckDB do not notice an interruption: the answer comes after the time of grace all the same."""
    import threading

    never = threading.Event()
    monkeypatch.setattr(sql, "GRACE", 0.1)
    real = items.within
    monkeypatch.setattr(items, "within", lambda seconds, connection, work: real(seconds, connection, never.wait))
    with pytest.raises(UsageError, match="not done"):
        numbered.items.where("n < 10", timeout=0.1)
    never.set()
