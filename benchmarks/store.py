"""What does reading a space cost, beside np.memmap over the same bytes, np.load, Parquet and chunked HDF5?

``python -m benchmarks.store [--tiny]``. One run, same vectors, warm page cache, float16; best of several repeats, since
the question is the cost of the format and not of a neighbour on the machine.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import embedstore as es
from embedstore._core.keys import hash_strings
from embedstore.encoders.hash import HashEncoder
from embedstore.ingest.chunks import part_rows
from embedstore.store.writer import NewVectors


def fill(path: Path, vectors: np.ndarray[Any, Any]) -> es.Store:
    """A store of `vectors` in parts as `embed` makes them of pictures: many small ones at first."""
    n, dim = vectors.shape
    with es.Store.open(path, create=True).writer() as writer:
        writer.ensure_space("text", HashEncoder(dim, "text").spec, dtype="float16", provenance={})
        at = 0
        while at < n:
            rows = np.arange(at, min(n, at + part_rows(at)))
            ids = [f"i{r}" for r in rows]
            items = pa.table({"row": pa.array(rows, pa.int64()), "id": ids, "text": ids})
            writer.commit(items, vectors={"text": NewVectors(rows, vectors[rows], hash_strings(ids))})
            at += len(rows)
    return es.Store.open(path)


def best(function: Callable[[], Any], repeats: int) -> float:
    """Seconds of the fastest of `repeats` calls."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Print the table and return seconds by reader."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true")
    tiny = parser.parse_args(arguments).tiny
    n, dim, repeats = (4_000, 64, 2) if tiny else (400_000, 512, 7)
    vectors = np.random.default_rng(0).standard_normal((n, dim), dtype=np.float32).astype(np.float16)
    some = np.sort(np.random.default_rng(1).choice(n, n // 8, replace=False))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        store = fill(root / "b.store", vectors)
        vectors.tofile(root / "raw.bin")
        np.save(root / "a.npy", vectors)
        pq.write_table(pa.table({"v": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dim)}), root / "a.parquet")
        with h5py.File(root / "chunked.h5", "w") as h5:
            h5.create_dataset("vectors", data=vectors, chunks=(min(n, 1024), dim))
        raw = lambda: np.memmap(root / "raw.bin", np.float16, "r", shape=(n, dim))  # noqa: E731
        space = lambda: es.Store.open(store.path).space("text")  # noqa: E731

        def parquet() -> Any:
            return pq.read_table(root / "a.parquet").column("v").combine_chunks().flatten().to_numpy().reshape(n, dim)

        def chunked(rows: Any = ()) -> Any:
            with h5py.File(root / "chunked.h5", "r") as h5:
                return h5["vectors"][rows]

        assert np.array_equal(space().vectors(), vectors)
        assert np.array_equal(space().take(some), vectors[some])
        whole = {
            "np.memmap, copied": lambda: np.array(raw()),
            "embedstore, opened and read": lambda: np.array(space().vectors(), copy=None),
            "np.load": lambda: np.load(root / "a.npy"),
            "Parquet (fixed-size list)": parquet,
            "h5py, chunked": chunked,
        }
        rows = {
            "np.memmap, copied": lambda: raw()[some],
            "embedstore, opened and read": lambda: space().take(some),
            "h5py, chunked": lambda: chunked(some),
        }
        parts = len(store.manifest.spaces["text"].parts)
        print(f"{n:,} × {dim} float16 ({vectors.nbytes / 1e6:.0f} MB) in {parts} parts, best of {repeats}, warm cache\n")
        print(f"| reader | whole space, s | ÷ memmap | {len(some):,} rows, s | ÷ memmap |\n|---|---|---|---|---|")
        seconds = {name: best(function, repeats) for name, function in whole.items()}
        picked = {name: best(function, repeats) for name, function in rows.items()}
        base, base_rows = seconds["np.memmap, copied"], picked["np.memmap, copied"]
        for name, s in seconds.items():
            r = picked.get(name)
            tail = f"{r:.3f} | {r / base_rows:.2f}" if r is not None else "– | –"
            print(f"| {name} | {s:.3f} | {s / base:.2f} | {tail} |")
    return seconds


if __name__ == "__main__":
    main()
