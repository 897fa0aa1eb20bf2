"""What helps where the rarest class has a fiftieth of the items of the most frequent one?

``python -m benchmarks.imbalance [--tiny] [--draws 10] [--head linear] [--network gated] [--parts PART,…] STORE``. The store has
a column ``label``. In each draw a fifth of every class is held out, as it is; the rest is cut so that classes fall from the
most frequent to the rarest in equal steps, 50 : 1 (``all classes``), or to two classes, 50 : 1 (``two classes``: the two with
most items, of which the second is cut). Heads are fitted on what is left, without and with each `--balance`. Recall of each
class over the items held out; balanced accuracy is their mean. Intervals: over draws, 95 %; changes are paired by draw.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import embedstore as es
from benchmarks.heads import tiny_store
from embedstore.evaluation.bootstrap import Bootstrap
from embedstore.heads import BalancedHead, make_head

Array = np.ndarray[Any, Any]

RATIO = 50
WAYS = ("none", "weights", "oversample", "undersample", "smote", "logit-adjust", "threshold")
OF_NETWORKS = ("none", "weights", "logit-adjust", "focal")


def cut(labels: Array, classes: list[str], rng: np.random.Generator) -> tuple[Array, Array]:
    """Positions to train on, of which `classes` have fewer and fewer items, and those held out."""
    train, test = [], []
    most = None
    for k, label in enumerate(classes):
        items = rng.permutation(np.flatnonzero(labels == label))
        held_out = len(items) // 5
        most = len(items) - held_out if most is None else most
        wanted = round(most * RATIO ** (-k / (len(classes) - 1)))
        train.append(items[held_out : held_out + max(2, wanted)])
        test.append(items[:held_out])
    return np.concatenate(train), np.concatenate(test)


def recalls(head: Any, view: es.View, labels: Array, train: Array, test: Array, classes: list[str]) -> Array:
    """Recall of each class (c,) on the items held out."""
    x, present = view.inputs, view.present
    head.fit({n: v[train] for n, v in x.items()}, labels[train], present={n: m[train] for n, m in present.items()})
    found = head.predict({n: v[test] for n, v in x.items()}, present={n: m[test] for n, m in present.items()})
    return np.array([(found[labels[test] == label] == label).mean() for label in classes])


def ways(head: str, network: str, two: bool) -> dict[str, Any]:
    """Heads by what they are called in the table."""
    made: dict[str, Any] = {}
    for kind, hows in ((head, WAYS), (network, OF_NETWORKS)):
        for how in hows:
            if two or how != "threshold":
                made[f"{kind}, {how}"] = make_head(kind) if how == "none" else BalancedHead(kind, how)
    return made


def main(arguments: list[str] | None = None) -> dict[str, Array]:
    """Print two tables and return recalls (draws, classes) by part and way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", nargs="?", type=Path)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--head", default="linear")
    parser.add_argument("--network", default="gated")
    parser.add_argument("--parts", default="all classes,two classes")
    options = parser.parse_args(arguments)
    draws = 2 if options.tiny else options.draws
    found: dict[str, Array] = {}
    with tempfile.TemporaryDirectory() as folder:
        store = tiny_store(Path(folder)) if options.tiny else es.Store.open(options.store)
        view = store.view(inputs=list(store.spaces), target="label")
        assert view.target is not None
        labels = view.target.astype(str)
        names, counts = np.unique(labels, return_counts=True)
        ordered = names[np.argsort(-counts, kind="stable")].tolist()
        for part in options.parts.split(","):
            classes = ordered if part == "all classes" else ordered[:2]
            splits = [cut(labels, classes, np.random.default_rng(draw)) for draw in range(draws)]
            sizes = [int((labels[splits[0][0]] == label).sum()) for label in classes]
            told = ", ".join(f"{label} {size}" for label, size in zip(classes, sizes, strict=True))
            print(f"\n{part}: {draws} draws; items to train on: {told}\n")
            print(f"| head | balanced accuracy | change, paired | {' | '.join(classes)} |\n|{'---|' * (3 + len(classes))}")
            for name, head in ways(options.head, options.network, len(classes) == 2).items():
                rows = np.array([recalls(head, view, labels, *split, classes) for split in splits])
                found[f"{part}, {name}"] = rows
                plain = found[f"{part}, {name.split(',')[0]}, none"]
                bootstrap = Bootstrap.of(draws)
                change = "" if name.endswith("none") else str(bootstrap.mean((rows - plain).mean(axis=1)))
                each = " | ".join(f"{value:.2f}" for value in rows.mean(axis=0))
                print(f"| {name} | {bootstrap.mean(rows.mean(axis=1))} | {change} | {each} |", flush=True)
    return found


if __name__ == "__main__":
    main()
