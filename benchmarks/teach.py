"""How many marks does it take to teach a class? Marks that the server asks for beside marks at random, and how soon it answers.

    python -m benchmarks.teach clipart.store label --spaces image,text
    python -m benchmarks.teach large.store --round-trip

Each draw begins with one item of the class and one of another. Then some are marked at a time: what the head is least sure
of, or some at random. Counted are the marks until the average precision over all unmarked items passes 0.8. ``--round-trip``
measures from a mark to the grid: request, fit, ranking of every item, fifty results with their metadata, and JSON.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score
from starlette.testclient import TestClient

import embedstore as es
from embedstore.evaluation.bootstrap import Bootstrap
from embedstore.serving.app import create_app
from embedstore.serving.session import Session
from embedstore.serving.teach import Marks, lesson, probabilities

AIM, MOST = 0.8, 400
WAYS = ("uncertain next", "at random")


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Mean marks by way, or milliseconds of a round trip."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("target", nargs="?", default="label")
    parser.add_argument("--spaces", default="")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--every", type=int, default=5, help="Marks between two fits.")
    parser.add_argument("--round-trip", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    given = parser.parse_args(argv)
    spaces = [name for name in given.spaces.split(",") if name]
    if given.round_trip:
        return round_trip(given.store, spaces, 5 if given.tiny else 30)
    draws, classes = (1, 2) if given.tiny else (given.draws, given.classes)
    return taught(given.store, given.target, spaces, classes, draws, given.every, 20 if given.tiny else MOST)


def taught(path: Path, target: str, spaces: list[str], classes: int, draws: int, every: int, most: int) -> dict[str, Any]:
    session = Session(es.Store.open(path))
    spaces = session.stored(spaces)
    has = np.all([session.store.space(name).has(session.rows) for name in spaces], axis=0)
    labels = np.asarray([str(value) for value in session.column(target).to_pylist()])
    names, counts = np.unique(labels[has], return_counts=True)
    chosen = names[np.argsort(-counts, kind="stable")][:classes]
    marks: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    print(f"| class | items | {' | '.join(WAYS)} |\n|---|---|{'---|' * len(WAYS)}")
    for name in chosen:
        for way in WAYS:
            drawn = [draw(session, spaces, labels == name, has, way, seed, every, most) for seed in range(draws)]
            marks[way].append([float(one) for one in drawn])
        shown = " | ".join(f"{np.mean(marks[way][-1]):.0f}" for way in WAYS)
        print(f"| {name} | {int((labels == name).sum())} | {shown} |", flush=True)
    means = {way: np.mean(marks[way], axis=0) for way in WAYS}  # over classes, for each draw
    resamples = Bootstrap.of(draws)
    for way in WAYS:
        print(f"{way}: {resamples.mean(means[way])} marks (at most {most} were tried)")
    print(f"fewer by asking: {resamples.mean(means[WAYS[1]] - means[WAYS[0]])}")
    return {way: float(means[way].mean()) for way in WAYS}


def draw(session: Session, spaces: list[str], true: Any, has: Any, way: str, seed: int, every: int, most: int) -> int:
    """Marks until the average precision passes the aim."""
    rng = np.random.default_rng(seed)
    marked = [int(rng.choice(np.flatnonzero(true & has))), int(rng.choice(np.flatnonzero(~true & has)))]
    while len(marked) < most:
        at = np.asarray(marked)
        learned = lesson(session, Marks(session.rows[at], (~true[at]).astype(np.int64), ("+", "-"), tuple(spaces)))
        found = probabilities(session, learned)
        left = has.copy()
        left[at] = False
        if average_precision_score(true[left], found[left, 0]) > AIM:
            return len(marked)
        candidates = np.flatnonzero(left)
        unsure = candidates[np.argsort(np.abs(found[candidates, 0] - found[candidates, 1]), kind="stable")[:every]]
        marked += (unsure if way == WAYS[0] else rng.choice(candidates, every, replace=False)).tolist()
    return most


def round_trip(path: Path, spaces: list[str], marks: int) -> dict[str, Any]:
    """Milliseconds from a mark to the grid, one mark after the other."""
    with TestClient(create_app(path), base_url="http://127.0.0.1") as client:
        order = [one["id"] for one in client.post("/v1/search", json={"k": 2 * marks}).json()["results"]]
        took, busy, inside = [], [], []
        for number in range(1, marks + 1):
            classes = {"+": order[:number], "-": order[marks : marks + number]}
            started, used = time.perf_counter(), time.process_time()
            request = {"classes": classes, "k": 50, "uncertain": 8, **({"spaces": spaces} if spaces else {})}
            answer = client.post("/v1/teach", json=request).json()
            took.append(1000 * (time.perf_counter() - started))
            busy.append(1000 * (time.process_time() - used))
            inside.append(answer["took_ms"])
    parts = ", ".join(f"{name} {np.median([one[name] for one in inside]):.0f}" for name in ("fit", "rank", "fetch"))
    print(
        f"{len(es.Store.open(path)):,} items, {marks} marks of each kind one after the other: from a mark to the grid "
        f"{np.median(took):.0f} ms ({parts}; the first, which reads the vectors, {took[0]:.0f}); "
        f"{np.median(busy):.0f} ms of a processor"
    )
    return {"median": float(np.median(took)), "first": took[0]}


if __name__ == "__main__":
    main()
