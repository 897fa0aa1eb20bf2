"""Does a matching head tell an item's own text from others better than the cosine through CCA?

``python -m benchmarks.matching [--tiny] [--heads linear,gbdt] [--seeds 5] [--inputs image,text] STORE``. Each seed is another
split, in which no item and no copy of one is on both sides; heads and baseline are fitted to the same training pairs and judged
on the same test pairs. AUROC: the mean over splits, with 95 % intervals over items and their copies, drawn together wherever
they were tested.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

import embedstore as es
from embedstore.encoders.hash import HashEncoder
from embedstore.evaluation.bootstrap import Bootstrap, Score
from embedstore.evaluation.pair_metrics import HARD, PAIR, RANDOM, shares_of_auroc
from embedstore.heads.matcher import log_odds
from embedstore.sources import MemorySource
from embedstore.training.tasks.base import HEAD
from embedstore.training.tasks.matching import COSINE, Matching
from embedstore.training.train_options import TrainOptions
from embedstore.training.trial import Trial

Array = np.ndarray[Any, Any]
AMONG = {"all": (RANDOM, HARD), "random": (RANDOM,), "hard": (HARD,)}


def judged(store: es.Store, options: TrainOptions) -> dict[str, dict[str, tuple[Array, Array]]]:
    """Head and baseline → what the negatives are → what each test pair adds to the AUROC, and its group."""
    task = Matching()
    view, _ = task.view(store, options)
    found = Trial(task, view, options, lambda message: None).holdout()
    assert view.groups is not None  # a pair's is its item
    groups = view.groups[found.test]
    told: dict[str, dict[str, tuple[Array, Array]]] = {}
    for name in (HEAD, COSINE):
        odds = log_odds(found.outputs[name])
        told[name] = {}
        for among, kinds in AMONG.items():
            at = np.isin(found.truth, (PAIR, *kinds))
            told[name][among] = shares_of_auroc(found.truth[at] == PAIR, odds[at]), groups[at]
    return told


class Numbers(HashEncoder):
    """Texts ``x y z…``: the numbers are the vector."""

    def encode(self, batch: Any) -> Any:
        return np.array([[float(word) for word in payload.split()] for payload in batch], np.float32)


def tiny_store(path: Path, n: int = 300) -> es.Store:
    """Two texts of each item, the second a distorted view of the first."""
    rng = np.random.default_rng(0)
    first = rng.normal(size=(n, 6))
    second = np.tanh(first @ rng.normal(size=(6, 5))) + 0.3 * rng.normal(size=(n, 5))
    words = [[" ".join(f"{v:.4f}" for v in row) for row in side] for side in (first, second)]
    source = MemorySource({"id": [f"i{i}" for i in range(n)], "text": words[0], "other": words[1]})
    spaces = {"image": Numbers(6, "text", "six"), "text": Numbers(5, "text", "five")}
    es.embed(source, path, text={"first": spaces["image"], "second": spaces["text"]}, columns={"second": "other"})
    return es.Store.open(path)


def pooled(parts: list[tuple[Array, Array]]) -> Score:
    values, groups = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Bootstrap.of(len(values), groups=groups).mean(values)


def main(arguments: list[str] | None = None) -> dict[tuple[str, str], Score]:
    """Print a table; return the gain over the cosine by head and kind of the other pairs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", nargs="?", type=Path)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--heads", default="linear,gbdt")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--inputs", default="image,text")
    options = parser.parse_args(arguments)
    heads, seeds = (["linear"], 1) if options.tiny else (options.heads.split(","), options.seeds)
    inputs = ["first", "second"] if options.tiny else options.inputs.split(",")
    gains: dict[tuple[str, str], Score] = {}
    with tempfile.TemporaryDirectory() as folder:
        store = tiny_store(Path(folder) / "tiny.store") if options.tiny else es.Store.open(options.store)
        print("| head | negatives | AUROC | cosine through CCA | gain, paired | splits |")
        print("|---|---|---|---|---|---|", flush=True)
        for head in heads:
            asked = [TrainOptions(head=head, inputs=inputs, task="matching", seed=seed) for seed in range(seeds)]
            told = [judged(store, one) for one in asked]
            for among in AMONG:
                parts: dict[str, list[tuple[Array, Array]]] = defaultdict(list)
                for one in told:
                    for name in (HEAD, COSINE):
                        parts[name].append(one[name][among])
                    (mine, groups), (cosine, _) = one[HEAD][among], one[COSINE][among]
                    parts["gain"].append((mine - cosine, groups))
                gains[head, among] = pooled(parts["gain"])
                scores = f"{pooled(parts[HEAD])} | {pooled(parts[COSINE])} | {gains[head, among]}"
                print(f"| {head} | {among} | {scores} | {seeds} |", flush=True)
    return gains


if __name__ == "__main__":
    main()
