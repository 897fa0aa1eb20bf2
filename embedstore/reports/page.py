"""The evaluation report of a trained head as one HTML page that needs nothing else.

Knows no head and no store. What comes from the user is escaped, by Jinja in the page and by matplotlib in the figures.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

import numpy as np

from embedstore.evaluation.bootstrap import numerals
from embedstore.evaluation.metrics import Score
from embedstore.registry import require
from embedstore.reports.data import METRIC_NAMES, ReportData
from embedstore.reports.figure_style import to_svg
from embedstore.reports.figures import NUMBERED_CLASSES, SHOWN_CLASSES, figures

__all__ = ["render_html"]

LOWER_IS_BETTER = frozenset({"mae", "mse", "rmse", "log_loss", "nll", "brier", "ece"})
COLUMN_NAMES = {**METRIC_NAMES, "support": "items"}
PAIRS = 10
SCROLL_ROWS = 50
OPEN_GROUPS = 3
"""Groups of mistakes that are open at first: a page of hundreds of pictures is long."""
UNWRITABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")


@dataclass(frozen=True)
class _Best:
    """The best baseline by the headline metric, and how much better the head is."""

    name: str
    score: Score
    gain: float


def render_html(data: ReportData) -> str:
    """One page, complete in itself: no script, no address outside of it, figures as SVG, thumbnails as data.

    Returns
    -------
    str
        HTML that can be written as UTF-8, whatever the user's strings hold.

    Raises
    ------
    MissingDependencyError
        Without matplotlib or Jinja2.
    """
    require("jinja2")
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"cell": _cell, "picture": _picture, "percent": _percent, "seconds": _seconds}
    template = environment.from_string(resources.files(__package__).joinpath("page.html.j2").read_text(encoding="utf-8"))
    html = template.render(
        data=data,
        # matplotlib has escaped what is in them.
        figures={name: Markup(to_svg(figure)) for name, figure in figures(data).items()},
        headline=next(iter(data.metrics), None),
        best=_best_baseline(data),
        baseline_metrics=_metrics_of(data.baselines),
        pairs=_confused_pairs(data),
        seeds=_mean_and_deviation(data.seeds),
        inputs=list(dict.fromkeys([*data.shapley, *data.permutation])),
        metric_names=METRIC_NAMES,
        column_names=COLUMN_NAMES,
        lower_is_better=LOWER_IS_BETTER,
        numbered_classes=NUMBERED_CLASSES,
        shown_classes=SHOWN_CLASSES,
        scroll_rows=SCROLL_ROWS,
        open_groups=OPEN_GROUPS,
    )
    return UNWRITABLE.sub("\ufffd", html)


def _best_baseline(data: ReportData) -> _Best | None:
    metric = next(iter(data.metrics), None)
    if metric is None:
        return None
    scores = {name: scores[metric] for name, scores in data.baselines.items() if metric in scores}
    if not scores:
        return None
    sign = -1 if metric in LOWER_IS_BETTER else 1
    name = max(scores, key=lambda name: sign * scores[name].value)
    return _Best(name, scores[name], sign * (data.metrics[metric].value - scores[name].value))


def _metrics_of(baselines: Mapping[str, Mapping[str, Score]]) -> list[str]:
    """Metrics that some baseline has, in the order they come."""
    return list(dict.fromkeys(metric for scores in baselines.values() for metric in scores))


def _confused_pairs(data: ReportData) -> list[tuple[str, str, int, float]]:
    """The most frequent errors: true class, predicted class, how often, and as a share of the true class."""
    if data.confusion is None:
        return []
    errors = data.confusion - np.diag(np.diag(data.confusion))
    support = data.confusion.sum(axis=1)
    order = np.argsort(-errors, axis=None, kind="stable")[:PAIRS]
    cells = zip(*np.unravel_index(order, errors.shape), strict=True)
    return [
        (data.classes[i], data.classes[j], int(errors[i, j]), float(errors[i, j] / support[i]))
        for i, j in cells
        if errors[i, j] > 0
    ]


def _mean_and_deviation(values: Sequence[float]) -> tuple[float, float] | None:
    """Mean and sample standard deviation; nothing for fewer than two values."""
    if len(values) < 2:
        return None
    return float(np.mean(values)), float(np.std(values, ddof=1))


def _cell(value: object) -> str:
    """A number or score as it stands in a table; a dash for what is not there."""
    if isinstance(value, Score):
        if math.isnan(value.value):
            return "–"
        return str(value) if math.isfinite(value.low) and math.isfinite(value.high) else numerals(value.value)[0]
    if isinstance(value, (float, np.floating)):
        return numerals(float(value))[0] if math.isfinite(value) else "–"
    if isinstance(value, (int, np.integer)):
        return f"{value:,}"
    return "–" if value is None else str(value)


def _percent(value: float) -> str:
    """Two digits of doubt kept: never "100 %" of what is not certain."""
    shown = f"{100 * value:.0f} %"
    return f"{100 * value:.1f} %" if shown == "100 %" and value < 0.9995 else shown


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value < 100 else f"{value / 60:,.0f} min"


def _picture(thumbnail: bytes) -> str:
    kind = "svg+xml" if thumbnail.startswith(b"<svg") else "jpeg"
    return f"data:image/{kind};base64," + base64.b64encode(thumbnail).decode("ascii")
