"""What it costs that nothing is answered from a byte that was not compared: reading, opening and first searches.

    python -m benchmarks.checks [--items 1000000] [--dim 512] [--parts 1000]

Each figure is of runs in this process that alternate, with everything in the page cache.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import embedstore as es
from embedstore._core import digests
from embedstore._core.atomic_files import cache_home


def forget() -> None:
    """Nothing was compared before on this machine."""
    digests._NOTES.clear()
    for note in (cache_home() / "checked").glob("*"):
        note.unlink()


def seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def compared(checked: Callable[[], Any], unchecked: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Median seconds of both, one after the other again and again."""
    for _ in range(2):
        unchecked()
    times = [(seconds(checked), seconds(unchecked)) for _ in range(repeats)]
    return median(t[0] for t in times), median(t[1] for t in times)


def fill(path: Path, items: int, dim: int, parts: int) -> None:
    """A store of `items` vectors in `parts` parts."""
    import pyarrow as pa

    from embedstore._core.keys import hash_strings
    from embedstore.encoders.hash import HashEncoder
    from embedstore.store.writer import NewVectors

    rng = np.random.default_rng(0)
    with es.Store.open(path, create=True).writer() as writer:
        writer.ensure_space("image", HashEncoder(dim, "image").spec, dtype="float16", provenance={})
        for rows in np.array_split(np.arange(items), parts):
            ids = [f"i{row}" for row in rows]
            vectors = rng.standard_normal((len(rows), dim), dtype=np.float32).astype(np.float16)
            table = pa.table({"row": pa.array(rows, pa.int64()), "id": ids})
            writer.commit(table, vectors={"image": NewVectors(rows, vectors, hash_strings(ids))})


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """First use against unchecked, as ratios by what is done, and milliseconds of opening more."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--parts", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args(arguments)
    if given.tiny:
        given.items, given.dim, given.parts, given.repeats = 2000, 32, 10, 1
    before = os.environ.get("XDG_CACHE_HOME")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"  # what was compared is forgotten again and again
        try:
            ratios = reading(Path(folder) / "large.store", given.items, given.dim, given.repeats)
            return {**ratios, "opening": opening(Path(folder) / "many.store", given.parts, given.repeats)}
        finally:
            os.environ.pop("XDG_CACHE_HOME") if before is None else os.environ.update(XDG_CACHE_HOME=before)


def reading(path: Path, items: int, dim: int, repeats: int) -> dict[str, float]:
    fill(path, items, dim, max(1, items * dim * 2 >> 26))

    def read(check: bool, forgets: bool = False) -> None:
        if forgets:
            forget()
        es.Store.open(path, check=check).space("image").vectors()

    def walk(check: bool, forgets: bool = False) -> None:
        if forgets:
            forget()
        for block in es.Store.open(path, check=check).space("image").blocks():
            block.sum(dtype=np.float32)

    query = np.random.default_rng(1).standard_normal(dim).astype(np.float32)

    def search(check: bool, forgets: bool = False) -> None:
        if forgets:
            forget()
        es.search(es.Store.open(path, check=check), vector=query, k=10)

    print(f"{items:,} x {dim} float16, {items * dim * 2 / 1e9:.2f} GB")
    print("| what | first use, s | unchecked, s | ratio | later, s | unchecked, s | ratio |")
    print("|---|---|---|---|---|---|---|")
    ratios = {}
    for name, work in {"read into memory": read, "walked in blocks": walk, "one exact search": search}.items():
        first, plain = compared(partial(work, True, True), partial(work, False), repeats)
        later, again = compared(partial(work, True), partial(work, False), repeats)
        print(f"| {name} | {first:.3f} | {plain:.3f} | {first / plain:.2f} | {later:.3f} | {again:.3f} | {later / again:.2f} |")
        ratios[name] = first / plain
    return ratios


def opening(path: Path, parts: int, repeats: int) -> float:
    fill(path, parts * 8, 16, parts)

    def opened(check: bool) -> None:
        store = es.Store.open(path, check=check)
        store.space("image").raw.take(np.arange(0, parts * 8, 8))

    forget()
    first = seconds(lambda: opened(True))
    later, plain = compared(lambda: opened(True), lambda: opened(False), repeats)
    alone = median(seconds(lambda: es.Store.open(path)) for _ in range(repeats))
    print(f"\nA store of {parts:,} parts, opened and a vector of each part picked: {1e3 * first:.0f} ms the first time, later")
    print(f"{1e3 * later:.1f} ms, unchecked {1e3 * plain:.1f} ms; store.json with its digest alone {1e3 * alone:.1f} ms.")
    return 1e3 * (later - plain)


if __name__ == "__main__":
    main()
