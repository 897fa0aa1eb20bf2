"""What a user waits for: ten results with three columns of metadata each, end to end, beside LanceDB and qdrant-client.

One process, all engines by turns, queries one by one; and each engine's first answer from a cold shell.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._data import K
from benchmarks._engines import ENGINES, Array, Data
from benchmarks._measure import TARGETS

Answer = list[tuple[str, dict[str, Any]]]
"""Ids and columns of the results."""
Ask = Callable[[Array], Answer]

COLUMNS = ("title", "label", "price")
TURNS, COLD = 5, 3
BLOCK = 16384
PEERS = {"lancedb": "LanceDB", "qdrant_client": "qdrant-client, local mode"}


def metadata(lo: int, hi: int) -> dict[str, list[Any]]:
    """Ids and three columns of items `lo` to `hi`."""
    items = range(lo, hi)
    return {
        "id": [f"item-{i:08d}" for i in items],
        "title": [f"The title of number {i}, the {i * 7919 % 1009}th of its kind" for i in items],
        "label": [f"class {i % 40}" for i in items],
        "price": [i * 31 % 9973 / 100 for i in items],
    }


def answers(folder: Path, *, threads: int, turns: int, cold: int) -> dict[str, Any]:
    """Medians in ms by engine, and seconds from a cold shell; what is not in `folder` yet is made."""
    vectors, queries = np.load(folder / "vectors.npy", mmap_mode="r"), np.load(folder / "queries.npy")
    asks: dict[str, Ask] = {}
    shells: dict[str, list[str]] = {}
    _ours(folder, vectors, asks, shells)
    data = Data(vectors, {}, threads)
    for module, make in {"lancedb": _lance, "qdrant_client": _qdrant}.items():
        engine = {"lancedb": "lance-hnsw", "qdrant_client": "qdrant"}[module]
        most = ENGINES[engine]().most
        if ENGINES[engine]().installed() and (most is None or len(vectors) <= most):
            make(folder, data, queries, asks, shells)
        else:
            print(f"{PEERS[module]}: not asked", file=sys.stderr)
    times: dict[str, list[float]] = {name: [] for name in asks}
    for _ in range(turns):
        for name, ask in asks.items():
            for query in queries[: max(10, min(200, len(queries)))] if name != PEERS["qdrant_client"] else queries[:10]:
                started = time.perf_counter()
                answer = ask(query)
                times[name].append(time.perf_counter() - started)
                assert len(answer) == K, name
                assert name == "nearest" or set(COLUMNS) <= answer[0][1].keys()
    first = {name: min(_seconds(command) for _ in range(cold)) for name, command in shells.items()}
    return {"n": len(vectors), "ms": {name: 1000 * float(np.median(taken)) for name, taken in times.items()}, "cold": first}


def _seconds(command: list[str]) -> float:
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return time.perf_counter() - started


def _ours(folder: Path, vectors: Array, asks: dict[str, Ask], shells: dict[str, list[str]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    import embedstore as es

    path = folder / "answers.store"
    if not (path / "spaces" / "text" / "index" / "index.json").exists():
        shutil.rmtree(path, ignore_errors=True)
        writer = None
        for lo in range(0, len(vectors), BLOCK):
            table = pa.table(metadata(lo, min(lo + BLOCK, len(vectors))))
            writer = writer or pq.ParquetWriter(folder / "answers.parquet", table.schema)
            writer.write_table(table)
        assert writer is not None
        writer.close()
        given: dict[str, Any] = {"space": "text", "modality": "text", "metadata": folder / "answers.parquet"}
        es.import_vectors(folder / "vectors.npy", path, add_items=True, **given)
        es.index(path, "text")
    store = es.Store.open(path)
    space, searcher = store.space("text"), es.Searcher(store)

    def nearest(query: Array) -> Answer:
        return [(str(row), {}) for row in searcher.nearest(space, query[None], K)[1][0]]

    def kept(query: Array) -> Answer:
        found = searcher.search(vector=query, space="text", k=K, columns=COLUMNS)
        return [(hit.id, hit.metadata) for hit in found.results]

    def plain(query: Array) -> Answer:
        found = es.search(store, vector=query, space="text", k=K, columns=COLUMNS)
        return [(hit.id, hit.metadata) for hit in found.results]

    asks |= {"nearest": nearest, "Searcher.search": kept, "es.search": plain}
    script = "from embedstore_cli.main import main; main()"
    shells["embedstore search --id"] = [sys.executable, "-c", script, "search", str(path), "--id", "item-00000017"]


def _lance(folder: Path, data: Data, queries: Array, asks: dict[str, Ask], shells: dict[str, list[str]]) -> None:
    """A table with an IVF_HNSW_SQ index, at the first effort whose recall on these queries is 0.95."""
    import lancedb
    import pyarrow as pa

    engine: Any = ENGINES["lance-hnsw"]()
    place = folder / "answers.lance"
    if not (place / "done").exists():
        shutil.rmtree(place, ignore_errors=True)

        def batches() -> Iterator[Any]:
            for lo, block in data.blocks():
                flat = pa.FixedSizeListArray.from_arrays(pa.array(block.ravel()), block.shape[1])
                yield pa.record_batch({**metadata(lo, lo + len(block)), "vector": flat})

        schema = next(batches()).schema
        made = lancedb.connect(place).create_table("t", pa.RecordBatchReader.from_batches(schema, batches()))
        made.create_index("vector", config=engine.config(data.vectors.shape[1]))
        made.create_index("id", config=lancedb.index.BTree())
        (place / "done").touch()
    table = lancedb.connect(place).open_table("t")
    engine.table = table

    def ask(query: Array, effort: dict[str, Any]) -> Answer:
        rows = engine.asked(query[None], K, effort).select(["id", *COLUMNS, "_distance"]).to_list()
        return [(row["id"], row) for row in rows]

    effort = _enough(folder, data, queries[:100], engine.ladders()[1], ask)
    asks[PEERS["lancedb"]] = lambda query: ask(query, effort)
    code = (
        f"import lancedb; t = lancedb.connect({str(place)!r}).open_table('t')\n"
        f"v = t.search().where(\"id = 'item-00000017'\").limit(1).to_list()[0]['vector']\n"
        f"print(t.search(v, vector_column_name='vector').limit({K}).select(['id', *{COLUMNS!r}, '_distance']).to_list())"
    )
    shells["LanceDB, a script that does the same"] = [sys.executable, "-c", code]


def _enough(
    folder: Path, data: Data, queries: Array, efforts: list[dict[str, Any]], ask: Callable[[Array, dict[str, Any]], Answer]
) -> dict[str, Any]:
    """The first of `efforts` whose answers are right often enough."""
    from benchmarks._data import Scorer

    scorer, kth = Scorer(folder / "vectors.npy"), np.load(folder / "kth.npy")[: len(queries)]
    for effort in efforts:
        found = np.asarray([[int(name[5:]) for name, _ in ask(query, effort)] for query in queries])
        if scorer.right(found, queries, kth).mean() / K >= TARGETS[0]:
            return effort
    return efforts[-1]


def _qdrant(folder: Path, data: Data, queries: Array, asks: dict[str, Ask], shells: dict[str, list[str]]) -> None:
    from qdrant_client import QdrantClient, models

    client = QdrantClient(":memory:")
    size = models.VectorParams(size=data.vectors.shape[1], distance=models.Distance.COSINE)
    client.create_collection("t", vectors_config=size)
    for lo, block in data.blocks():
        columns = metadata(lo, lo + len(block))
        payload = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        client.upload_collection("t", vectors=block, payload=payload, ids=range(lo, lo + len(block)), batch_size=1024)

    def ask(query: Array) -> Answer:
        found = client.query_points("t", query=query, limit=K, with_payload=True)
        return [(point.payload["id"], point.payload) for point in found.points if point.payload]

    asks[PEERS["qdrant_client"]] = ask


def show_answers(found: dict[str, Any]) -> None:
    ms = found["ms"]
    print(f"\n{found['n']:,} vectors, {K} results with {len(COLUMNS)} columns, one query at a time\n")
    print("| | median, ms | ÷ nearest |\n|---|---|---|")
    for name, taken in ms.items():
        print(f"| {name} | {taken:.2f} | {taken / ms['nearest']:.2f} |")
    print("\n| from a cold shell | best, s |\n|---|---|")
    for name, seconds in found["cold"].items():
        print(f"| {name} | {seconds:.2f} |")
