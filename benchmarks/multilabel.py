"""Several labels an item: as good as scikit-learn's one-vs-rest on the same vectors, and how much sooner?

``python -m benchmarks.multilabel [--tiny] [--least 30] [--folds 5] [--run 1] [--alpha 0.01] STORE``. The store has columns
``keywords`` (separated by commas) and ``label``; an item's keywords without its class, in one or many, are its labels, those
of fewer than `--least` items left out. KFold(5, shuffle, seed 0), of which `--run` are judged. Both get the same standardised
matrix (float32). Once with one penalty, C = 1 / (alpha · n), so that the least objective is the same; once each chooses of the
same nine penalties by the log-loss of a seventh of the training items, and is fitted again on all. The whole linear head also
decides a threshold for each label, by three more fits. Seconds are of the processor, one thread; intervals: over items, 95 %.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
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
from embedstore.heads.labellers import label_loss
from embedstore.heads.linear import ALPHAS
from embedstore.heads.solvers.design_matrix import Standardizer
from embedstore.heads.solvers.one_vs_rest import OneVsRestProblem

Array = np.ndarray[Any, Any]
Found = tuple[Array, Array]
"""Log-odds (n, c) of the items judged, and how far they lie above the label's threshold."""

METRICS = ("macro_ap", "micro_f1", "macro_f1", "item_f1")
THEIRS = "scikit-learn"


def keywords(store: es.Store, view: es.View, least: int) -> list[list[str]]:
    """The labels of each item of a view."""
    table = view.metadata(["keywords"])
    assert view.target is not None
    sets = []
    for text, label in zip(table.column("keywords").to_pylist(), view.target.tolist(), strict=True):
        own = {label.lower(), label.lower().removesuffix("s")}
        sets.append(sorted({word.strip().lower() for word in (text or "").split(",")} - {"", *own}))
    names, counts = np.unique([word for words in sets for word in words], return_counts=True)
    kept = set(names[counts >= least].tolist())
    return [[word for word in words if word in kept] for words in sets]


def ways(inside: Data, outside: Data, classes: Array, alpha: float) -> dict[str, Callable[[], Found]]:
    """What is compared, by name; the matrices are made before the clock runs, but for the whole heads."""
    standardizer = Standardizer().fit(inside)
    x, y, asked = standardizer.transform(inside), inside.codes, standardizer.transform(outside)
    aside = np.arange(len(x)) % 7 == 0

    def solver() -> Found:
        solution = OneVsRestProblem(x, y).solve(alpha)
        log_odds = asked @ solution.weight + solution.bias
        return log_odds, log_odds

    def theirs(penalty: float = alpha) -> Found:
        log_odds = one_vs_rest(x, y, penalty)(asked)
        return log_odds, log_odds

    def theirs_of_nine() -> Found:
        losses = {a: label_loss(one_vs_rest(x[~aside], y[~aside], a)(x[aside]), y[aside]) for a in ALPHAS}
        return theirs(min(losses, key=lambda a: losses[a]))

    def head(penalty: float | None = alpha) -> Found:
        made = LinearLabeller(alpha=penalty).fit_data(inside.take(~aside), inside.take(aside), classes)
        log_odds = made.log_odds(outside)
        return log_odds, log_odds - log_odds_of(made.thresholds_)

    return {
        "the solver": solver,
        "the linear head": head,
        THEIRS: theirs,
        "the linear head, penalty chosen": lambda: head(None),
        f"{THEIRS}, C chosen": theirs_of_nine,
    }


def one_vs_rest(x: Array, y: Array, alpha: float) -> Callable[[Array], Array]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier

    model = OneVsRestClassifier(LogisticRegression(C=1 / (alpha * len(x)), max_iter=2000)).fit(x, y)
    found: Callable[[Array], Array] = model.decision_function
    return found


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
    found: dict[str, list[Found]] = {}
    seconds: dict[str, float] = {}
    judged = []
    with threadpool_limits(1):
        for train, test in list(KFold(folds, shuffle=True, random_state=0).split(y))[:run]:
            judged.append(test)
            for name, way in ways(data.take(train), data.take(test), classes, alpha).items():
                start = time.process_time()
                found.setdefault(name, []).append(way())
                seconds[name] = seconds.get(name, 0.0) + time.process_time() - start
                print(f"{name}: {seconds[name]:.1f} s", flush=True)
    joined = {name: tuple(np.concatenate(parts) for parts in zip(*several, strict=True)) for name, several in found.items()}
    return table(y[np.concatenate(judged)] > 0, joined, seconds)


def table(truth: Array, found: dict[str, tuple[Array, ...]], seconds: dict[str, float]) -> dict[str, dict[str, Score]]:
    bootstrap = Bootstrap.of(len(truth))
    scores = {name: label_set_scores(truth, odds, above >= 0, bootstrap=bootstrap) for name, (odds, above) in found.items()}
    worth = {name: item_f1(truth, above >= 0) for name, (_, above) in found.items()}
    columns = [*METRICS, "item_f1 over scikit-learn's, paired", "s", "times as fast"]
    print(
        f"\n{len(truth):,} items judged, {truth.shape[1]} labels\n\n| | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}"
    )
    for name in found:
        rival = f"{THEIRS}, C chosen" if name.endswith("chosen") else THEIRS
        gain = "" if name == rival else str(bootstrap.mean(worth[name] - worth[rival]))
        cells = [*(str(scores[name][metric]) for metric in METRICS), gain, f"{seconds[name]:.1f}"]
        print(f"| {name} | {' | '.join(cells)} | {seconds[rival] / max(seconds[name], 1e-9):.1f} |")
    return scores


if __name__ == "__main__":
    main()
