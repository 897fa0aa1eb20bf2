"""How many marks does it take to teach a class? Marks that the server asks for beside others, and how soon it answers.

    python -m benchmarks.teach clipart.store label --spaces image,text
    python -m benchmarks.teach large.store --round-trip

In each draw half of the items, at random, may be marked, and the average precision is that of the others: among what is left
to mark it would fall with every item that is easily found. It begins with one item of the class and one of another; then eight
are marked at a time: those that the server asks for, those that the head is least sure of, or some at random.
``--round-trip`` measures from a mark to the grid: request, fit, ranking of every item, fifty results with their metadata, and
JSON.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score
from starlette.testclient import TestClient

import embedstore as es
from embedstore.evaluation.bootstrap import Bootstrap
from embedstore.evaluation.selection import graded, margin, uncertain
from embedstore.serving.app import create_app
from embedstore.serving.session import Session
from embedstore.serving.teach import Marks, lesson, probabilities

AIM = 0.8
AT = (2, 10, 18, 26, 34, 50, 66, 98, 130)
"""Marks of which a head is fitted; those between two are asked for at once: first eight, as the page does."""
FIRST_SEED = 1000
"""Draws below it served to find out what to ask for."""


def asked_next(found: Any, n: int, rng: np.random.Generator) -> Any:
    return graded(margin(found), n, int(rng.integers(2**31)))


def least_certain(found: Any, n: int, rng: np.random.Generator) -> Any:
    return uncertain(found, n)[0]


def at_random(found: Any, n: int, rng: np.random.Generator) -> Any:
    return rng.choice(len(found), n, replace=False)


WAYS: dict[str, Callable[[Any, int, np.random.Generator], Any]] = {
    "asked for": asked_next,
    "least certain": least_certain,
    "at random": at_random,
}
"""`n` positions among items with probabilities (m, 2), to be marked next."""
PLAIN = "at random"


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """The average precision of the last marks by way, or milliseconds of a round trip."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("target", nargs="?", default="label")
    parser.add_argument("--spaces", default="")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--round-trip", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    given = parser.parse_args(argv)
    spaces = [name for name in given.spaces.split(",") if name]
    if given.round_trip:
        return round_trip(given.store, spaces, 5 if given.tiny else 30)
    draws, classes = (1, 2) if given.tiny else (given.draws, given.classes)
    return taught(given.store, given.target, spaces, classes, draws, AT[:2] if given.tiny else AT)


def taught(path: Path, target: str, spaces: list[str], classes: int, draws: int, steps: Sequence[int]) -> dict[str, Any]:
    session = Session(es.Store.open(path))
    spaces = session.stored(spaces)
    has = np.all([session.store.space(name).has(session.rows) for name in spaces], axis=0)
    labels = np.asarray([str(value) for value in session.column(target).to_pylist()])
    names, counts = np.unique(labels[has], return_counts=True)
    chosen = names[np.argsort(-counts, kind="stable")][:classes]
    most = steps[-1]
    precision = {way: np.empty((classes, draws, len(steps))) for way in WAYS}
    print(f"Marks until average precision passes {AIM} (at most {most}):\n")
    print(f"| class | items | {' | '.join(WAYS)} |\n|---|---|{'---|' * len(WAYS)}")
    for i, name in enumerate(chosen):
        for way in WAYS:
            for seed in range(draws):
                precision[way][i, seed] = draw(session, spaces, labels == name, has, way, FIRST_SEED + seed, steps)
        until = " | ".join(f"{_until(precision[way][i], steps).mean():.0f}" for way in WAYS)
        print(f"| {name} | {int((labels == name).sum())} | {until} |", flush=True)
    resamples = Bootstrap.of(draws)  # means over classes, of each draw
    until_aim = {way: _until(found, steps).mean(axis=0) for way, found in precision.items()}
    print(f"| mean | | {' | '.join(str(resamples.mean(marks)) for marks in until_aim.values())} |")
    print("| fewer than at random | | " + " | ".join(str(resamples.mean(until_aim[PLAIN] - own)) for own in until_aim.values()))
    print(f"\nAverage precision of items that cannot be marked:\n\n| marks | {' | '.join(map(str, steps))} |")
    print(f"|---|{'---|' * len(steps)}")
    for way, found in precision.items():
        print(f"| {way} | {' | '.join(f'{mean:.3f}' for mean in found.mean(axis=(0, 1)))} |")
    for way in [way for way in WAYS if way != PLAIN]:
        gains = (precision[way] - precision[PLAIN]).mean(axis=0)
        print(f"| {way}, over random | {' | '.join(str(resamples.mean(gain)) for gain in gains.T)} |")
    return {way: float(found[:, :, -1].mean()) for way, found in precision.items()}


def _until(precision: Any, steps: Sequence[int]) -> Any:
    """Marks (…) at which the average precision (…, steps) passes the aim first; the last where it never does."""
    passed = precision > AIM
    return np.where(passed.any(axis=-1), np.asarray(steps)[passed.argmax(axis=-1)], steps[-1])


def draw(session: Session, spaces: list[str], true: Any, has: Any, way: str, seed: int, steps: Sequence[int]) -> list[float]:
    """The average precision of items that cannot be marked, by the number of marks."""
    rng = np.random.default_rng(seed)
    pool = has & (rng.permutation(len(has)) % 2 == 0)
    judged = has & ~pool
    marked = [int(rng.choice(np.flatnonzero(true & pool))), int(rng.choice(np.flatnonzero(~true & pool)))]
    precision = []
    for marks in (*steps[1:], 0):
        at = np.asarray(marked)
        learned = lesson(session, Marks(session.rows[at], (~true[at]).astype(np.int64), ("+", "-"), tuple(spaces)))
        found = probabilities(session, learned)
        precision.append(float(average_precision_score(true[judged], found[judged, 0])))
        left = pool.copy()
        left[at] = False
        candidates = np.flatnonzero(left)
        if marks:
            marked += candidates[WAYS[way](found[candidates], marks - len(marked), rng)].tolist()
    return precision


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
