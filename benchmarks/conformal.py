"""Do conformal sets hold the true class as often as asked, and how large are they?

``python -m benchmarks.conformal [--tiny] [--splits 200] [--seeds 10] [--coverage 0.9] [--head ridge] STORE``. The store has a
column ``label``. Out-of-fold predictions of a cross-validated head are halved at random: calibrated on one half, measured on
the other, over all items and in each class. Then as users have it: with each seed (another test split), calibrated on what is
kept with the head, measured on the test split. Intervals: over splits or seeds, 95 % of the mean.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import embedstore as es
from benchmarks.heads import tiny_store
from embedstore.evaluation.bootstrap import Bootstrap, Score
from embedstore.evaluation.conformal import class_sets

Array = np.ndarray[Any, Any]


def halves(kept: es.OutOfFold, coverage: float, splits: int, *, by_class: bool) -> tuple[list[float], list[float], Array]:
    """Coverage and mean size of the sets in each split, and the coverage of each class (splits, c); NaN: no item."""
    codes, p = kept.codes, kept.probabilities
    covered, sizes, classes = [], [], []
    for split in range(splits):
        order = np.random.default_rng(split).permutation(len(codes))
        known, asked = order[: len(order) // 2], order[len(order) // 2 :]
        sets = class_sets(p[known], codes[known], p[asked], coverage, by_class=by_class)
        hit = sets[np.arange(len(asked)), codes[asked]]
        covered.append(float(hit.mean()))
        sizes.append(float(sets.sum(axis=1).mean()))
        of = [hit[codes[asked] == k] for k in range(len(kept.classes))]
        classes.append([float(one.mean()) if len(one) else np.nan for one in of])
    return covered, sizes, np.array(classes)


def mean(values: list[float]) -> Score:
    return Bootstrap.of(len(values)).mean(np.array(values))


def main(arguments: list[str] | None = None) -> dict[str, tuple[Score, Score]]:
    """Print a table and return coverage and size by way of measuring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", nargs="?", type=Path)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--splits", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--coverage", type=float, default=0.9)
    parser.add_argument("--head", default="ridge")
    options = parser.parse_args(arguments)
    splits, seeds = (4, 1) if options.tiny else (options.splits, options.seeds)
    coverage = 0.7 if options.tiny else options.coverage
    found: dict[str, tuple[Score, Score]] = {}
    print("| sets | calibrated and measured on | coverage | sd | classes in a set | least covered class | most |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        store = tiny_store(Path(folder)) if options.tiny else es.Store.open(options.store)
        common = {"head": options.head, "name": "conformal-benchmark", "replace": True, "report": False}
        es.train(store, "label", cv=5, **common)
        kept = es.out_of_fold(store, "conformal-benchmark")
        for name, by_class in {"of all": False, "of each class": True}.items():
            covered, sizes, classes = halves(kept, coverage, splits, by_class=by_class)
            least, most = np.nanmean(classes, axis=0).min(), np.nanmean(classes, axis=0).max()
            found[f"{name}, halves"] = mean(covered), mean(sizes)
            print(
                f"| {name} | halves of {len(kept):,} items, {splits} splits | {mean(covered)} | {np.std(covered):.3f} "
                f"| {mean(sizes)} | {least:.3f} | {most:.3f} |",
                flush=True,
            )
        trained = [es.train(store, "label", seed=s, coverage=coverage, **common).certainty for s in range(seeds)]
        covered = [one.coverage.value for one in trained if one is not None]
        sizes = [one.size.value for one in trained if one is not None]
        found["as trained"] = mean(covered), mean(sizes)
        where = f"out of fold and the test split, {seeds} seeds"
        print(f"| of all | {where} | {mean(covered)} | {np.std(covered):.3f} | {mean(sizes)} | | |")
    return found


if __name__ == "__main__":
    main()
