"""How well does a text find its image, over two encoders that never saw one another?

``python -m benchmarks.align [--tiny] STORE``. The store has spaces ``image`` and ``text``. Pairs are split at random, 80 to 20;
our alignment, the same trained further with either loss, and a ridge regression from text to image (scikit-learn) are fitted on
the first part, and every text of the second looks for its image among those of the second, each pair once and every content
once. Below: what training gains in MRR, paired by query, on the second part; and on pairs of the first that were held out,
which decides whether `align` keeps it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import embedstore as es
from benchmarks.heads import tiny_store
from embedstore._core.unit import unit_rows
from embedstore.evaluation.bootstrap import Bootstrap, Score
from embedstore.evaluation.paired import Ranking, content_codes, rank_distinct, rank_pairs
from embedstore.heads.aligner import Aligner
from embedstore.heads.trained_aligner import LOSSES, TrainedAligner, train_aligner

Array = np.ndarray[Any, Any]
PENALTIES = (1.0, 10.0, 100.0, 1000.0)


def ridge(X: dict[str, Array], train: Array, test: Array) -> tuple[Array, Array]:
    """Texts as predicted images, and the images; centred and scaled to unit variance in all, as ridge wants it."""
    from sklearn.linear_model import RidgeCV

    x, y = X["text"] - X["text"][train].mean(axis=0), X["image"] - X["image"][train].mean(axis=0)
    x, y = x / x[train].std(), y / y[train].std()
    model = RidgeCV(PENALTIES).fit(x[train], y[train])
    return unit_rows(model.predict(x[test])), unit_rows(y[test])


def projected(aligner: Aligner, X: dict[str, Array], test: Array) -> tuple[Array, Array]:
    return aligner.project("text", X["text"][test]), aligner.project("image", X["image"][test])


def trained(
    aligner: Aligner, X: dict[str, Array], codes: dict[str, Array], train: Array, losses: Sequence[str]
) -> dict[str, tuple[TrainedAligner, float]]:
    """Trained further with each loss, and the seconds that it took."""
    found = {}
    for loss in losses:
        started = time.perf_counter()
        given = {name: x[train] for name, x in X.items()}, {name: c[train] for name, c in codes.items()}
        found[loss] = train_aligner(aligner, given[0], loss=loss, codes=given[1]), time.perf_counter() - started
    return found


def gains(first: tuple[Ranking, Ranking], second: tuple[Ranking, Ranking]) -> list[Score]:
    """In MRR, of the second over the first, paired by query: each pair once, and every content once."""
    return [
        Bootstrap.of(len(a.ranks), groups=a.groups).mean(1 / b.ranks - 1 / a.ranks) for a, b in zip(first, second, strict=True)
    ]


def main(arguments: list[str] | None = None) -> dict[str, tuple[Ranking, Ranking]]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", nargs="?", type=Path)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--losses", default=",".join(LOSSES))
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
    started = time.perf_counter()
    aligner = Aligner().fit({name: x[train] for name, x in X.items()})
    answers = {"alignment": (projected(aligner, X, test), time.perf_counter() - started)}
    started = time.perf_counter()
    answers["ridge"] = ridge(X, train, test), time.perf_counter() - started
    losses = LOSSES[-1:] if options.tiny else [loss for loss in options.losses.split(",") if loss]
    further = trained(aligner, X, codes, train, losses)
    answers |= {f"trained, {loss}": (projected(one.aligner, X, test), s) for loss, (one, s) in further.items()}
    for name, ((texts, images), seconds) in answers.items():
        contents = codes["text"][test], codes["image"][test]
        found[name] = rank_pairs(texts, images, *contents), rank_distinct(texts, images, *contents)
        cells = [f"{score.value:.3f}" for ranking in found[name] for score in ranking.scores().values()]
        print(f"| {name} | {' | '.join(cells)} | {seconds:.1f} |")
    chance = [f"{value:.3f}" for ranking in found["ridge"] for value in ranking.chance().values()]
    print(f"| chance | {' | '.join(chance)} | |")
    if further:
        print(
            "\n| trained over CCA | gain in MRR, text → image | without copies | held out, both ways | steps | kept |\n"
            + "|---" * 6
            + "|"
        )
    for loss, (one, _) in further.items():
        pairs, distinct = gains(found["alignment"], found[f"trained, {loss}"])
        kept = "yes" if one.kept else "no"
        print(f"| {loss} | {pairs} | {distinct} | {one.gain} ({one.pairs:,} pairs) | {one.steps} | {kept} |")
    return found


if __name__ == "__main__":
    main()
