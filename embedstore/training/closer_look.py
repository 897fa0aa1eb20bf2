"""What a report shows: a trial's scores, a closer look at its head, its worst mistakes. Wiring of view, trial, evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.encoders.payloads.thumbnail import small_jpeg
from embedstore.errors import PayloadError, UsageError, next_step, reason_of
from embedstore.evaluation.bootstrap import Bootstrap
from embedstore.evaluation.contributions import missing_curves, permutation_drops, shapley_of
from embedstore.evaluation.metrics import Score, per_class, reliability
from embedstore.evaluation.nearest import nearest_items
from embedstore.heads import AutoHead, Head
from embedstore.heads.base import Data
from embedstore.heads.solvers.design_matrix import Standardizer
from embedstore.heads.solvers.gram import Gram, predict_subsets
from embedstore.reports.page import LadderStep, Mistake, ReportData
from embedstore.store import View
from embedstore.training.trial import HEAD, KNN, MAJORITY, Judged, Labels

Array = npt.NDArray[Any]
Codes = npt.NDArray[np.int64]

SHOWN = ("accuracy", "macro_f1", "balanced_accuracy", "r2", "mae", "rmse")
MISTAKES, NEAREST = 12, 3
MAX_SUBSET_INPUTS = 5
MAX_LOOKED_AT = 20_000
PENALTIES = tuple(float(x) for x in np.logspace(0, 6, 13))
THUMBNAIL = 200


def save_plots(data: ReportData, folder: str | Path) -> list[Path]:
    """The figures as PNG files in `folder`, made if it does not exist.

    Raises
    ------
    UsageError
        The folder cannot be written to.
    """
    from embedstore.reports.figures import save_png

    try:
        return save_png(data, Path(folder))
    except OSError as error:
        raise UsageError(f"{folder} cannot be written to: {reason_of(error)}.{next_step(error)}") from error


def report_data(view: View, labels: Labels, judged: Judged, document: Mapping[str, Any], *, seed: int) -> ReportData:
    """Everything that the report shows.

    Parameters
    ----------
    document : mapping
        That of `TrainReport.to_dict` or of `EvaluationReport.to_dict`.
    """
    from embedstore._version import __version__

    facts = {
        "head": document["kind"],
        "target": document["target"],
        **{f"input {name}": spec.label for name, spec in view.specs.items()},
        "judged on": document["evaluation"],
        "fitted on": f"{len(judged.fitted_on):,} items",
        "learned": ", ".join(f"{k} {_short(v)}" for k, v in document.get("learned", {}).items()) or "–",
        "seed": str(seed),
        "seconds": f"{document['seconds']:.1f}",
        "made": f"{date.today().isoformat()} by embedstore {__version__}",
    }
    baselines = {
        _named(name, view): {metric: score for metric, score in _scores(scores).items() if metric in SHOWN}
        for name, scores in document["baselines"].items()
    }
    gain = document["gain"]
    numbers = judged.head.task == "regression"
    return ReportData(
        title=document["head"],
        facts=facts,
        metrics=_scores(document["metrics"]),
        baselines=baselines,
        gain=None if numbers else (_named(gain["over"], view), Score(gain["value"], gain["low"], gain["high"])),
        notes=document["notes"],
        ladder=[_rung(step) for step in document.get("ladder", [])],
        seeds=judged.seeds,
        history=_history(judged.head),
        **({"regression": (judged.truth, judged.log_p[HEAD])} if numbers else _classes(view, labels, judged, seed)),
    )


def _classes(view: View, labels: Labels, judged: Judged, seed: int) -> dict[str, Any]:
    """What only a classifier has to show."""
    classes = [str(label) for label in labels.classes.tolist()]
    log_p = judged.log_p[HEAD]
    predicted = log_p.argmax(axis=1)
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(confusion, (judged.truth, predicted), 1)
    return {
        "classes": classes,
        "confusion": confusion,
        "per_class": per_class(judged.truth, predicted, classes),
        "reliability": reliability(judged.truth, log_p),
        "mistakes": _mistakes(view, judged, classes),
        **_contributions(view, labels, judged, seed),
    }


def _contributions(view: View, labels: Labels, judged: Judged, seed: int) -> dict[str, Any]:
    """Subsets and Shapley values (of ridge), permutation and missing-rate curve (of the head)."""
    head, fitted_on, test = judged.witness
    if len(view.names) < 2:
        return {}
    rng = np.random.default_rng(seed)
    test = np.sort(rng.permutation(test)[:MAX_LOOKED_AT])
    fitted_on = np.sort(rng.permutation(fitted_on)[:MAX_LOOKED_AT])
    inputs = {name: x[test] for name, x in view.inputs.items()}
    present = {name: mask[test] for name, mask in view.present.items()}
    truth = np.searchsorted(head.classes_, labels.values[test])
    truth[~np.isin(labels.values[test], head.classes_)] = -1
    bootstrap = Bootstrap.of(len(test), groups=None if view.groups is None else view.groups[test], seed=seed)

    def predict(x: Mapping[str, Array], masks: Mapping[str, Array]) -> npt.NDArray[np.float64]:
        return head.predict_log_proba(x, present=masks)

    subsets = _subset_scores(view, labels.codes, len(labels.classes), fitted_on, test, bootstrap)
    value = {frozenset(names): score.value for names, score in subsets.items()}
    if subsets:
        value[frozenset()] = float((labels.codes[test] == np.bincount(labels.codes[fitted_on]).argmax()).mean())
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
    log_p = judged.log_p[HEAD]
    predicted, confidence = log_p.argmax(axis=1), np.exp(log_p.max(axis=1))
    wrong = np.flatnonzero(predicted != judged.truth)
    wrong = wrong[np.argsort(-confidence[wrong], kind="stable")][:MISTAKES]
    if not len(wrong):
        return []
    items = judged.test[wrong]
    columns = set(view.store.items.column_types())
    shown = view.select(items).metadata([name for name in ("image", "text") if name in columns]).to_pydict()
    among = view.select(judged.fitted_on)
    seen = view.select(items)
    near = nearest_items(seen.inputs, seen.present, among.inputs, among.present, NEAREST, never=(items, judged.fitted_on))
    return [
        Mistake(
            id=str(view.ids[item]),
            true=classes[judged.truth[at]],
            predicted=classes[predicted[at]],
            probability=float(confidence[at]),
            text=shown["text"][i] if "text" in shown else None,
            thumbnail=_thumbnail(shown["image"][i]) if "image" in shown else None,
            nearest=[str(among.ids[other]) for other in near[i]],
        )
        for i, (item, at) in enumerate(zip(items.tolist(), wrong.tolist(), strict=True))
    ]


def _thumbnail(uri: str | None) -> bytes | None:
    """A small JPEG of an image file, if it can still be read."""
    if not uri or not Path(uri).is_file():
        return None
    try:
        return small_jpeg(Path(uri).read_bytes(), THUMBNAIL, quality=80)
    except (OSError, PayloadError):
        return None


def _named(baseline: str, view: View) -> str:
    """A baseline in words."""
    return {MAJORITY: "majority class", KNN: "kNN (k = 8)"}.get(
        baseline, f"linear on {baseline}" if baseline in view.names else baseline
    )


def _history(head: Head) -> list[dict[str, float]]:
    if isinstance(head, AutoHead) and len(head.members_) == 1:
        head = next(iter(head.members_.values()))
    return list(getattr(head, "history_", []))


def _rung(step: Mapping[str, Any]) -> LadderStep:
    gain = None if step["gain"] is None else Score.from_dict(step["gain"])
    return LadderStep(step["name"], Score.from_dict(step["score"]), gain, step["seconds"], step["kept"], step["note"])


def _scores(document: Mapping[str, Any]) -> dict[str, Score]:
    return {name: Score.from_dict(score) for name, score in document.items()}


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return "(" + ", ".join(f"{k} {_short(v)}" for k, v in value.items()) + ")"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
