"""A closer look at a classifier: its confusions, what each input contributes, its worst mistakes.

Wiring of view, evaluation and thumbnails; knows no page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.evaluation.bootstrap import Bootstrap
from embedstore.evaluation.contributions import missing_curves, permutation_drops, shapley_of
from embedstore.evaluation.metrics import Score, per_class, reliability
from embedstore.heads.base import Data
from embedstore.heads.solvers.design_matrix import Standardizer
from embedstore.heads.solvers.gram import Gram, predict_subsets
from embedstore.reports.data import Mistake
from embedstore.store import View
from embedstore.training.fed import fed
from embedstore.training.item_cards import cards
from embedstore.training.tasks.base import HEAD, Array, Codes, Judged

MISTAKES = 12
MAX_SUBSET_INPUTS = 5
MAX_LOOKED_AT = 20_000
PENALTIES = tuple(float(x) for x in np.logspace(0, 6, 13))


def classifier_sections(view: View, judged: Judged, seed: int) -> dict[str, Any]:
    """What a report shows of a classifier beside its scores: fields of `ReportData`."""
    classes = [str(label) for label in judged.labels.classes.tolist()]
    log_p = judged.outputs[HEAD]
    predicted = log_p.argmax(axis=1)
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(confusion, (judged.truth, predicted), 1)
    return {
        "classes": classes,
        "confusion": confusion,
        "per_class": per_class(judged.truth, predicted, classes),
        "reliability": reliability(judged.truth, log_p),
        "mistakes": _mistakes(view, judged, classes),
        **_contributions(view, judged, seed),
    }


def _contributions(view: View, judged: Judged, seed: int) -> dict[str, Any]:
    """Subsets and Shapley values (of ridge), permutation and missing-rate curve (of the head)."""
    head, fitted_on, test = judged.witness
    labels, codes = judged.labels, judged.labels.truth
    if len(view.names) < 2:
        return {}
    rng = np.random.default_rng(seed)
    test = np.sort(rng.permutation(test)[:MAX_LOOKED_AT])
    fitted_on = np.sort(rng.permutation(fitted_on)[:MAX_LOOKED_AT])
    inputs = {name: x[test] for name, x in fed(head, view).items()}
    present = {name: mask[test] for name, mask in view.present.items()}
    truth = np.searchsorted(head.classes_, labels.values[test])
    truth[~np.isin(labels.values[test], head.classes_)] = -1
    bootstrap = Bootstrap.of(len(test), groups=None if view.groups is None else view.groups[test], seed=seed)

    def predict(x: Mapping[str, Array], masks: Mapping[str, Array]) -> npt.NDArray[np.float64]:
        return head.predict_log_proba(x, present=masks)

    subsets = _subset_scores(view, codes, len(labels.classes), fitted_on, test, bootstrap)
    value = {frozenset(names): score.value for names, score in subsets.items()}
    if subsets:
        value[frozenset()] = float((codes[test] == np.bincount(codes[fitted_on]).argmax()).mean())
    return {
        "subsets": {" + ".join(names): score for names, score in subsets.items()},
        "shapley": {n: float(shapley_of(n, view.names, value)) for n in view.names} if subsets else {},
        "permutation": permutation_drops(predict, inputs, present, truth, bootstrap=bootstrap, seed=seed),
        "missing": missing_curves(predict, inputs, present, truth, seed=seed),
    }


def _subset_scores(
    view: View, codes: Codes, classes: int, fitted_on: Codes, test: Codes, bootstrap: Bootstrap
) -> dict[tuple[str, ...], Score]:
    """Accuracy of ridge on every subset of the inputs, from one pass over the items fitted on."""
    if len(view.names) > MAX_SUBSET_INPUTS or len(fitted_on) < 10:
        return {}
    every = Data(view.inputs, view.present, codes)
    standardizer = Standardizer().fit(every.take(fitted_on))
    held_out = np.arange(len(fitted_on)) % 5 == 0
    grams = []
    for items in (fitted_on[~held_out], fitted_on[held_out]):
        x = np.concatenate(list(standardizer.blocks(every.take(items)).values()), axis=1)
        grams.append(Gram.of(x, 2 * np.eye(classes)[codes[items]] - 1))
    x = np.concatenate(list(standardizer.blocks(every.take(test)).values()), axis=1)
    scores = predict_subsets(grams, view.dims, PENALTIES, x)
    return {names: bootstrap.mean((p.argmax(axis=1) == codes[test]).astype(float)) for names, p in scores.items()}


def _mistakes(view: View, judged: Judged, classes: Sequence[str]) -> list[Mistake]:
    """The errors that the head was surest of, with what it saw and the training items nearest to it."""
    log_p = judged.outputs[HEAD]
    predicted, confidence = log_p.argmax(axis=1), np.exp(log_p.max(axis=1))
    wrong = np.flatnonzero(predicted != judged.truth)
    wrong = wrong[np.argsort(-confidence[wrong], kind="stable")][:MISTAKES]
    return cards(
        view.select(judged.test[wrong]),
        view.select(judged.fitted_on),
        labelled=[classes[k] for k in judged.truth[wrong]],
        predicted=[classes[k] for k in predicted[wrong]],
        probability=confidence[wrong],
    )
