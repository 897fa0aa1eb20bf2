"""What tuning gained over the head as it comes, and all its trials, as JSON values and as tables of a report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from embedstore.evaluation.bootstrap import Bootstrap
from embedstore.evaluation.tuned import Tried, Tuned
from embedstore.reports.data import METRIC_NAMES, Section
from embedstore.training.tasks.base import UNTUNED, Judged

__all__ = ["told", "tuning_sections", "tuning_to_dict"]


def tuning_to_dict(judged: Judged, bootstrap: Bootstrap) -> dict[str, Any] | None:
    """The study of the saved head, the paired gain on the test items, and the studies of the folds; None without tuning."""
    if not judged.tuned:
        return None
    of_head, *of_folds = (found.to_dict() for found in judged.tuned)
    gain = judged.gain_over(UNTUNED, bootstrap).to_dict()
    return {"metric": judged.task.lead, "gain": gain, **of_head, "folds": of_folds}


def tuning_sections(judged: Judged, bootstrap: Bootstrap) -> list[Section]:
    """What the report shows: the gain, and every trial."""
    if not judged.tuned:
        return []
    found, metric = judged.tuned[0], METRIC_NAMES.get(judged.task.lead, judged.task.lead.replace("_", " "))
    gain = judged.gain_over(UNTUNED, bootstrap)
    note = (
        f"{len(found.trials)} trials ({found.by}) on {found.part}, scored out of fold inside it; no test item was seen. "
        f"Trial 0 is the head as it comes. On the test items the best one gains {gain} in {metric} over it, paired"
        f"{'' if gain.certain_gain else ': no certain gain'}."
    )
    columns = ("trial", f"{metric}, out of fold", "best so far", "seconds", "parameters")
    return [Section("Tuning", note, columns, [_row(trial, found) for trial in found.trials])]


def _row(trial: Tried, found: Tuned) -> tuple[Any, ...]:
    score = "none could be fitted" if trial.value is None else f"{trial.value:.4f}"
    best = "" if trial.best is None else f"{trial.best:.4f}"
    name = f"{trial.number}{' (chosen)' if trial.number == found.best.number else ''}"
    return name, score, best, f"{trial.seconds:.1f}", told(trial.params) or "as it comes"


def told(params: Mapping[str, Any]) -> str:
    """Parameters in words."""
    return ", ".join(f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in params.items())
