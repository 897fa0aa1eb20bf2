"""How far do names of classes and a few examples get, over encoders that never saw one another?

``python -m benchmarks.shots [--tiny] [--draws 20] STORE``. The store has spaces ``image`` and ``text`` and a column ``label``.
In each draw the items are split at random, 80 to 20, copies kept together; images and texts of the first part are aligned
without a label, K items of each class of it are labelled, and the images of the second part are classified. Zero-shot and the
heads that begin with the names stand beside a plain kNN and linear heads on the same items, on image vectors and on aligned
ones. Intervals are over draws; gains are paired by draw, over the best of those that know no names.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import embedstore as es
from benchmarks.heads import tiny_store
from embedstore._core.unit import unit_rows
from embedstore.evaluation.bootstrap import Bootstrap, Score
from embedstore.evaluation.paired import content_codes, copy_groups
from embedstore.heads import ClassTexts, Head, KnnHead, LinearHead, TextSide, make_head
from embedstore.heads.aligner import Aligner
from embedstore.retrieval.queries import Resolver
from embedstore.training.class_names import TEMPLATES

Array = np.ndarray[Any, Any]
SHOTS = (0, 1, 2, 4, 8, 16)
OURS = ("zeroshot", "tip-adapter", "prompted-linear")


def named(resolver: Resolver, classes: list[str]) -> Array:
    """Unit vectors of the texts of classes (templates, classes, d), by the encoder of the space ``text``."""
    texts = [template.replace("{}", name.replace("_", " ")).encode() for template in TEMPLATES for name in classes]
    vectors = unit_rows(resolver.encode(resolver.space("text"), "text", texts))
    return vectors.reshape(len(TEMPLATES), len(classes), -1)


def others() -> dict[str, tuple[str, Head]]:
    """What knows no names: the vectors it takes, and a new head."""
    knn: dict[str, Any] = {"ks": (8,), "temperatures": (0.1,), "weights": "equal"}
    return {
        "kNN": ("image", KnnHead(**knn)),
        "linear": ("image", LinearHead()),
        "kNN, aligned": ("aligned", KnnHead(**knn)),
        "linear, aligned": ("aligned", LinearHead()),
        "linear, aligned, penalty 1e-3": ("aligned", LinearHead(alpha=1e-3)),
    }


def draw(
    X: dict[str, Array], y: Array, groups: Array, names: Array, classes: list[str], seed: int
) -> dict[tuple[int, str], float]:
    """Accuracy by (items a class, head) in one draw."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(int(groups.max()) + 1)
    train = np.flatnonzero(order[groups] < 0.8 * len(order))
    test = np.flatnonzero(order[groups] >= 0.8 * len(order))
    aligner = Aligner().fit({name: x[train] for name, x in X.items()}, groups=groups[train])
    vectors = unit_rows(np.mean([aligner.project("text", one) for one in names], axis=0))
    side = TextSide(vectors, TEMPLATES, mean=aligner.mean_["image"], weight=aligner.weight_["image"])
    texts = ClassTexts(classes, {"image": side})
    inputs = {"image": X["image"], "aligned": aligner.project("image", X["image"])}
    zero_shot = make_head("zeroshot", texts=texts).begin()  # type: ignore[attr-defined]
    found = {(0, "zeroshot"): zero_shot.score({"image": X["image"][test]}, y[test])}
    for shots in SHOTS[1:]:
        found[shots, "zeroshot"] = found[0, "zeroshot"]
        fit = np.concatenate([rng.permutation(train[y[train] == name])[:shots] for name in classes])
        heads = {kind: ("image", make_head(kind, texts=texts)) for kind in OURS[1:]} | others()
        for name, (what, head) in heads.items():
            head.fit({"image": inputs[what][fit]}, y[fit])
            found[shots, name] = head.score({"image": inputs[what][test]}, y[test])
    return found


def main(arguments: list[str] | None = None) -> dict[tuple[int, str], Score]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", nargs="?", type=Path)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--draws", type=int, default=20)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        store = tiny_store(Path(folder)) if options.tiny else es.Store.open(options.store)
        view = store.view(inputs=["image", "text"], target="label")
        view = view.select(view.present["image"] & view.present["text"])
        X = {name: x.astype(np.float32) for name, x in view.inputs.items()}
        groups = copy_groups(*(content_codes(space.hash_of(view.rows)) for space in view.spaces.values()))
        y = view.target.astype(str).astype(object)
        classes = sorted(set(y.tolist()))
        names = named(Resolver(store), classes)
    draws = 2 if options.tiny else options.draws
    values = [draw(X, y, groups, names, classes, seed) for seed in range(draws)]
    over = Bootstrap.of(draws)
    score = {key: np.array([one[key] for one in values]) for key in values[0]}
    print(f"\n{len(y):,} items, {len(classes)} classes, {draws} draws\n")
    print(f"| head | {' | '.join(f'{k} shots' for k in SHOTS)} |\n|---|" + "---|" * len(SHOTS))
    for head in dict.fromkeys(name for _, name in score):
        cells = [str(over.mean(score[k, head])) if (k, head) in score else "" for k in SHOTS]
        print(f"| {head} | {' | '.join(cells)} |", flush=True)
    gains = {}
    for head in OURS[1:]:
        cells = [""]
        for k in SHOTS[1:]:
            best = max(others(), key=lambda name: float(score[k, name].mean()))
            gains[k, head] = over.mean(score[k, head] - score[k, best])
            cells.append(f"{gains[k, head]} ({best})")
        print(f"| gain of {head} over the best that knows no names | {' | '.join(cells)} |")
    return gains


if __name__ == "__main__":
    main()
