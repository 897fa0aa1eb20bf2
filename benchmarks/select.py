"""What is a label worth? Heads trained on items that `select` chose, beside items drawn at random.

``python -m benchmarks.select STORE TARGET [--space image] [--budgets 100,200,400] [--draws 10] [--tiny]``. Of the items that
are not in the test split, so many are labelled as each budget says; a linear head on them is judged on the test split.
`diverse` and `typical` look at the vectors alone; `uncertain` begins with a quarter chosen by `typical` and asks a head for
the rest, in three rounds. The mean accuracy over draws (each of four fifths of the pool), and the paired difference to
random with its interval over draws.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np

import embedstore as es
from embedstore.evaluation.selection import spread, typical, uncertain
from embedstore.heads import LinearHead

ROUNDS = 3


def fitted(x: Any, y: Any) -> LinearHead:
    head = LinearHead()
    head.fit({"x": x}, y)
    return head


def by_uncertainty(x: Any, y: Any, n: int, seed: int) -> Any:
    chosen = typical(x, max(2, n // 4), seed=seed)[0]
    while len(chosen) < n:
        left = np.setdiff1d(np.arange(len(x)), chosen)
        step = min(n - len(chosen), -(-(n - n // 4) // ROUNDS))
        known = len(set(y[chosen].tolist())) > 1
        p = np.exp(fitted(x[chosen], y[chosen]).outputs({"x": x[left]})) if known else np.ones((len(left), 2))
        chosen = np.concatenate([chosen, left[uncertain(p, step)[0]]])
    return chosen


WAYS: dict[str, Callable[[Any, Any, int, int], Any]] = {
    "random": lambda x, y, n, seed: np.random.default_rng(seed).choice(len(x), n, replace=False),
    "diverse": lambda x, y, n, seed: spread(x, n)[0],
    "typical": lambda x, y, n, seed: typical(x, n, seed=seed)[0],
    "uncertain": by_uncertainty,
}


def main(arguments: list[str] | None = None) -> dict[tuple[str, int], float]:
    """Print the table and return mean accuracies by (way, budget)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store")
    parser.add_argument("target")
    parser.add_argument("--space")
    parser.add_argument("--budgets", default="100,200,400")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args(arguments)
    store = es.Store.open(options.store)
    space = options.space or next(iter(store.spaces))
    view = store.view(inputs=[space], target=options.target)
    x, y = np.asarray(view.inputs[space], np.float32), np.asarray(view.target)
    test = view.split == "test"
    budgets, draws = ([8], 2) if options.tiny else (list(map(int, options.budgets.split(","))), options.draws)
    pool = np.flatnonzero(~test)
    found: dict[tuple[str, int], list[float]] = {}
    for draw in range(draws):
        mine = np.sort(np.random.default_rng(draw).choice(pool, len(pool) * 4 // 5, replace=False))
        for budget in budgets:
            for name, way in WAYS.items():
                chosen = mine[way(x[mine], y[mine], budget, draw)]
                said = fitted(x[chosen], y[chosen]).predict({"x": x[test]})
                found.setdefault((name, budget), []).append(float((said == y[test]).mean()))
    print(
        f"{options.target} from {space}: {len(pool):,} items to choose among, {int(test.sum()):,} to judge on, {draws} draws\n"
    )
    print("| |" + "".join(f" {budget} labels |" for budget in budgets) + "\n|---|" + "---|" * len(budgets))
    for name in WAYS:
        cells = []
        for budget in budgets:
            more = np.asarray(found[name, budget]) - np.asarray(found["random", budget])
            half = 1.96 * more.std(ddof=1) / np.sqrt(draws)
            paired = "" if name == "random" else f" ({more.mean():+.3f} ± {half:.3f})"
            cells.append(f" {np.mean(found[name, budget]):.3f}{paired} |")
        print(f"| {name} |" + "".join(cells))
    return {key: float(np.mean(values)) for key, values in found.items()}


if __name__ == "__main__":
    main()
