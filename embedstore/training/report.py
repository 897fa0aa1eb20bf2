"""What a report shows of a head that was trained or evaluated: facts, scores, and what its task adds.

Wiring of view, results and page data; knows no task by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, Protocol

from embedstore._version import __version__
from embedstore.errors import UsageError, next_step, reason_of
from embedstore.evaluation.ladder import Step
from embedstore.evaluation.metrics import Score
from embedstore.heads import AutoHead, AutoLabeller, BalancedHead, Head
from embedstore.heads.matcher import Matcher
from embedstore.reports.data import ReportData, Section
from embedstore.store import View
from embedstore.training.certainty import Certainty, section
from embedstore.training.tasks.base import Judged, Scores, Task
from embedstore.training.tuning_report import tuning_sections

__all__ = ["Result", "report_data", "save_plots"]


class Result(Protocol):
    """What `train` and `evaluate` return, as far as a report shows it."""

    @property
    def head(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def target(self) -> str: ...
    @property
    def metrics(self) -> Scores: ...
    @property
    def baselines(self) -> dict[str, Scores]: ...
    @property
    def gain(self) -> tuple[str, Score]: ...
    @property
    def evaluation(self) -> str: ...
    @property
    def seconds(self) -> float: ...
    @property
    def notes(self) -> list[str]: ...


def report_data(
    view: View,
    judged: Judged,
    result: Result,
    *,
    seed: int,
    learned: Mapping[str, Any] | None = None,
    ladder: Sequence[Step] = (),
    certainty: Certainty | None = None,
    more: Sequence[Section] = (),
) -> ReportData:
    """Everything that the report shows.

    Parameters
    ----------
    result : TrainReport or EvaluationReport
    learned : mapping, optional
        What the head chose.
    ladder : sequence of Step
        How it was found.
    certainty : Certainty, optional
        How often its sets or intervals hold the truth.
    more : sequence of Section
        Tables of what else was asked.
    """
    task = judged.task
    facts = {
        "head": result.kind,
        "target": result.target,
        **{f"input {name}": spec.label for name, spec in view.specs.items()},
        "judged on": result.evaluation,
        "fitted on": f"{len(judged.fitted_on):,} {view.unit}",
        "learned": ", ".join(f"{name} {_short(value)}" for name, value in (learned or {}).items()) or "–",
        "seed": str(seed),
        "seconds": f"{result.seconds:.1f}",
        "made": f"{date.today().isoformat()} by embedstore {__version__}",
    }
    over, gain = result.gain
    return ReportData(
        title=result.head,
        facts=facts,
        metrics=result.metrics,
        baselines={_title(name, task, view): _compared(scores, task) for name, scores in result.baselines.items()},
        gain=(_title(over, task, view), gain) if task.lead == next(iter(result.metrics)) else None,
        notes=result.notes,
        ladder=ladder,
        seeds=judged.seeds,
        history=_history(judged.head),
        **_sections(
            task.sections(view, judged, seed), [*tuning_sections(judged, judged.bootstrap(view, seed)), *more], certainty
        ),
    )


def _sections(own: Mapping[str, Any], more: Sequence[Section], certainty: Certainty | None) -> dict[str, Any]:
    """What a task shows, and more sections: of what else was asked, and of how certain the head is."""
    asked = [*more, *([] if certainty is None else [section(certainty)])]
    return {**own, "sections": [*own.get("sections", ()), *asked]} if asked else dict(own)


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


def _compared(scores: Scores, task: Task) -> Scores:
    return {metric: score for metric, score in scores.items() if not task.compared or metric in task.compared}


def _title(baseline: str, task: Task, view: View) -> str:
    """A baseline in words."""
    linear = {task.linear_on(name): f"linear on {name}" for name in view.names}
    return linear.get(baseline, task.title(baseline))


def _history(head: Head) -> list[dict[str, float]]:
    if isinstance(head, BalancedHead | Matcher):
        head = head.member_
    if isinstance(head, AutoHead | AutoLabeller) and len(head.members_) == 1:
        head = next(iter(head.members_.values()))
    return list(getattr(head, "history_", []))


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return "(" + ", ".join(f"{name} {_short(v)}" for name, v in value.items()) + ")"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
