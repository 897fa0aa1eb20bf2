"""Matching: do the sides of a pair belong together? Outputs are log-probabilities (n, 2), the truth is kinds of pairs (n,)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from embedstore._core.arguments import strings
from embedstore.errors import UsageError
from embedstore.evaluation.bootstrap import Bootstrap
from embedstore.evaluation.pair_metrics import HARD, PAIR, RANDOM, pair_scores, shares_of_auroc
from embedstore.heads import Head, LinearHead, make_head
from embedstore.heads.io import HeadRecord
from embedstore.heads.matcher import Matcher, log_odds
from embedstore.registry import PROMPTED
from embedstore.reports.data import Section
from embedstore.store import Store, View
from embedstore.training.drawn_pairs import Asked, PairView, pairs_to_judge, pairs_to_learn
from embedstore.training.evaluate_options import EvaluateOptions
from embedstore.training.tasks.base import HEAD, Array, Float, Judged, Labels, Predicted, Scores, Task
from embedstore.training.train_options import TrainOptions

NO, YES = "no", "yes"
COSINE = "cosine"
"""The baseline: the cosine through an alignment that was fitted to the same pairs."""
SURE = 12
"""Pairs that the report shows of those that the head is surest of and wrong about."""


class Matching(Task):
    """Whether the two sides of a pair belong together; its pairs are drawn, so it takes no target."""

    name = "matching"
    heads = "classification"
    lead = "auroc"
    headlines: ClassVar[Mapping[str, str]] = {"auroc": "AUROC", "auprc": "AUPRC", "balanced_accuracy": "accuracy, balanced"}
    constant = "constant"
    titles: ClassVar[Mapping[str, str]] = {COSINE: "cosine through CCA"}
    needs_target = False
    looks_for_copies = False

    def view(self, store: Store, options: TrainOptions) -> tuple[View, list[str]]:
        for name in ("columns", "cv", "balance", "separator", "coverage", "weights", "tune", "shots", "templates", "alignment"):
            if getattr(options, name) is not None:
                raise UsageError(f"{name} is not for the task {self.name}; leave it out.")
        for name in ("least_items", "out_of_fold"):
            if getattr(options, name) not in (getattr(TrainOptions, name), 0):
                raise UsageError(f"{name} is not for the task {self.name}; leave it out.")
        inputs = strings(options.inputs, "inputs") if options.inputs else list(store.spaces)
        return pairs_to_learn(store, Asked(inputs, options.where, options.group, options.negatives, options.hard, options.seed))

    def view_to_judge(self, store: Store, record: HeadRecord, options: EvaluateOptions, never: Array) -> tuple[View, list[str]]:
        asked = Asked(list(record.inputs), options.where, options.group, seed=options.seed, never=never)
        return pairs_to_judge(store, asked)

    def labels(self, view: View) -> Labels:
        kinds = np.asarray(view.target, np.int64)
        return Labels(np.where(kinds == PAIR, YES, NO).astype(object), kinds, np.array([NO, YES], object))

    def evaluation_labels(self, record: HeadRecord, views: Sequence[View]) -> list[Labels]:
        return [self.labels(view) for view in views]

    def make_head(self, kind: str, **params: Any) -> Head:
        if kind in PROMPTED:
            raise UsageError(f"Head {kind!r} begins with the names of classes, and the task {self.name} has none. Use linear.")
        make_head(kind, task=self.heads)  # refuses what is none
        return Matcher(kind, **params)

    def plain_linear(self) -> Head:
        return LinearHead()

    def baselines(self) -> dict[str, Head]:
        return {COSINE: Matcher("linear", neighbours=())}

    def learnable(self, labels: Labels) -> bool:
        return False  # by a plain kNN

    def constant_outputs(self, labels: Labels, n: int) -> Float:
        """The share of pairs that belong together."""
        share = float(np.clip((labels.truth == PAIR).mean(), 1e-6, 1 - 1e-6))
        return np.tile(np.log([1 - share, share]), (n, 1))

    def predicted(self, head: Head, outputs: Float) -> Predicted:
        return Predicted(head.classes_[outputs.argmax(axis=1)], np.exp(outputs), head.classes_)

    def kept(self, outputs: Float, labels: Labels) -> None:
        return None  # a pair is no item

    def columns(self, found: Predicted) -> dict[str, Sequence[Any]]:
        """Yes or no, and the probability of yes, where as many pairs belong together as do not."""
        return {"prediction": found.labels.tolist(), "probability": found.probabilities[:, 1].tolist()}

    def rows(self, found: Predicted) -> list[dict[str, Any]]:
        pairs = zip(found.labels.tolist(), found.probabilities[:, 1].tolist(), strict=True)
        return [{"prediction": label, "probability": round(p, 6)} for label, p in pairs]

    def scores(self, truth: Array, outputs: Float, bootstrap: Bootstrap) -> Scores:
        return pair_scores(truth, log_odds(outputs), bootstrap=bootstrap)

    def worth(self, truth: Array, outputs: Float) -> Float:
        return shares_of_auroc(truth == PAIR, log_odds(outputs))

    def main_score(self, truth: Array, outputs: Float) -> float:
        """AUROC."""
        return float(self.worth(truth, outputs).mean())

    def sections(self, view: View, judged: Judged, seed: int) -> dict[str, Any]:
        assert isinstance(view, PairView)
        return {"sections": [_drawn(judged), _surest_mistakes(view, judged)]}


def _drawn(judged: Judged) -> Section:
    names = {PAIR: "an item's own", RANDOM: "drawn at random", HARD: "with the side of an item like it"}
    odds, rows = log_odds(judged.outputs[HEAD]), []
    for kind, name in names.items():
        at = judged.truth == kind
        if at.any():
            rows.append([name, int(at.sum()), float((odds[at] > 0).mean()), float(np.median(1 / (1 + np.exp(-odds[at]))))])
    note = "How often the head says yes, by where the test pairs come from."
    return Section("Pairs", note, ["pairs", "count", "said to belong together", "median probability"], rows)


def _surest_mistakes(view: PairView, judged: Judged) -> Section:
    odds, belong = log_odds(judged.outputs[HEAD]), judged.truth == PAIR
    wrong = np.flatnonzero((odds > 0) != belong)
    wrong = wrong[np.argsort(-np.abs(odds[wrong]), kind="stable")][:SURE]
    at = judged.test[wrong]
    seconds = view.store.items.take(view.partners[at], ["id"]).column("id").to_pylist()
    rows = [
        [f"{first} + {second}", "yes" if belong[k] else "no", float(1 / (1 + np.exp(-odds[k])))]
        for first, second, k in zip(view.ids[at].tolist(), seconds, wrong.tolist(), strict=True)
    ]
    note = "Look here for texts that do not belong to their picture, and for pairs that might as well belong together."
    return Section("Most confident mistakes", note, ["pair", "belongs together", "probability"], rows)
