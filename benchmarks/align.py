"""How well does a text find its image, over two encoders that never saw one another?

``python -m benchmarks.align [--tiny] STORE``. The store has spaces ``image`` and ``text``. Pairs are split at random, 80 to 20;
our alignment and a ridge regression from text to image (scikit-learn) are fitted on the first part, and every text of the
second looks for its image among those of the second, each pair once and every content once.
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
from embedstore._core.unit import unit_rows
from embedstore.evaluation.paired import Ranking, content_codes, rank_distinct, rank_pairs
from embedstore.heads.aligner import Aligner

Array = np.ndarray[Any, Any]
PENALTIES = (1.0, 10.0, 100.0, 1000.0)


def ridge(X: dict[str, Array], train: Array, test: Array) -> tuple[Array, Array]:
    """Texts as predicted images, and the images; centred and scaled to unit variance in all, as ridge wants it."""
    from sklearn.linear_model import RidgeCV

    x, y = X["text"] - X["text"][train].mean(axis=0), X["image"] - X["image"][train].mean(axis=0)
    x, y = x / x[train].std(), y / y[train].std()
    model = RidgeCV(PENALTIES).fit(x[train], y[train])
    return unit_rows(model.predict(x[test])), unit_rows(y[test])


def aligned(X: dict[str, Array], train: Array, test: Array) -> tuple[Array, Array]:
    aligner = Aligner().fit({name: x[train] for name, x in X.items()})
    return aligner.project("text", X["text"][test]), aligner.project("image", X["image"][test])


def main(arguments: list[str] | None = None) -> dict[str, tuple[Ranking, Ranking]]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", nargs="?", type=Path)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        store = tiny_store(Path(folder)) if options.tiny else es.Store.open(options.store)
        view = store.view(inputs=["image", "text"])
        view = view.select(view.present["image"] & view.present["text"])
        X = {name: x.astype(np.float32) for name, x in view.inputs.items()}
        codes = {name: content_codes(space.hash_of(view.rows)) for name, space in view.spaces.items()}
    order = np.random.default_rng(0).permutation(len(view))
    train, test = np.split(order, [round(0.8 * len(order))])
    found = {}
    print(f"\n{len(train):,} pairs fitted on, {len(test):,} in the gallery\n")
    print("| text → image | R@1 | R@5 | R@10 | MRR | without copies: R@1 | R@5 | R@10 | MRR | s |\n|---|" + "---|" * 9)
    for name, method in (("alignment", aligned), ("ridge", ridge)):
        started = time.perf_counter()
        texts, images = method(X, train, test)
        seconds = time.perf_counter() - started
        contents = codes["text"][test], codes["image"][test]
        found[name] = rank_pairs(texts, images, *contents), rank_distinct(texts, images, *contents)
        cells = [f"{score.value:.3f}" for ranking in found[name] for score in ranking.scores().values()]
        print(f"| {name} | {' | '.join(cells)} | {seconds:.1f} |")
    chance = [f"{value:.3f}" for ranking in found["ridge"] for value in ranking.chance().values()]
    print(f"| chance | {' | '.join(chance)} | |")
    return found


if __name__ == "__main__":
    main()
