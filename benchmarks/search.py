"""How fast is search at a recall of 0.95 and 0.99, and what does an index cost to build, beside the engines in use?

    pip install faiss-cpu hnswlib usearch lancedb qdrant-client
    python -m benchmarks.search [--tiny] (--store STORE --space text | --generated 1000000) [--cache FOLDER]

1,000 vectors at random are held out as queries, the rest is searched; k = 10. Recall is by score: an answer is right when its
exact cosine is no less than the exact k-th best − 1e-6, because items tie. Every engine runs in processes of its own, one
after the other, one to build and one to search, reads the same file of vectors and uses all cores to build and for batches;
"1 query" is one call a query on one thread, of at least 500 queries. (LanceDB has no switch: its single queries use all
cores.) Every engine's effort is swept (ours with each kind of second look that its tuning found, too), and the fastest setting
is shown whose recall *on these very queries* passes; "as tuned" is ours at the level that it chose by itself, on vectors it
held out, so that a lower bound passes. Rates are measured in one more process with all engines loaded, by turns, because a
machine has its moods: the best of seven turns of each. "–": at its rate of fewer at once, so many would have taken 20 s.

Peak memory is the process's (VmHWM) without the pages of the given file, with the interpreter and the libraries (35 to 100
MiB). Bytes on disk: ours are beside the stored vectors, which it re-ranks from; every peer's hold a copy of the vectors.
``--stage answers`` measures what a user waits for instead: ten results with three columns of metadata, by `es.search`,
LanceDB and qdrant-client, one query at a time, and the first answer from a cold shell. ``--cache`` keeps vectors and indexes:
what is there is not built again; remove an engine's folder to rebuild it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._answers import COLD, TURNS, answers, show_answers
from benchmarks._clustered import clustered
from benchmarks._data import K, write_data
from benchmarks._engines import ENGINES, FORCED, Effort
from benchmarks._measure import TARGETS, promising, race, work

QUERIES = 1000
ROOT = Path(__file__).parent.parent


def apart(module: str, what: str, name: str, folder: Path, threads: int) -> dict[str, Any]:
    """`work` in a process of its own; what failed is said and shown."""
    command = [sys.executable, "-m", module, "--worker", what, "--engines", name, "--cache", str(folder)]
    done = subprocess.run([*command, "--threads", str(threads)], capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]
        print(f"{name}: {what} failed: {reason}", file=sys.stderr)
        return {"failed": reason}
    return dict(json.loads(done.stdout.splitlines()[-1]))


def once(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `path` holds, made first where it is not there or failed."""
    if path.exists():
        return dict(json.loads(path.read_text()))
    made = make()
    if "failed" not in made:
        path.write_text(json.dumps(made))
    return made


def why_not(name: str, n: int) -> str | None:
    engine = ENGINES[name]()
    if not engine.installed():
        return "not installed"
    return f"not asked: more than {engine.most:,} vectors" if engine.most is not None and n > engine.most else None


def run(folder: Path, names: list[str], stage: str, threads: int) -> dict[str, dict[str, Any]]:
    """Build and search; returns what was measured by engine."""
    n = len(np.load(folder / "vectors.npy", mmap_mode="r"))
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        if reason := why_not(name, n):
            found[name] = {"skipped": reason}
            continue
        built = folder / "engines" / name / "build.json"
        found[name] = {"build": once(built, lambda name=name: apart("benchmarks.search", "build", name, folder, threads))}  # type: ignore[misc]
        print(f"{name}: built in {found[name]['build'].get('seconds', float('nan')):.1f} s", file=sys.stderr)
        if stage != "build" and "failed" not in found[name]["build"]:
            found[name]["search"] = apart("benchmarks.search", "search", name, folder, threads)
    if stage != "build":
        raced(found, folder, threads)
    return found


def raced(found: dict[str, dict[str, Any]], folder: Path, threads: int) -> None:
    """Add ``qps`` to the rows that may be the fastest at a target."""
    racing: dict[str, list[dict[str, Any]]] = {}
    for name, entry in found.items():
        rows = entry.get("search", {}).get("rows", [])
        chosen = [row for target in TARGETS for row in promising(rows, target)]
        if distinct := [row for i, row in enumerate(chosen) if row not in chosen[:i]]:
            racing[name] = distinct
    (folder / "race.json").write_text(json.dumps({name: [row["effort"] for row in rows] for name, rows in racing.items()}))
    rates = apart("benchmarks.search", "race", ",".join(racing), folder, threads)
    for name, rows in racing.items():
        for row, qps in zip(rows, rates.get(name, []), strict=False):
            row["qps"] = qps


def exact_rates(folder: Path, threads: int, rounds: int) -> dict[str, dict[str, float]]:
    """Ours and FAISS by turns, the best round of each."""
    found: dict[str, dict[str, float]] = {}
    for _ in range(rounds):
        for name in ("ours", "faiss-flat"):
            for size, qps in apart("benchmarks.search", "exact", name, folder, threads).items():
                best = found.setdefault(name, {})
                best[size] = max(best.get(size, 0), qps)
    return found


def fastest(rows: list[dict[str, Any]], target: float, mode: str) -> dict[str, Any] | None:
    good = [row for row in rows if row["recall"] >= target and mode in row.get("qps", {})]
    return max(good, key=lambda row: row["qps"][mode]) if good else None


def setting(effort: Effort) -> str:
    return ", ".join(f"{name} {value}" for name, value in effort.items()) or "exact"


def line(name: str, entry: dict[str, Any], target: float) -> str:
    if "skipped" in entry:
        return f"| {name} | {entry['skipped']} |" + " |" * 8
    built, found = entry["build"], entry.get("search", {})
    if "failed" in built or "failed" in found:
        return f"| {name} | failed |" + " |" * 8
    cost = f"{built['seconds']:.1f} | {built['peak']:,.0f} | {found['peak']:,.0f} | {built['disk'] / 2**20:,.0f} |"
    tuned = [row for row in found["rows"] if "recall" in row["effort"]]
    swept = [row for row in found["rows"] if "recall" not in row["effort"]]
    title = found["name"] or name
    shown = [row_of(title, swept, target, cost)] if swept else []
    if tuned:
        shown.append(row_of(f"{title}, as tuned", tuned, target, cost))
    return "\n".join(shown)


def rounded(qps: float) -> str:
    return f"{qps:,.0f}" if qps >= 10 else f"{qps:.1f}"


def row_of(title: str, rows: list[dict[str, Any]], target: float, cost: str) -> str:
    """One line: the fastest of `rows` that reach `target`."""
    best = {mode: fastest(rows, target, mode) for mode in ("1", "64", "1024")}
    if (one := best["1"]) is None:
        top_recall = max(row["recall"] for row in rows)
        return f"| {title} | {top_recall:.3f} at most | | | | | {cost}"
    shown = " | ".join("–" if row is None else rounded(row["qps"][mode]) for mode, row in best.items())
    return f"| {title} | {one['recall']:.3f} | {setting(one['effort'])} | {shown} | {cost}"


def show(folder: Path, found: dict[str, dict[str, Any]]) -> None:
    n, dim = np.load(folder / "vectors.npy", mmap_mode="r").shape
    queries = len(np.load(folder / "queries.npy"))
    for target in TARGETS:
        print(f"\n{n:,} × {dim} vectors, {queries:,} queries held out, recall@{K} ≥ {target}\n")
        print("| engine | recall | setting | QPS, 1 query | QPS, 64 | QPS, 1,024 | build, s | peak to build, MiB |", end="")
        print(" peak to search, MiB | on disk, MiB |\n|---|---|---|---|---|---|---|---|---|---|")
        for name, entry in found.items():
            print(line(name, entry, target))


def show_exact(found: dict[str, dict[str, float]]) -> None:
    if any("64" not in found.get(name, {}) for name in ("ours", "faiss-flat")):
        return
    print("\nExact search, all threads\n\n| queries at once | ours, QPS | FAISS IndexFlatIP, QPS | ratio |\n|---|---|---|---|")
    for size, ours in found["ours"].items():
        flat = found["faiss-flat"][size]
        print(f"| {size} | {ours:,.1f} | {flat:,.1f} | {ours / flat:.2f} |")


def prepare(options: argparse.Namespace, cache: Path) -> Path:
    """The folder of the data set, written first where it is not there."""
    if options.store:
        import embedstore as es

        space = es.Store.open(options.store).space(options.space)
        folder = cache / f"{options.store.resolve().name}-{options.space}-{len(space)}"
        n, dim, dtype, blocks = len(space), space.dim, space.dtype, space.blocks()
    else:
        n, dim, dtype = options.generated + options.queries, options.dim, np.dtype(np.float16)
        folder, blocks = cache / f"generated-{options.generated}x{dim}", clustered(n, dim)
    if not (folder / "data.json").exists():
        write_data(folder, blocks, n, dim, dtype, options.queries)
        (folder / "data.json").write_text(json.dumps({"n": n, "dim": dim, "queries": options.queries}))
    return folder


def data_options(parser: argparse.ArgumentParser, engines: str) -> None:
    """Options that `benchmarks.filtered` has as well."""
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--store", type=Path)
    parser.add_argument("--space", default="text")
    parser.add_argument("--generated", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--queries", type=int, default=QUERIES)
    parser.add_argument("--engines", default=engines)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--worker", help=argparse.SUPPRESS)


def chosen(options: argparse.Namespace) -> list[str]:
    names = str(options.engines).split(",")
    if unknown := [name for name in names if name not in ENGINES]:
        raise SystemExit(f"There is no engine {unknown[0]!r}. Take some of {','.join(ENGINES)}.")
    return names


def main(arguments: list[str] | None = None) -> dict[str, dict[str, Any]]:
    """Print the tables; return what was measured, by engine."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data_options(parser, ",".join(name for name in ENGINES if name not in FORCED))
    parser.add_argument("--stage", choices=["build", "search", "answers", "all"], default="all")
    options = parser.parse_args(arguments)
    names = chosen(options)
    if options.worker == "race":
        print(json.dumps(race(json.loads((options.cache / "race.json").read_text()), options.cache, options.threads)))
        return {}
    if options.worker:
        print(json.dumps(work(options.worker, names[0], options.cache, options.threads)))
        return {}
    if options.tiny:
        options.generated, options.dim, options.queries, options.threads = 2000, 32, 50, 1
    with tempfile.TemporaryDirectory() as temporary:
        folder = prepare(options, options.cache or Path(temporary))
        answered: dict[str, Any] = {}
        if options.stage in ("answers", "all"):
            turns, cold = (1, 1) if options.tiny else (TURNS, COLD)
            show_answers(answered := answers(folder, threads=options.threads, turns=turns, cold=cold))
        if options.stage == "answers":
            return {"answers": answered}
        found = run(folder, names, options.stage, options.threads)
        if options.stage == "build":
            return found
        show(folder, found)
        if {"ours", "faiss-flat"} <= found.keys():
            rates_found = exact_rates(folder, options.threads, 1 if options.tiny else 3)
            show_exact(rates_found)
            found["exact"] = dict(rates_found)
    return found | ({"answers": answered} if answered else {})


if __name__ == "__main__":
    main()
