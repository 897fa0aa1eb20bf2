"""Stores to export, targets to export to, and what is in them, read with the engines' own clients."""

from __future__ import annotations

import datetime
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np

import embedstore as es
from embedstore.exporting.npy import PLACING
from embedstore.registry import EXPORTERS
from embedstore.sources import MemorySource

ENGINES = ("lance", "milvus", "qdrant")
FOLDERS = ("parquet", "npy", "clip-retrieval", "embedding-atlas")
LOCAL = {"milvus": "out.db", "lance": "out.lancedb", "qdrant": "out.qdrant"}

IDS = ["a/b.jpg", "ü – 漢字", 'it\'s "so" \\ \n', "x" * 3000, "-", *(f"i{i:02d}" for i in range(15))]


def target(folder: Path, to: str) -> Path:
    return folder / LOCAL.get(to, f"out-{to}")


def rich_store(path: Path, ids: list[str] = IDS, **changed: Any) -> es.Store:
    """Two spaces; an item without text; metadata of many types."""
    n = len(ids)
    data: dict[str, Any] = {
        "id": ids,
        "text": [None if i == 3 else f"text {name[:20]} {i}" for i, name in enumerate(ids)],
        "label": ["food" if i % 3 else "drink" for i in range(n)],
        "price": [None if i == 1 else i * 1.5 for i in range(n)],
        "count": [2**53 + i for i in range(n)],
        "day": [datetime.date(2024, 2, 1 + i % 28) for i in range(n)],
        "at": [datetime.datetime(2024, 2, 1, 3, 4, 5, 6 + i, datetime.UTC) for i in range(n)],
        "ok": [i % 2 == 0 for i in range(n)],
        "tags": [["a", f"t{i}"] for i in range(n)],
        "more": [{"a": i, "b": [1.5, None]} for i in range(n)],
        "odd name.x": ["é" for _ in range(n)],
        **changed,
    }
    es.embed(MemorySource(data), path, text="hash:16")
    vectors = np.random.default_rng(5).normal(size=(n, 24)).astype(np.float32)
    es.import_vectors(vectors, path, modality="image", ids=ids)
    return es.Store.open(path)


def held(to: str, out: Path, name: str = "a") -> dict[str, dict[str, Any]]:
    """Id → a few values of the item in the target, however often it is there (an error, if more than once)."""
    rows = READERS[to](out, name)
    found = {row["id"]: row for row in rows}
    assert len(found) == len(rows), "an item is there twice"
    return found


def _parquet(out: Path, name: str) -> list[dict[str, Any]]:
    import duckdb

    pattern = str(out / ("metadata/*.parquet" if (out / "metadata").exists() else "*.parquet"))
    table = duckdb.sql(f"SELECT id, label, price FROM read_parquet('{pattern}')").fetchall()
    return [dict(zip(("id", "label", "price"), row, strict=True)) for row in table]


def _lance(out: Path, name: str) -> list[dict[str, Any]]:
    import lancedb

    rows = lancedb.connect(out).open_table(name).to_arrow().select(["id", "label", "price"]).to_pylist()
    return list(rows)


def _milvus(out: Path, name: str) -> list[dict[str, Any]]:
    from pymilvus import MilvusClient

    client = MilvusClient(str(out))
    try:
        client.load_collection(name)
        return list(client.query(name, filter="", limit=1000, output_fields=["id", "label", "price"]))
    finally:
        client.close()


def _qdrant(out: Path, name: str) -> list[dict[str, Any]]:
    from qdrant_client import QdrantClient

    client = QdrantClient(path=str(out))
    try:
        return [point.payload or {} for point in client.scroll(name, limit=1000)[0]]
    finally:
        client.close()


READERS = {"lance": _lance, "milvus": _milvus, "qdrant": _qdrant, **dict.fromkeys(FOLDERS, _parquet)}


def killed_export(store: str, to: str, out: str, at: int, size: int) -> None:
    """Export `size` items at a time, in a process that kills itself as it has written for the `at`-th time."""
    kind = EXPORTERS.get(to)
    kind.most_items = size
    real, left = kind.write, at

    def write(self: Any, *given: Any) -> None:
        nonlocal left
        real(self, *given)
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    kind.write = write
    es.export(store, to=to, out=out)


def killed_while_placing(store: str, to: str, out: str, at: int) -> None:
    """Export in a process that kills itself as the `at`-th file or folder of the complete export is in its place."""
    real, left = os.replace, at

    def replace(source: Any, target: Any) -> None:
        nonlocal left
        real(source, target)
        left -= Path(source).parent.name == PLACING
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = replace
    es.export(store, to=to, out=out)


def killed_while_dropping(store: str, to: str, out: str, at: int, size: int) -> None:
    """Export `size` items at a time, in a process that kills itself as it has removed the `at`-th file that is not wanted."""
    EXPORTERS.get(to).most_items = size
    real, left = Path.unlink, at

    def unlink(path: Path, missing_ok: bool = False) -> None:
        nonlocal left
        real(path, missing_ok)
        left -= path.suffix in (".parquet", ".npy")
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    Path.unlink = unlink
    es.export(store, to=to, out=out)


KILLED = {kill.__name__: kill for kill in (killed_export, killed_while_placing, killed_while_dropping)}

if __name__ == "__main__":
    KILLED[sys.argv[1]](*sys.argv[2:5], *map(int, sys.argv[5:]))
