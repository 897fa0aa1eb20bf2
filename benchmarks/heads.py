"""How good is every head on real features, and how long does it take, beside scikit-learn and plain XGBoost?

``python -m benchmarks.heads [--tiny] [--heads linear,knn] STORE [STORE…]``. Each store has spaces ``image`` and ``text`` and a
column ``label`` (``embedstore embed manifest.csv --store … --image effnet-lite0 --text minilm``). Folds: StratifiedKFold(5,
shuffle, seed 0) over the items whose class has at least five. Every head sees the same features; its hyperparameters come from
inside the training folds. Intervals: bootstrap over items, 95 %.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import embedstore as es
from embedstore.evaluation.bootstrap import Bootstrap, Score
from embedstore.evaluation.metrics import label_scores
from embedstore.heads import HEADS, make_head
from embedstore.heads.base import Data

Fit = Callable[[Data, int], Callable[[Data], np.ndarray[Any, Any]]]


def ours(kind: str, names: list[str]) -> Fit:
    """A head of `kind` on some of the inputs."""

    def fit(train: Data, classes: int) -> Callable[[Data], np.ndarray[Any, Any]]:
        used = train.only(names)
        head = make_head(kind).fit(used.inputs, used.codes, present=used.present)
        return lambda data: head.predict(data.only(names).inputs, present=data.only(names).present)

    return fit


def concatenated(data: Data) -> np.ndarray[Any, Any]:
    """Features as a user would concatenate them, zeros where missing."""
    return np.concatenate([np.asarray(x, np.float32) for x in data.inputs.values()], axis=1)


def sklearn_logistic(train: Data, classes: int) -> Callable[[Data], np.ndarray[Any, Any]]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
    model.fit(concatenated(train), train.codes)
    return lambda data: np.asarray(model.predict(concatenated(data)))


def plain_xgboost(train: Data, classes: int) -> Callable[[Data], np.ndarray[Any, Any]]:
    from xgboost import XGBClassifier

    model = XGBClassifier(n_estimators=60, max_depth=4, tree_method="hist", n_jobs=2).fit(concatenated(train), train.codes)
    return lambda data: np.asarray(model.predict(concatenated(data)))


def cross_validate(fit: Fit, data: Data, classes: int) -> tuple[dict[str, Score], float]:
    """Scores over five folds, and seconds per fit."""
    from sklearn.model_selection import StratifiedKFold

    predicted = np.empty(len(data), np.int64)
    seconds = []
    for train, test in StratifiedKFold(5, shuffle=True, random_state=0).split(data.codes, data.codes):
        start = time.perf_counter()
        model = fit(data.take(train), classes)
        seconds.append(time.perf_counter() - start)
        predicted[test] = model(data.take(test))
    return label_scores(data.codes, predicted, classes, bootstrap=Bootstrap.of(len(data))), float(np.mean(seconds))


def load(store: es.Store, target: str = "label", inputs: Sequence[str] = ("image", "text")) -> tuple[Data, int]:
    """Items of classes of at least five, and how many classes there are."""
    view = store.view(inputs=inputs, target=target)
    assert view.target is not None
    labels = view.target.astype(str)
    values, counts = np.unique(labels, return_counts=True)
    keep = np.isin(labels, values[counts >= 5])
    classes, codes = np.unique(labels[keep], return_inverse=True)
    inputs = {name: np.asarray(x[keep], np.float32) for name, x in view.inputs.items()}
    return Data(inputs, {name: m[keep] for name, m in view.present.items()}, codes.astype(np.int64)), len(classes)


def tiny_store(folder: Path) -> es.Store:
    from embedstore.sources import MemorySource

    n = 120
    columns = {"id": [str(i) for i in range(n)], "text": [f"t{i}" for i in range(n)], "label": ["abc"[i % 3] for i in range(n)]}
    es.embed(MemorySource(columns), folder / "t.store", text={"image": "hash:16", "text": "hash:12"})
    return es.Store.open(folder / "t.store")


def main(arguments: list[str] | None = None) -> dict[str, dict[str, Score]]:
    """Print a table per store and return the last one's scores by head."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stores", nargs="*", type=Path)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--heads", help="kinds separated by commas; default all")
    options = parser.parse_args(arguments)
    kinds = options.heads.split(",") if options.heads else list(HEADS)
    found: dict[str, dict[str, Score]] = {}
    with tempfile.TemporaryDirectory() as folder:
        stores = [tiny_store(Path(folder))] if options.tiny else [es.Store.open(path) for path in options.stores]
        for store in stores:
            data, classes = load(store)
            print(f"\n{store.path.name}: {len(data):,} items, {classes} classes, 5 folds\n")
            print("| head | accuracy [95 %] | macro F1 [95 %] | s a fit |\n|---|---|---|---|")
            rows: dict[str, Fit] = {f"linear, {name} alone": ours("linear", [name]) for name in data.inputs}
            rows |= {kind: ours(kind, list(data.inputs)) for kind in kinds}
            if not options.heads:
                rows |= {"scikit-learn logistic (C 0.01)": sklearn_logistic, "XGBoost, as it comes": plain_xgboost}
            for name, fit in rows.items():
                scores, seconds = cross_validate(fit, data, classes)
                found[name] = scores
                print(f"| {name} | {scores['accuracy']} | {scores['macro_f1']} | {seconds:.2f} |", flush=True)
    return found


if __name__ == "__main__":
    main()
