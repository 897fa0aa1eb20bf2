"""What a server keeps: encoders by what they made, each value made once, a bounded number of long results, bounded threads."""

from __future__ import annotations

import gc
import threading
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import write_csv
from threadpoolctl import threadpool_info

import embedstore as es
import embedstore.retrieval.searcher as searching
from embedstore.encoders.hash import HashEncoder
from embedstore.errors import UsageError
from embedstore.retrieval.queries import Resolver
from embedstore.retrieval.search_options import SearchOptions
from embedstore.retrieval.searcher import Searcher
from embedstore.serving import service as serving
from embedstore.serving.maps import make_map, map_of_key
from embedstore.serving.serve_options import ServeOptions
from embedstore.serving.service import LONG_KEPT, Job, Service
from embedstore.serving.session import Session


class Newer(HashEncoder):
    """Other weights under the same name."""

    def __init__(self, dim: int, modality: str, name: str = "hash") -> None:
        super().__init__(dim, modality, name)
        self.spec = type(self.spec)(**{**self.spec.__dict__, "weights": "newer"})

    def encode(self, batch: Any) -> Any:
        return np.roll(super().encode(batch), 1, axis=1)


def test_an_encoder_that_made_other_vectors_is_not_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = write_csv(tmp_path / "t.csv", [{"id": f"i{n}", "text": f"text {n}"} for n in range(20)])
    es.embed(table, tmp_path / "old.store", text="hash:16")
    old = Searcher(es.Store.open(tmp_path / "old.store"))
    assert old.search(text="text 7", k=1).results[0].score == pytest.approx(1, abs=1e-3)
    monkeypatch.setattr("embedstore.encoders.hash.HashEncoder", Newer)
    es.embed(table, tmp_path / "new.store", text="hash:16")
    new = Searcher(es.Store.open(tmp_path / "new.store"), before=old)
    found = new.search(text="text 7", k=1).results[0]
    assert (found.id, found.score) == ("i7", pytest.approx(1, abs=1e-3))
    assert old.search(text="text 7", k=1).results[0].id == "i7"  # its own encoder is still there
    assert len(new.queries.encoders) == 1


def test_encoders_of_spaces_that_are_gone_are_let_go(tmp_path: Path) -> None:
    table = write_csv(tmp_path / "t.csv", [{"id": f"i{n}", "text": f"text {n}"} for n in range(5)])
    es.embed(table, tmp_path / "a.store", text="hash:16")
    es.embed(table, tmp_path / "b.store", text="hash:8")
    before = Searcher(es.Store.open(tmp_path / "a.store"))
    before.search(text="text 1")
    assert Searcher(es.Store.open(tmp_path / "b.store"), before=before).queries.encoders == {}


def test_an_encoder_is_loaded_once_by_many_threads(store: es.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    searcher = Searcher(store)
    loads: list[str] = []
    begun, go = threading.Event(), threading.Event()
    reloaded = searcher.queries._reloaded

    def slow(*given: Any) -> Any:
        loads.append("")
        begun.set()
        go.wait(10)
        return reloaded(*given)

    monkeypatch.setattr(searcher.queries, "_reloaded", slow)
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(searcher.search, text="text 1") for _ in range(4)]
        assert begun.wait(10)
        go.set()
        assert len({answer.result(10).results[0].id for answer in answers}) == 1
    assert len(loads) == 1


def test_encoders_are_taken_over_while_a_request_loads_another(store: es.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session is opened beside one that serves: neither is disturbed, and no model is loaded twice."""
    old = Searcher(store)
    old.search(text="text 1")

    class Key(tuple[str, ...]):
        """Looked into by whoever copies the encoders one by one, and at that moment another thread adds one."""

        def __getitem__(self, at: Any) -> Any:
            old.queries.encoders[("meanwhile", str(len(old.queries.encoders)))] = None
            return super().__getitem__(at)

    old.queries.encoders = {Key(key): made for key, made in old.queries.encoders.items()}
    assert len(Searcher(store, before=old).queries.encoders) == 1

    old = Searcher(store)
    loads: list[str] = []
    begun, go = threading.Event(), threading.Event()
    reload = Resolver._reloaded

    def slow(*given: Any) -> Any:
        loads.append("")
        begun.set()
        go.wait(10)
        return reload(*given)

    monkeypatch.setattr(Resolver, "_reloaded", slow)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(old.search, text="text 1")
        assert begun.wait(10)
        second = pool.submit(Searcher(store, before=old).search, text="text 1")
        go.set()
        assert first.result(10).results == second.result(10).results
    assert len(loads) == 1


def test_a_value_is_made_once_and_others_wait(store: es.Store) -> None:
    session = Session(store)
    made: list[int] = []
    begun, go = threading.Event(), threading.Event()

    def make() -> int:
        made.append(1)
        begun.set()
        go.wait(10)
        return len(made)

    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(session.keep, "key", make) for _ in range(3)]
        assert begun.wait(10)
        go.set()
        assert [one.result(10) for one in asked] == [1, 1, 1]

    def broken() -> int:
        raise UsageError("no")

    with pytest.raises(UsageError):
        session.keep("other", broken)
    assert session.keep("other", lambda: 5) == 5  # the next one tries again


def test_long_results_are_few(store: es.Store) -> None:
    service = Service(store, ServeOptions())
    for number in range(3 * LONG_KEPT):
        service.once(service.session, ("duplicates", number), lambda: 1).future.result(10)
        service.once(service.session, ("duplicates", 0), lambda: 1).future.result(10)
    known = service._long[service.session]
    assert len(known) == LONG_KEPT
    assert ("duplicates", 0) in known  # the one that is asked for again and again
    running: Future[int] = Future()
    known["more", "running"] = serving.Long(running, 0.0)
    for number in range(2 * LONG_KEPT):
        service.once(service.session, ("more", number), lambda: 1).future.result(10)
    assert ("more", "running") in known
    assert ("duplicates", 0) in known  # another kind makes no room


def test_batches_share_the_processors(store: es.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service(store, ServeOptions())
    job = Job(service.session, SearchOptions(text="text 1"))
    service._answered([job])  # loads what it needs
    seen: list[set[int]] = []
    inside, go = threading.Event(), threading.Event()
    answer = serving.answered

    def looked(jobs: Any) -> Any:
        if not inside.is_set():  # the first batch, which is still there while the second one is answered
            inside.set()
            go.wait(10)
        else:
            seen.append({pool["num_threads"] for pool in threadpool_info() if pool["internal_api"] == "openblas"})
        return answer(jobs)

    monkeypatch.setattr(serving, "answered", looked)
    monkeypatch.setattr(serving, "idle", lambda: 2)
    before = threadpool_info()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(service._answered, [job])
        assert inside.wait(10)
        second = pool.submit(service._answered, [job]).result(10)
        go.set()
        assert all(answers[0].results for answers in (first.result(10), second))  # type: ignore[union-attr]
    assert seen == [{1}]
    assert {one["filepath"]: one["num_threads"] for one in threadpool_info() if one["internal_api"] == "openblas"} == {
        one["filepath"]: one["num_threads"] for one in before if one["internal_api"] == "openblas"
    }


def test_what_did_not_change_is_not_read_again(store: es.Store, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a new generation: where the parts of a space are the same, its vectors and index are taken over."""
    opened: list[str] = []
    open_index = searching.open_index

    def spied(space: Any, **given: Any) -> Any:
        opened.append(space.name)
        return open_index(space, **given)

    monkeypatch.setattr(searching, "open_index", spied)
    session = Session(store).warm()
    assert sorted(opened) == ["image", "text"]
    opened.clear()
    removed = Session(store.remove(["item-02"]), before=session).warm()
    assert opened == []
    assert removed.searcher.search(id="item-04", space="text", k=20).results  # and what is removed is not found
    assert "item-02" not in [hit.id for hit in removed.searcher.search(text="text 2", k=20).results]
    assert session.searcher.search(text="text 2", k=1).results[0].id == "item-02"  # the session before sees it still
    more = write_csv(table.parent / "more.csv", [{"id": "new", "text": "quite new"}])
    es.embed(more, store.path, text="hash:16")
    grown = Session(es.Store.open(store.path), before=removed).warm()
    assert opened == ["text"]
    assert grown.searcher.search(text="quite new", k=1).results[0].id == "new"
    opened.clear()
    es.index(store.path, "image")
    assert Session(es.Store.open(store.path), before=grown).warm().searcher.search(id="new", space="text")
    assert opened == ["image"]


def test_another_head_costs_nothing_that_was_read(store: es.Store, table: Path) -> None:
    es.train(store.path, "label", inputs=["text"], name="kind")
    service = Service(store, ServeOptions())
    first = service.session
    before, matching = first.head("kind"), first.matching("price > 3")
    column = first.column("label")
    drawn = make_map(first, "image", "pca", keep=False)
    es.train(store.path, "label", inputs=["image"], name="kind", head="knn", replace=True)
    second = service.newer()
    assert second is not None
    assert second.store.items is first.store.items
    assert second.column("label") is column
    assert second.matching("price > 3") is matching
    assert map_of_key(second, drawn.key) is drawn
    assert before.inputs != second.head("kind").inputs
    service.session = second
    es.embed(write_csv(table.parent / "more.csv", [{"id": "new", "text": "quite new"}]), store.path, text="hash:16")
    third = service.newer()
    assert third is not None
    assert len(third.column("label")) == len(column) + 1
    again = make_map(third, "image", "pca", keep=False)
    assert again.points is drawn.points  # its vectors are the same
    assert again.key != drawn.key
    removed = Session(third.store.remove(["item-02"]), before=third)
    assert len(make_map(removed, "image", "pca", keep=False).points) == len(drawn.points) - 1


def test_what_is_gone_or_could_not_be_read_is_not_taken_over(
    store: es.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def broken(*given: Any, **named: Any) -> Any:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr("embedstore.retrieval.index.of_one_generation", broken)
        troubled = Session(store).warm()
    image = troubled.searcher.index(troubled.space("image"))
    assert image.problem == "The index is not used: [Errno 24] Too many open files"
    healed = Session(store, before=troubled).warm()
    assert healed.searcher.index(healed.space("image")).problem is None

    table = write_csv(tmp_path / "b.csv", [{"id": "a", "text": "one"}])
    es.embed(table, tmp_path / "b.store", text="hash:8")
    gone = weakref.ref(healed.searcher.index(healed.space("image")))
    other = Session(es.Store.open(tmp_path / "b.store"), before=healed).warm()
    del healed, image, troubled
    gc.collect()
    assert gone() is None
    assert list(other.searcher.queries.spaces) == ["text"]
