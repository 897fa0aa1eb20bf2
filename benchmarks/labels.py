"""Which planted label errors are found, and how high do they rank?

``python -m benchmarks.labels [--tiny] [--draws 20] [--head linear] STORE``. The store has a column ``label``. In each draw 5 %
of the labels are swapped for another class at random; a head is trained on them, and the items are ranked three ways: by
`labels` (cleanlab on the kept out-of-fold probabilities), by the confidence of mistakes on the same probabilities, and by
cleanlab called by hand on `cross_val_predict` of scikit-learn's logistic regression over the concatenated inputs. Precision
among the first n, where n is how many were swapped (there it is also the recall), recall among twice as many, and the errors
held for wrong. What is wrong in the data as it came counts as right, so no way can reach 1. Intervals: over draws, 95 %.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import embedstore as es
from benchmarks.heads import tiny_store
from embedstore.evaluation.bootstrap import Bootstrap, Score
from embedstore.evaluation.label_errors import label_quality

SHARE = 0.05
Array = np.ndarray[Any, Any]


def swapped(labels: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Labels (n,), a share of which is another class, and which (n,)."""
    classes = sorted(set(labels.tolist()))
    wrong = np.zeros(len(labels), bool)
    wrong[rng.permutation(len(labels))[: max(1, round(SHARE * len(labels)))]] = True
    found = labels.copy()
    for i in np.flatnonzero(wrong).tolist():
        found[i] = rng.choice([c for c in classes if c != labels[i]])
    return found, wrong


def by_hand(view: es.View, labels: Array, seed: int) -> tuple[Array, Array]:
    """Codes and probabilities of scikit-learn, five folds."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x = np.concatenate([np.asarray(v, np.float32) for v in view.inputs.values()], axis=1)
    _, codes = np.unique(labels.astype(str), return_inverse=True)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    return codes, cross_val_predict(model, x, codes, cv=folds, method="predict_proba")


def judged(score: Array, wrong: Array, held: Array | None = None) -> dict[str, float]:
    """Precision and recall of a ranking (the lowest first), and of what is held for wrong."""
    order, n = np.argsort(score, kind="stable"), int(wrong.sum())
    found = {"precision@n": wrong[order[:n]].mean(), "recall@2n": wrong[order[: 2 * n]].sum() / n}
    if held is not None:
        found |= {"held": int(held.sum()), "precision of held": wrong[held].mean(), "recall of held": wrong[held].sum() / n}
    return {name: float(value) for name, value in found.items()}


def main(arguments: list[str] | None = None) -> dict[str, dict[str, Score]]:
    """Print a table and return its scores by way of ranking."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", nargs="?", type=Path)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--head", default="linear")
    options = parser.parse_args(arguments)
    rows: dict[str, list[dict[str, float]]] = {"labels": [], "confident mistakes": [], "scikit-learn and cleanlab by hand": []}
    seconds: dict[str, list[float]] = {name: [] for name in rows}
    with tempfile.TemporaryDirectory() as folder:
        store = tiny_store(Path(folder)) if options.tiny else es.Store.open(options.store)
        view = store.view(inputs=list(store.spaces), target="label")
        assert view.target is not None
        for draw in range(2 if options.tiny else options.draws):
            labels, wrong = swapped(view.target, np.random.default_rng(draw))
            start = time.perf_counter()
            noisy = replace(view, target=labels)
            es.train(noisy, head=options.head, name="labels-benchmark", replace=True, seeds=1, report=False)
            kept = es.out_of_fold(store, "labels-benchmark")
            quality = label_quality(kept.codes, kept.probabilities)
            seconds["labels"].append(time.perf_counter() - start)
            rows["labels"].append(judged(quality.score, wrong, quality.wrong))
            p = kept.probabilities
            mistake = p.argmax(axis=1) != kept.codes
            rows["confident mistakes"].append(judged(np.where(mistake, -p.max(axis=1), 1), wrong))
            start = time.perf_counter()
            codes, p = by_hand(view, labels, draw)
            theirs = label_quality(codes, p)
            seconds["scikit-learn and cleanlab by hand"].append(time.perf_counter() - start)
            rows["scikit-learn and cleanlab by hand"].append(judged(theirs.score, wrong, theirs.wrong))
            print(f"draw {draw}: {json.dumps({way: draws[-1] for way, draws in rows.items()})}", file=sys.stderr, flush=True)
    bootstrap = Bootstrap.of(len(rows["labels"]))
    found = {
        way: {name: bootstrap.mean(np.array([one[name] for one in draws])) for name in draws[0]} for way, draws in rows.items()
    }
    columns = list(found["labels"])
    print(
        f"{len(view):,} items, {round(SHARE * len(view)):,} labels swapped, {len(rows['labels'])} draws, head {options.head}\n"
    )
    print(f"| ranked by | {' | '.join(columns)} | s |\n|{'---|' * (len(columns) + 2)}")
    for way, scores in found.items():
        took = f"{np.mean(seconds[way]):.1f}" if seconds[way] else "–"
        print(f"| {way} | {' | '.join(str(scores.get(c, '–')) for c in columns)} | {took} |")
    return found


if __name__ == "__main__":
    main()
