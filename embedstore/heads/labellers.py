"""Heads that give an item any number of labels: linear one-vs-rest, kNN and boosted trees."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.errors import HeadError
from embedstore.heads.base import Array, Codes, Data, Float, class_folds
from embedstore.heads.boosted import LEAST_ROUNDS, MOST_TREES, Boosted
from embedstore.heads.knn import ALL_PAIRS, KnnHead, vote_weights
from embedstore.heads.label_sets import Labeller, log_odds_of, rarest
from embedstore.heads.linear import ALPHAS, LinearHead
from embedstore.heads.solvers.design_matrix import Standardizer
from embedstore.heads.solvers.logistic import Solution
from embedstore.heads.solvers.one_vs_rest import OneVsRestProblem

FOLDS = 3
COARSE = 1e-2
"""Tolerance of fits that only serve to choose a penalty, or to decide thresholds."""


class LinearLabeller(Labeller, LinearHead):
    """Logistic regression of each label against the rest, all of them fitted at once.

    Parameters and attributes are those of `LinearHead`; one penalty serves all labels. Thresholds are decided out of fold.
    """

    kind = "linear_multilabel"
    takes_weights = False

    def _problem(self, data: Data, standardizer: Standardizer, like: Any = None) -> OneVsRestProblem:
        return OneVsRestProblem(standardizer.transform(data), data.codes, device=self.device, like=like)

    def _choose_alpha(self, train: Data, validation: Data) -> tuple[OneVsRestProblem, Solution]:
        """The training solution with the lowest validation loss; labels that no training item has are left out of it."""
        known = np.flatnonzero(train.codes.any(axis=0))
        if not len(known):
            raise HeadError("No training item has a label; use more data or set alpha.")
        standardizer = Standardizer().fit(train)
        features = standardizer.transform(validation)
        problem = self._problem(train, standardizer)
        best, best_loss = None, np.inf
        for solution in problem.walk(self.alphas, tolerance=COARSE):
            log_odds = features @ solution.weight[:, known] + solution.bias[known]
            loss = label_loss(log_odds, validation.codes[:, known])
            if best is not None and loss >= best_loss:
                break  # weaker penalties only overfit more
            best, best_loss = solution, loss
        if best is None:
            raise HeadError("alphas is empty; name at least one penalty.")
        return problem, best

    def _held_out(self, train: Data, validation: Data) -> tuple[Float, Array]:
        every = train if validation is train else train + validation
        folds = class_folds(rarest(every.codes), min(FOLDS, len(every)), seed=1)
        path = [*(alpha for alpha in ALPHAS if alpha > self.alpha_), self.alpha_]  # sooner there than from zero
        out = np.zeros(every.codes.shape)
        problem = None
        for fold in np.unique(folds):
            inside, outside = every.take(folds != fold), every.take(folds == fold)
            if len(inside):
                standardizer = Standardizer().fit(inside)
                problem = self._problem(inside, standardizer, problem)
                *_, solution = problem.walk(path, tolerance=COARSE)
                out[folds == fold] = standardizer.transform(outside) @ solution.weight + solution.bias
        return out, every.codes


class KnnLabeller(Labeller, KnnHead):
    """The share of the nearest training items that have a label, by mean cosine.

    Parameters and attributes are those of `KnnHead`.
    """

    kind = "knn_multilabel"

    def _vote(self, near: Codes, similarity: npt.NDArray[np.float32], k: int, temperature: float) -> Float:
        """Log-odds (q, c) of the first k neighbours' votes, with a little of every label so that none is impossible."""
        weight = vote_weights(similarity[:, :k], temperature)
        votes = np.zeros((len(near), len(self.classes_)))
        for ballot, neighbour in zip(weight.T, near.T, strict=False):  # one at a time: (q, k, c) may not fit into memory
            votes += ballot[:, None] * self.codes_[neighbour]
        total = weight.sum(axis=1, keepdims=True)
        prior = self.codes_.mean(axis=0)
        shares = np.where(total > 0, votes / np.maximum(total, 1e-300), prior)
        return log_odds_of(shares * 0.95 + 0.05 * (prior + 1e-4))

    def _vote_loss(self, votes: Float, codes: Codes) -> float:
        return label_loss(votes, codes)

    def _held_out(self, train: Data, validation: Data) -> tuple[Float, Array]:
        data = train if validation is train else train + validation
        if len(data) > ALL_PAIRS:
            data = data.take(np.arange(ALL_PAIRS))  # the first of those remembered, so that each knows its own number
        return self._neighbours_vote(data, others=True), data.codes


class GbdtLabeller(Labeller, Boosted):
    """Gradient-boosted trees on the log-loss of each label.

    The parameters are those of `GbdtHead`.
    """

    kind = "gbdt_multilabel"

    def _fit(self, train: Data, validation: Data) -> None:
        rounds = min(self.rounds, max(LEAST_ROUNDS, MOST_TREES // len(self.classes_)))
        # a base of 0.5, for that of a label which no training item has would be infinite
        self._boost(train, validation, {"objective": "binary:logistic", "base_score": 0.5}, "logloss", rounds)

    def _logits(self, data: Data) -> Array:
        return self._predicted(data, output_margin=True).reshape(len(data), len(self.classes_))


def label_loss(log_odds: Array, truth: Array) -> float:
    """The mean log-loss over items and labels of log-odds (n, c) and indicators (n, c)."""
    return float((np.logaddexp(0, log_odds) - truth * log_odds).mean()) if log_odds.size else 0.0
