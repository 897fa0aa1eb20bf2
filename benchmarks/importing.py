"""How fast are vectors imported, beside a loop that only copies the same bytes?

    python -m benchmarks.importing [--tiny] [--vectors 1000000] [--dim 512] [--folder FOLDER]

One float32 ``.npy`` of generated unit vectors becomes a store of float16 parts, and a clip-retrieval folder (float16 image
and text vectors, Parquet metadata) becomes another. The ceiling, "copy", reads each source in blocks and writes as many bytes
as the store keeps of it, flushing each block to the disk: no conversion, no digest, no item. Each import runs in a process of
its own ("whole process" counts the start of Python and its packages). Neither begins before the disk has written what came
before. Then the store is searched and a head is trained on it, and the import is run again, which compares every vector and
adds none. GB are 10⁹ bytes of the source's vectors.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import embedstore as es

BLOCK = 65536
RUN = "from embedstore_cli.main import main; main()"
Array = np.ndarray[Any, Any]


def generated(n: int, dim: int, seed: int) -> Iterator[Array]:
    """Blocks of float32 unit vectors; cheap, and no two rows alike."""
    rng = np.random.default_rng(seed)
    base = rng.standard_normal((2 * BLOCK, dim), np.float32)
    for lo in range(0, n, BLOCK):
        shift = int(rng.integers(BLOCK))
        block = base[shift : shift + min(BLOCK, n - lo)] + rng.standard_normal(dim, np.float32)
        yield block / np.linalg.norm(block, axis=1, keepdims=True)


def write_npy(path: Path, n: int, dim: int, dtype: Any, seed: int) -> Path:
    """A ``.npy`` of `n` vectors, written block by block."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.lib.format.open_memmap(path, "w+", dtype, (n, dim))
    lo = 0
    for block in generated(n, dim, seed):
        array[lo : lo + len(block)] = block
        lo += len(block)
    array.flush()
    return path


def write_clip_retrieval(path: Path, n: int, dim: int, files: int) -> Path:
    """A folder as clip-retrieval writes it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    (path / "metadata").mkdir(parents=True)
    for i, rows in enumerate(np.array_split(np.arange(n), files)):
        for k, kind in enumerate(("img_emb", "text_emb")):
            write_npy(path / kind / f"{kind}_{i}.npy", len(rows), dim, np.float16, 2 * i + k)
        names = [f"{row // 10_000:05d}/{row:09d}" for row in rows]
        table = {"image_path": names, "caption": [f"a picture of number {row}" for row in rows], "label": rows % 7}
        pq.write_table(pa.table(table), path / "metadata" / f"metadata_{i}.parquet")
    return path


def write_labels(path: Path, n: int) -> Path:
    """Metadata of the ``.npy``."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"label": np.arange(n) % 7}), path)
    return path


def copied(files: list[Path], target: Path, kept: float) -> float:
    """Seconds to read `files` in blocks and write `kept` of their bytes in parts, each flushed to the disk."""
    target.mkdir()
    os.sync()
    buffer = memoryview(bytearray(128 << 20))
    start = time.perf_counter()
    for number, file in enumerate(files):
        with open(file, "rb", buffering=0) as source:
            while count := source.readinto(buffer):
                with open(target / f"{number}-{source.tell()}", "wb", buffering=0) as part:
                    part.write(buffer[: int(count * kept)])
                    os.fsync(part.fileno())
    return time.perf_counter() - start


def imported(source: Path, store: Path, *options: str) -> tuple[float, dict[str, Any]]:
    """Seconds of ``embedstore import`` in a process of its own, and its report."""
    os.sync()
    start = time.perf_counter()
    command = [sys.executable, "-c", RUN, "import", str(source), str(store), *options, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return time.perf_counter() - start, json.loads(done.stdout)


def used_at_once(store: Path) -> tuple[float, float]:
    """Seconds of the first search by an item, and of training a head on 2,000 labelled items; no index, nothing prepared."""
    start = time.perf_counter()
    opened = es.Store.open(store)
    first = opened.items.take(opened.items.rows[:1], ["id"]).column("id")[0].as_py()
    assert len(es.search(opened, id=first, k=10).results) == 10
    searched = time.perf_counter() - start
    es.train(opened, "label", where="row < 2000", inputs=list(opened.spaces), report=False)
    return searched, time.perf_counter() - start - searched


def main(arguments: list[str] | None = None) -> dict[str, dict[str, float]]:
    """Print the table; by source: GB/s of the import, of the same again and of the copy, and seconds of using the store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--vectors", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--folder", type=Path, help="Where to work; default a temporary folder.")
    given = parser.parse_args(arguments)
    n, dim = (3000, 32) if given.tiny else (given.vectors, given.dim)
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(dir=given.folder) as temporary:
        root = Path(temporary)
        npy = write_npy(root / "vectors.npy", n, dim, np.float32, 0)
        labels = write_labels(root / "labels.parquet", n)
        clip = write_clip_retrieval(root / "clip", n, dim, 3 if given.tiny else 10)
        sources = {
            "float32 .npy": (npy, [npy], 0.5, ["--modality", "image", "--metadata", str(labels)]),
            "clip-retrieval folder": (clip, sorted(clip.glob("*_emb/*.npy")), 1.0, ["--encoder", "clip"]),
        }
        print(f"{n:,} × {dim}\n")
        columns = ("source", "GB", "import, GB/s", "whole process", "same again", "copy", "first search, s", "first head, s")
        print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
        for name, (source, files, kept, options) in sources.items():
            size = sum(file.stat().st_size for file in files) / 1e9
            store = root / f"{source.name}.store"
            copy = copied(files, root / f"{source.name}.copy", kept)
            wall, report = imported(source, store, *options)
            searched, trained = used_at_once(store)
            _, second = imported(source, store, *options)
            assert second["added"] == second["updated"] == 0
            rates = {"import": report["gb_per_s"], "process": size / wall, "again": second["gb_per_s"], "copy": size / copy}
            found[name] = {**rates, "search": searched, "train": trained}
            print(f"| {name} | {size:.2f} | {' | '.join(f'{value:.2f}' for value in found[name].values())} |")
    return found


if __name__ == "__main__":
    main()
