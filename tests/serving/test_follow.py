"""A server of its own process follows the store while it is asked: no error, every answer of one generation, the new found."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from helpers import write_csv, write_image

import embedstore as es

SERVE = "from embedstore_cli.main import main; main()"
ENDLESS = """
import threading
from embedstore.serving import routes_look
routes_look.PATIENCE = 0.1
routes_look.make_map = lambda *given, **named: threading.Event().wait(600)
"""
CLIENTS = 8
ROUNDS = 3


@contextmanager
def serving(store: es.Store, code: str = SERVE) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """``embedstore serve`` as users start it: its address, and its process."""
    command = [sys.executable, "-c", code, "serve", str(store.path), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            yield line.split(" at ")[1].split(" ")[0], process
        finally:
            process.kill()


@pytest.fixture
def address(store: es.Store) -> Iterator[str]:
    with serving(store) as (found, process):
        yield found
        process.terminate()
        assert process.wait(60) in (0, 1)


def asked(address: str, path: str, request: Any = None) -> Any:
    data = None if request is None else json.dumps(request).encode()
    called = urllib.request.Request(f"{address}{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(called, timeout=30) as answer:
        return json.load(answer)


def found_after(address: str, item: str) -> int:
    """Ask until `item` is served; the generation that has it."""
    for _ in range(3000):
        filtered = {"filter": [{"field": "id", "op": "=", "value": item}]}
        if asked(address, "v1/search", filtered)["results"]:
            return int(asked(address, "v1/store")["generation"])
        threading.Event().wait(0.01)
    raise AssertionError(f"{item} is not served")


def test_ctrl_c_ends_it_while_long_work_runs(store: es.Store) -> None:
    with serving(store, ENDLESS + SERVE) as (address, process):
        assert asked(address, "v1/map?space=image")["state"] == "computing"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) in (0, 1)


def test_the_store_is_followed_while_clients_search(address: str, store: es.Store, tmp_path: Path) -> None:
    """A writer embeds, removes and compacts."""
    done = threading.Event()
    problems: list[str] = []
    answers: list[dict[str, Any]] = []

    def search(number: int) -> None:
        while not done.is_set():
            try:
                answers.append(asked(address, "v1/search", {"query": {"text": f"text {number}"}, "k": 50}))
            except Exception as error:
                problems.append(repr(error))

    clients = [threading.Thread(target=search, args=(number,)) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    items_of = {store.generation: {f"item-{i:02d}" for i in range(12) if i != 3}}
    for number in range(ROUNDS):
        write_image(tmp_path / "new" / f"{number}.png", seed=100 + number)
        row = {"id": f"new-{number}", "image": f"{number}.png", "text": f"new {number}"}
        table = write_csv(tmp_path / "new" / f"{number}.csv", [row])
        es.embed(table, store.path, image="hash:32", text="hash:16")
        items_of[es.Store.open(store.path).generation] = {*items_of[max(items_of)], f"new-{number}"}
        assert found_after(address, f"new-{number}") >= max(items_of)
        smaller = es.Store.open(store.path).remove([f"item-0{number}"])
        items_of[smaller.generation] = items_of[max(items_of)] - {f"item-0{number}"}
        es.compact(store.path)
        items_of[es.Store.open(store.path).generation] = items_of[max(items_of)]
    done.set()
    for client in clients:
        client.join()
    assert problems == []
    assert len(answers) >= CLIENTS
    for answer in answers:
        known = [generation for generation in items_of if generation <= answer["generation"]]
        among = {one["id"] for one in answer["results"]}
        assert among == items_of[max(known)] or answer["generation"] not in items_of
