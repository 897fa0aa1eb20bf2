"""What `benchmarks.search` measures of one engine, in a process that it has to itself."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._data import K, Scorer, load_data
from benchmarks._engines import ENGINES, Array, Data, Effort, Engine

TARGETS = (0.95, 0.99)
ROUNDS = 7
TURN = 0.5  # seconds
STEPS = 5  # of effort without a gain in recall, after which no more are tried
PATIENCE = 20.0  # seconds; an engine that would take longer, at its rate of fewer at once, is not asked for a batch
BUDGET = 60.0  # seconds that finding one recall may take; a slow engine answers fewer queries


def memory(vectors: Path) -> float:
    """MiB that this process had resident at most, without the pages of the file `vectors` that are mapped."""
    status = Path("/proc/self/status").read_text()
    peak = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])
    mapped, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ")[0] and ":" not in line.split(" ")[0]:
            inside = line.endswith(str(vectors.resolve()))
        elif inside and line.startswith("Rss:"):
            mapped += int(line.split()[1])
    return (peak - mapped) / 1024


def limited(threads: int) -> Any:
    """Every BLAS and OpenMP pool of this process at `threads`."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped,unused-ignore]

    return threadpool_limits(threads)


def build(engine: Engine, data: Data, folder: Path, home: Path) -> dict[str, Any]:
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    start = time.perf_counter()
    with limited(data.threads):
        engine.build(data, home)
    seconds = time.perf_counter() - start
    size = sum(file.stat().st_size for file in home.rglob("*") if file.is_file())
    return {"seconds": seconds, "peak": memory(folder / "vectors.npy"), "disk": size}


def recall(engine: Engine, scorer: Scorer, queries: Array, kth: Array, effort: Effort, threads: int) -> tuple[float, float]:
    """Recall@k of `effort` and the seconds a query took; of the queries answered within the budget."""
    found: list[Array] = []
    start = time.perf_counter()
    with limited(threads):
        for lo in range(0, len(queries), 64):
            found.append(engine.search(queries[lo : lo + 64], K, effort, threads))
            if time.perf_counter() - start > BUDGET:
                break
    seconds = time.perf_counter() - start
    answers = np.concatenate(found)
    m = len(answers)
    return float(scorer.right(answers, queries[:m], kth[:m]).sum() / (m * K)), seconds / m


def sweep(engine: Engine, scorer: Scorer, queries: Array, kth: Array, threads: int) -> list[dict[str, Any]]:
    """Every effort with its recall; a ladder is left once it passes the highest target or climbs no more."""
    rows = []
    for number, ladder in enumerate(engine.ladders()):
        engine.search(queries[:64], K, ladder[0], threads)
        climbed: list[float] = []
        for effort in ladder:
            share, cost = recall(engine, scorer, queries, kth, effort, threads)
            rows.append({"effort": effort, "recall": share, "cost": cost, "ladder": number})
            climbed.append(share)
            if share >= max(TARGETS) + 0.003 or (len(climbed) > STEPS and share - climbed[-1 - STEPS] < 0.0005):
                break
    return rows


def promising(rows: list[dict[str, Any]], target: float) -> list[dict[str, Any]]:
    """The least effort of each ladder that reaches `target`, of the three where it took least time and of what was tuned."""
    first: dict[int, dict[str, Any]] = {}
    for row in rows:
        if row["recall"] >= target:
            first.setdefault(row["ladder"], row)
    ordered = sorted(first.values(), key=lambda row: row["cost"])
    return ordered[:3] + [row for row in ordered[3:] if "recall" in row["effort"]]


def searched(engine: Engine, data: Data, folder: Path, home: Path) -> dict[str, Any]:
    queries, kth = np.load(folder / "queries.npy"), np.load(folder / "kth.npy")
    start = time.perf_counter()
    engine.load(data, home)
    loaded = time.perf_counter() - start
    rows = sweep(engine, Scorer(folder / "vectors.npy"), queries, kth, data.threads)
    return {"rows": rows, "load": loaded, "peak": memory(folder / "vectors.npy"), "name": _title(engine)}


def race(efforts: dict[str, list[Effort]], folder: Path, threads: int) -> dict[str, list[dict[str, float]]]:
    """Queries a second by engine, effort and queries at once: all engines in this process, timed by turns, the best of each."""
    data, queries = load_data(folder, threads), np.load(folder / "queries.npy")
    engines = {name: ENGINES[name]() for name in efforts}
    for name, engine in engines.items():
        engine.import_it()
        engine.load(data, folder / "engines" / name)
    many = np.tile(queries, (-(-1024 // len(queries)), 1))[:1024]
    modes = {1: [query[None] for query in queries[:500]], 64: [many[lo : lo + 64] for lo in range(0, 1024, 64)], 1024: [many]}
    found: dict[str, list[dict[str, float]]] = {name: [{} for _ in tried] for name, tried in efforts.items()}
    fewer = {64: "1", 1024: "64"}
    for turn in range(ROUNDS):
        for at_once, parts in modes.items():
            used = 1 if at_once == 1 else threads
            for name, engine in engines.items():
                for effort, best in zip(efforts[name], found[name], strict=True):
                    if at_once > 1 and (turn or at_once > best.get(fewer[at_once], 0) * PATIENCE) and str(at_once) not in best:
                        continue
                    with limited(used):
                        qps = rate(lambda part: engine.search(part, K, effort, used), parts)  # noqa: B023 (called here)
                    best[str(at_once)] = max(best.get(str(at_once), 0.0), qps)
    return found


def rate(call: Callable[[Array], Any], parts: Sequence[Array]) -> float:
    """Queries a second over `parts`, after one in ten to warm up; a slow engine is asked only for as long as a turn takes."""
    start = time.perf_counter()
    for part in parts[: -(-len(parts) // 10)]:
        call(part)
        if len(part) > 1 or time.perf_counter() - start > TURN:
            break
    start, done = time.perf_counter(), 0
    for part in parts:
        call(part)
        done += len(part)
        if time.perf_counter() - start > TURN:
            break
    return done / (time.perf_counter() - start)


def _title(engine: Engine) -> str:
    return str(engine) if type(engine).__str__ is not object.__str__ else ""


def exact(engine: Engine, data: Data, folder: Path, home: Path) -> dict[str, Any]:
    """Queries a second of exact search, singly and 64 at once, all threads."""
    queries = np.load(folder / "queries.npy")
    engine.load(data, home)
    effort = {"recall": 1.0}
    found: dict[str, float] = {}
    with limited(data.threads):
        for size, count in ((64, 64), (1, 20)):
            parts = [queries[lo : lo + size] for lo in range(0, count, size)]
            engine.search(parts[0], K, effort, data.threads)
            rates = [rate(lambda part: engine.search(part, K, effort, data.threads), parts) for _ in range(3)]
            found[str(size)] = max(rates)
    return found


WORK = {"build": build, "search": searched, "exact": exact}


def work(what: str, name: str, folder: Path, threads: int) -> dict[str, Any]:
    engine = ENGINES[name]()
    engine.import_it()
    return WORK[what](engine, load_data(folder, threads), folder, folder / "engines" / name)
