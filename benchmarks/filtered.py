"""Does search with a filter find what it should, and how long does a query take, from one row in ten thousand to nearly all?

    python -m benchmarks.filtered [--tiny] (--store STORE --space text | --generated 1000000) [--cache FOLDER]

Data, engines and their indexes are those of `benchmarks.search` (with the same ``--cache``, nothing is built twice). Filters
keep a share of the rows: ``random``, whatever they hold; ``near``, those with the highest cosine to the mean of one region
(that of the 100 held-out queries nearest to the first one); ``far``, those with the lowest. The queries are those 100, so
``near`` keeps what they look for and ``far`` takes it away; under ``random`` they are 100 at random.

Recall@10 is by score, against exact search of what matches. ``short`` counts queries that got fewer than min(10, matching)
results. Times are medians of single queries on one thread (LanceDB: all cores) after the filter was handed over once: ours and
FAISS are given a mask or bitmap, LanceDB a range of an integer column with a B-tree (prefilter), qdrant-client a range of a
payload field. Peers have one effort: FAISS HNSW32 efSearch 128, IVF nprobe 64, LanceDB ef 128 refined 2 ×.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._data import K, Scorer, load_data, top
from benchmarks._engines import ENGINES, Array, Data, Engine, Rule
from benchmarks._measure import limited
from benchmarks.search import apart, chosen, data_options, prepare, run

KINDS = ("random", "near", "far")
SHARES = (0.0001, 0.001, 0.01, 0.1, 0.5, 0.999)
PEERS = "ours,faiss-hnsw200,faiss-ivf,lance-hnsw,qdrant"
BUDGET = 20.0  # seconds that one filter may take; a slow engine answers fewer queries


def rules(data: Data) -> Iterator[tuple[str, float, Rule]]:
    n = len(data.vectors)
    for kind in KINDS:
        column = "random" if kind == "random" else "near"
        for share in SHARES:
            count = max(1, round(share * n))
            low = n - count if kind == "far" else 0
            ranks = data.columns[column]
            yield kind, share, Rule(column, low, low + count, (ranks >= low) & (ranks < low + count))


def asked(folder: Path, kind: str) -> Array:
    """The 100 queries that a kind of filter is tried with."""
    queries, region = np.load(folder / "queries.npy"), np.load(folder / "region.npy")
    return np.asarray(queries[: len(region)] if kind == "random" else queries[region])


def truth(folder: Path, data: Data) -> None:
    """Exact scores (filters, queries, k) of what matches, as filtered.npy."""
    if not (folder / "filtered.npy").exists():
        exact = [top(data.vectors, asked(folder, kind), K, rule.keep) for kind, _, rule in rules(data)]
        np.save(folder / "filtered.npy", np.stack(exact))


def answered(engine: Engine, rule: Rule, queries: Array) -> tuple[Array, list[float]]:
    """Positions (m, k), and seconds of each query."""
    effort = engine.filter_effort
    assert effort is not None
    prepared = engine.prepared(rule, effort)
    engine.filtered(queries[:1], K, prepared, effort)
    found, seconds = [], []
    for query in queries:
        start = time.perf_counter()
        found.append(engine.filtered(query[None], K, prepared, effort))
        seconds.append(time.perf_counter() - start)
        if sum(seconds) > BUDGET:
            break
    return np.concatenate(found), seconds


def measured(engine: Engine, rule: Rule, queries: Array, exact: Array, scorer: Scorer) -> dict[str, float]:
    found, seconds = answered(engine, rule, queries)
    m, wanted = len(found), min(K, int(rule.keep.sum()))
    found = np.where((found >= 0) & rule.keep[np.maximum(found, 0)], found, -1)  # what does not match is no answer
    right = scorer.right(found, queries[:m], exact[:m, wanted - 1])
    short = int(((found >= 0).sum(axis=1) < wanted).sum())
    return {"recall": float(right.sum() / (m * wanted)), "short": short, "ms": 1000 * float(np.median(seconds)), "queries": m}


def work(name: str, folder: Path, threads: int) -> dict[str, Any]:
    """Every filter with one engine."""
    data, engine = load_data(folder, threads), ENGINES[name]()
    engine.import_it()
    engine.load(data, folder / "engines" / name)
    scorer, exact = Scorer(folder / "vectors.npy"), np.load(folder / "filtered.npy")
    with limited(1):
        found = [
            {"kind": kind, "share": share, **measured(engine, rule, asked(folder, kind), known, scorer)}
            for (kind, share, rule), known in zip(rules(data), exact, strict=True)
        ]
    return {"filters": found}


def cell(entry: dict[str, Any]) -> str:
    short = f", {entry['short']} of {entry['queries']} short" if entry["short"] else ""
    return f"{entry['recall']:.3f}, {entry['ms']:.2f} ms{short}"


def show(found: dict[str, list[dict[str, Any]]], n: int) -> None:
    print(f"\n{n:,} vectors, k = {K}: recall, median of one query, and queries that got fewer results than there are\n")
    print("| filter | kept | " + " | ".join(found) + " |\n|---|---|" + "---|" * len(found))
    for rows in zip(*found.values(), strict=True):
        kept = max(1, round(rows[0]["share"] * n))
        print(f"| {rows[0]['kind']} | {rows[0]['share']:.2%} ({kept:,}) | " + " | ".join(map(cell, rows)) + " |")


def main(arguments: list[str] | None = None) -> dict[str, list[dict[str, Any]]]:
    """Print the table; return what was measured, by engine and filter."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data_options(parser, PEERS)
    options = parser.parse_args(arguments)
    names = chosen(options)
    if options.worker:
        print(json.dumps(work(names[0], options.cache, options.threads)))
        return {}
    if options.tiny:
        options.generated, options.dim, options.queries, options.threads = 2000, 32, 50, 1
    if without := [name for name in names if ENGINES[name]().filter_effort is None]:
        raise SystemExit(f"{without[0]} has no filter here.")
    with tempfile.TemporaryDirectory() as temporary:
        folder = prepare(options, options.cache or Path(temporary))
        built = run(folder, names, "build", options.threads)
        data = load_data(folder, options.threads)
        truth(folder, data)
        found = {}
        for name in names:
            if reason := built[name].get("skipped", built[name].get("build", {}).get("failed")):
                print(f"{name}: {reason}", file=sys.stderr)
            elif "filters" in (result := apart("benchmarks.filtered", "filtered", name, folder, options.threads)):
                found[name] = result["filters"]
        show(found, len(data.vectors))
    return found


if __name__ == "__main__":
    main()
