"""Several labels an item: as good as scikit-learn's one-vs-rest on the same vectors, and how much sooner?

``python -m benchmarks.multilabel [--tiny] [--least 30] [--folds 5] [--run 1] [--alpha 0.01] STORE``. The store has columns
``keywords`` (separated by commas) and ``label``; an item's keywords without its class, in one or many, are its labels, those
of fewer than `--least` items left out. KFold(5, shuffle, seed 0), of which `--run` are judged. Both get the same standardised
matrix (float32) and the same penalty, C = 1 / (alpha · n), so that the least objective is the same. The whole linear head also
decides a threshold for each label, by three more fits. Seconds are of the processor, one thread; intervals: over items, 95 %.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import embedstore as es
from benchmarks.heads import tiny_store
from embedstore.evaluation.bootstrap import Bootstrap, Score
from embedstore.evaluation.label_metrics import item_f1, label_set_scores
from embedstore.heads import LinearLabeller
from embedstore.heads.base import Data
from embedstore.heads.label_sets import indicators, labels_of, log_odds_of
from embedstore.heads.solvers.design_matrix import Standardizer
from embedstore.heads.solvers.logistic import OneVsRestProblem

Array = np.ndarray[Any, Any]
METRICS = ("macro_ap", "micro_f1", "macro_f1", "item_f1")


def keywords(store: es.Store, view: es.View, least: int) -> list[list[str]]:
    """The labels of each item of a view."""
    table = view.metadata(["keywords"])
    sets = []
    for text, label in zip(table.column("keywords").to_pylist(), view.target.tolist(), strict=True):  # type: ignore[union-attr]
        own = {label.lower(), label.lower().removesuffix("s")}
        sets.append(sorted({word.strip().lower() for word in (text or "").split(",")} - {"", *own}))
    names, counts = np.unique([word for words in sets for word in words], return_counts=True)
    kept = set(names[counts >= least].tolist())
    return [[word for word in words if word in kept] for words in sets]


def ours(x: Array, y: Array, alpha: float) -> Any:
    solution = OneVsRestProblem(x, y).solve(alpha)
    return lambda asked: asked @ solution.weight + solution.bias


def sklearns(x: Array, y: Array, alpha: float) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier

    model = OneVsRestClassifier(LogisticRegression(C=1 / (alpha * len(x)), max_iter=2000)).fit(x, y)
    return model.decision_function


def main(arguments: list[str] | None = None) -> dict[str, dict[str, Score]]:
    """Print a table and return the scores by way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", nargs="?", type=Path)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--least", type=int, default=30)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--run", type=int, default=1)
    parser.add_argument("--alpha", type=float, default=0.01)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        store = tiny_store(Path(folder)) if options.tiny else es.Store.open(options.store)
        view = store.view(inputs=list(store.spaces), target="label")
        assert view.target is not None
        if options.tiny:
            sets = [[label, "odd"] if i % 2 else [label] for i, label in enumerate(view.target.tolist())]
        else:
            sets = keywords(store, view, options.least)
        return compared(view, sets, options.folds, options.run, options.alpha)


def compared(view: es.View, sets: list[list[str]], folds: int, run: int, alpha: float) -> dict[str, dict[str, Score]]:
    from sklearn.model_selection import KFold
    from threadpoolctl import threadpool_limits

    classes = labels_of(sets)
    y = indicators(sets, classes)
    data = Data({n: np.asarray(x, np.float32) for n, x in view.inputs.items()}, dict(view.present), y)
    log_odds: dict[str, list[Array]] = {"the solver": [], "the linear head": [], "scikit-learn": []}
    seconds: dict[str, float] = dict.fromkeys(log_odds, 0.0)
    margins, judged = [], []
    with threadpool_limits(1):
        for train, test in list(KFold(folds, shuffle=True, random_state=0).split(y))[:run]:
            inside, outside = data.take(train), data.take(test)
            standardizer = Standardizer().fit(inside)
            x, asked = standardizer.transform(inside), standardizer.transform(outside)
            for name, fit in (("the solver", ours), ("scikit-learn", sklearns)):
                start = time.process_time()
                predict = fit(x, y[train], alpha)
                seconds[name] += time.process_time() - start
                log_odds[name].append(predict(asked))
                print(f"{name}: {seconds[name]:.1f} s", flush=True)
            start = time.process_time()
            head = LinearLabeller(alpha=alpha).fit(inside.inputs, [sets[i] for i in train], present=inside.present)
            seconds["the linear head"] += time.process_time() - start
            found = np.full((len(test), len(classes)), -30.0)
            cuts = np.zeros(len(classes))
            at = np.searchsorted(classes.astype(str), head.classes_.astype(str))
            found[:, at] = head.outputs(outside.inputs, present=outside.present)
            cuts[at] = log_odds_of(head.thresholds_)
            log_odds["the linear head"].append(found)
            margins.append(found - cuts)
            judged.append(test)
    return table(y[np.concatenate(judged)] > 0, log_odds, margins, seconds)


def table(
    truth: Array, log_odds: dict[str, list[Array]], margins: list[Array], seconds: dict[str, float]
) -> dict[str, dict[str, Score]]:
    bootstrap = Bootstrap.of(len(truth))
    found: dict[str, dict[str, Score]] = {}
    given: dict[str, Array] = {}
    print(f"\n{len(truth):,} items judged, {truth.shape[1]} labels\n")
    print(f"| | {' | '.join(METRICS)} | s | times as fast |\n|{'---|' * (len(METRICS) + 3)}")
    for name, parts in log_odds.items():
        odds = np.concatenate(parts)
        given[name] = np.concatenate(margins) >= 0 if name == "the linear head" else odds >= 0
        found[name] = label_set_scores(truth, odds, given[name], bootstrap=bootstrap)
        scores = " | ".join(str(found[name][metric]) for metric in METRICS)
        print(f"| {name} | {scores} | {seconds[name]:.1f} | {seconds['scikit-learn'] / max(seconds[name], 1e-9):.1f} |")
    worth = {name: item_f1(truth, one) for name, one in given.items()}
    for name in ("the solver", "the linear head"):
        print(
            f"F1 of an item's labels, {name} over scikit-learn, paired: {bootstrap.mean(worth[name] - worth['scikit-learn'])}"
        )
    return found


if __name__ == "__main__":
    main()
