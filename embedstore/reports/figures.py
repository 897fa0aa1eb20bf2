"""The figures of an evaluation report. Numbers in, `matplotlib.figure.Figure` out; pyplot is never touched.

Figures are about as wide as a phone, so that their text stays readable where a page scales them down.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from embedstore.reports.figure_labels import ems, short
from embedstore.reports.figure_style import COLOURS, FONT, INK, MUTED, NUMBER, PAPER, SMALL, house_style, no_glyph_warnings

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from embedstore.evaluation.ladder import Step
    from embedstore.evaluation.metrics import Score
    from embedstore.reports.data import ReportData

Floats = npt.NDArray[np.float64]

__all__ = [
    "confusion",
    "contributions",
    "figures",
    "ladder",
    "learning_curves",
    "missing_curve",
    "most_confused",
    "regression",
    "reliability",
    "save_png",
]

DARKEST = (0.0, 0.33, 0.54)  # of the heat map: light enough to be seen on a dark page, dark enough for white numbers
WHITE_ABOVE = 0.645  # share from which white is easier to read on the heat map than black; both have a contrast of 4.5 there
WIDTH = 4.5  # inches: 432 CSS pixels
NUMBERED_CLASSES = 20
SHOWN_CLASSES = 40
SHOWN_POINTS = 2000


def learning_curves(history: Sequence[Mapping[str, float]]) -> Figure:
    """Loss and accuracy by epoch, training and validation items.

    Parameters
    ----------
    history : sequence of mapping
        One per epoch, with any of ``train_loss``, ``val_loss``, ``train_accuracy`` and ``val_accuracy``.
    """
    panels = _curves(history)
    with house_style():
        figure = _figure(WIDTH, 0.5 + 1.75 * len(panels))
        grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        epochs = np.arange(1, len(history) + 1)
        for axes, (measure, curves) in zip(grid, panels.items(), strict=True):
            for split, values in curves.items():
                axes.plot(
                    epochs,
                    values,
                    label={"train": "training", "val": "validation"}[split],
                    color=MUTED if split == "train" else COLOURS[0],
                    linestyle="--" if split == "train" else "-",
                    marker="o" if len(epochs) <= 20 else "",
                )
            axes.set_ylabel(measure)
        _legend(figure)
        grid[-1].set_xlabel("epoch")
        grid[-1].locator_params(axis="x", integer=True)
    return figure


def reliability(bins: Sequence[tuple[float, float, int]]) -> Figure:
    """Accuracy against confidence, and how many items stand behind each point.

    Parameters
    ----------
    bins : sequence of (mean confidence, accuracy, count)
        Bins without items are left out.
    """
    confidence, accuracy, count = np.array([b for b in bins if b[2] > 0], dtype=np.float64).T
    with house_style():
        figure = _figure(WIDTH, 4.3)
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
        upper.plot([0, 1], [0, 1], color=MUTED, linestyle="--", label="perfectly calibrated")
        upper.plot(confidence, accuracy, color=COLOURS[0], marker="o", markersize=6, label="this head")
        upper.set(ylim=(0, 1.02), ylabel="accuracy")
        _legend(figure)
        lower.vlines(confidence, 0, count, color=COLOURS[0], linewidth=5)
        lower.set(xlim=(0, 1.02), ylim=(0, None), xlabel="confidence (predicted probability)", ylabel="items")
    return figure


def confusion(matrix: npt.NDArray[np.int64], classes: Sequence[str]) -> Figure:
    """Row-normalised heat map; numbers are per cent of the row's items.

    Parameters
    ----------
    matrix : (c, c) int
        Rows are true classes, columns predicted ones. Of more than 40 classes only the `most_confused` are drawn.
    classes : sequence of str
    """
    shown = most_confused(matrix)
    total = np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    share: Floats = (matrix / total)[np.ix_(shown, shown)]
    names = [short(classes[i]) for i in shown]
    n = len(shown)
    cell = min(max(210 / n, 18.0), 48.0) if n <= NUMBERED_CLASSES else 11.5
    margin = max(map(ems, names)) * SMALL + 10
    level = all(ems(name) * SMALL < cell - 4 for name in names)
    side, left, bottom = n * cell, margin + 14, (12 if level else margin) + 18
    width, height = left + side + 6, bottom + side + 6
    with house_style():
        figure = _figure(width / 72, height / 72, layout=None)
        axes = figure.add_axes((left / width, bottom / height, side / width, side / height))
        # A power below one: most confusions are a few per cent, and should be seen.
        axes.imshow(share**0.6, cmap=_shades(), vmin=0, vmax=1, interpolation="none", aspect="auto")
        axes.set_xticks(range(n), names, rotation=0 if level else 90, fontsize=SMALL, parse_math=False)
        axes.set_yticks(range(n), names, fontsize=SMALL, parse_math=False)
        axes.tick_params(length=0)
        axes.grid(False)
        axes.spines[["top", "right"]].set_visible(True)
        # Placed by hand: the browser's fonts are not the ones that matplotlib measures.
        figure.text((left + side / 2) / width, 3 / height, "predicted", ha="center", va="bottom")
        figure.text(2 / width, (bottom + side / 2) / height, "true", rotation=90, ha="left", va="center")
        if n <= NUMBERED_CLASSES:
            _write_cells(axes, share)
    return figure


def most_confused(matrix: npt.NDArray[np.int64], limit: int = SHOWN_CLASSES) -> npt.NDArray[np.int64]:
    """Codes, in order, of the `limit` classes that take part in the most errors, as the true or as the predicted class."""
    errors = matrix - np.diag(np.diag(matrix))
    involved = errors.sum(axis=0) + errors.sum(axis=1)
    return np.sort(np.argsort(-involved, kind="stable")[:limit])


def ladder(steps: Sequence[Step]) -> Figure:
    """Scores of the steps with their intervals; kept ones are filled."""
    names = [short(step.name) for step in steps]
    with house_style():
        figure, (axes,) = _stacked(names, [len(steps)], right=0.2)
        for y, step in enumerate(steps):
            colour = COLOURS[0] if step.kept else MUTED
            axes.hlines(y, step.score.low, step.score.high, color=colour, linewidth=2)
            axes.plot(step.score.value, y, "o", color=colour, markerfacecolor=colour if step.kept else PAPER, markersize=7)
        _categories(axes, names)
        axes.set_xlabel("score with its 95 % interval; hollow: not kept")
    return figure


def contributions(subsets: Mapping[str, Score], shapley: Mapping[str, float], permutation: Mapping[str, Score]) -> Figure:
    """Bars: accuracy by subset of the inputs, Shapley values, and drops in accuracy when one input is shuffled.

    What is empty is left out; not all of them may be.
    """
    groups: list[tuple[str, Mapping[str, Score | float], str]] = [
        ("Accuracy of ridge by inputs", subsets, ".3f"),
        ("Shapley value: mean gain from adding the input", shapley, "+z.3f"),
        ("Drop in accuracy when the input is shuffled", permutation, "+z.3f"),
    ]
    groups = [group for group in groups if group[1]]
    names = [[short(name) for name in values] for _, values, _ in groups]
    with house_style():
        figure, panels = _stacked([name for group in names for name in group], [len(group) for group in names], right=0.55)
        for axes, labels, (title, values, form) in zip(panels, names, groups, strict=True):
            axes.text(-axes.bbox.x0 / axes.bbox.width + 0.01, 1, title, transform=axes.transAxes, va="bottom", ha="left")
            for y, value in enumerate(values.values()):
                _bar(axes, y, value, form)
            axes.axvline(0, color=INK, linewidth=0.8)
            _categories(axes, labels)
    return figure


def missing_curve(lines: Mapping[str, Sequence[tuple[float, float]]]) -> Figure:
    """Accuracy against the share of items whose modality was removed, a line for each way of removing.

    Parameters
    ----------
    lines : mapping of name to sequence of (share in 0…1, accuracy)
    """
    with house_style():
        figure = _figure(WIDTH, 3.2)
        axes = figure.subplots()
        drawn = []
        for i, points in enumerate(lines.values()):
            share, accuracy = np.array(points, dtype=np.float64).reshape(-1, 2).T
            drawn += axes.plot(
                100 * share,
                accuracy,
                color=COLOURS[i % len(COLOURS)],
                marker="os^Dv"[i % 5],
                linestyle=("-", "--", ":")[i // len(COLOURS) % 3],
            )
        axes.set(xlabel="items without the modality (%)", ylabel="accuracy")
        names = [short(name) for name in lines]
        figure.legend(drawn, names, loc="outside upper left", ncols=2 if max(map(ems, names)) < 14 else 1)
    return figure


def regression(true: npt.NDArray[Any], predicted: npt.NDArray[Any], *, seed: int = 0) -> Figure:
    """Predicted against true values (n,); at most 2,000 random points, the same ones for one `seed`."""
    both = np.stack([np.asarray(true, np.float64), np.asarray(predicted, np.float64)])
    both = both[:, np.isfinite(both).all(axis=0)]
    if both.shape[1] > SHOWN_POINTS:
        both = both[:, np.random.default_rng(seed).choice(both.shape[1], SHOWN_POINTS, replace=False)]
    ends = [both.min(), both.max()] if both.size else [0.0, 1.0]
    with house_style():
        figure = _figure(WIDTH, 4.2)
        axes = figure.subplots()
        axes.plot(ends, ends, color=MUTED, linestyle="--", label="predicted = true")
        # As pixels: two thousand circles would be most of the page's bytes.
        axes.scatter(both[0], both[1], s=9, color=COLOURS[0], alpha=0.6, linewidths=0, rasterized=True)
        axes.set(xlabel="true", ylabel="predicted", aspect="equal")
        _legend(figure)
    return figure


def figures(data: ReportData) -> dict[str, Figure]:
    """Those figures of a report for which `data` has the numbers, in the order of the page."""
    found: dict[str, Figure] = {}
    if data.regression is not None:
        found["regression"] = regression(*data.regression)
    if data.ladder:
        found["ladder"] = ladder(data.ladder)
    if _curves(data.history):
        found["learning_curves"] = learning_curves(data.history)
    if data.subsets or data.shapley or data.permutation:
        found["contributions"] = contributions(data.subsets, data.shapley, data.permutation)
    if data.missing:
        found["missing"] = missing_curve(data.missing)
    if data.confusion is not None and len(data.classes):
        found["confusion"] = confusion(data.confusion, data.classes)
    if any(count > 0 for _, _, count in data.reliability):
        found["reliability"] = reliability(data.reliability)
    return found


def save_png(data: ReportData, folder: Path) -> list[Path]:
    """Write every figure of `data` to `folder` as ``NAME.png``, on white, and return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, figure in figures(data).items():
        paths.append(folder / f"{name}.png")
        with house_style(), no_glyph_warnings():
            # Tight: a box in the place of a character that no font has can be wider than the margin reckoned for it.
            figure.savefig(
                paths[-1],
                format="png",
                dpi=200,
                facecolor="white",
                bbox_inches="tight",
                pad_inches=0.05,
                metadata={"Software": None},
            )
    return paths


def _figure(width: float, height: float, *, layout: str | None = "constrained") -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout=layout)  # type: ignore[arg-type]


def _legend(figure: Figure) -> None:
    """One line above all panels, where it hides no point."""
    drawn: dict[str, Any] = {}
    for axes in figure.axes:
        handles, names = axes.get_legend_handles_labels()
        drawn |= dict(zip(names, handles, strict=True))
    figure.legend(list(drawn.values()), list(drawn), loc="outside upper left", ncols=2)


def _stacked(labels: Sequence[str], rows: Sequence[int], *, right: float) -> tuple[Figure, list[Axes]]:
    """Panels one below the other, each with `rows[i]` horizontal categories, and a left margin that holds `labels`.

    Margins are reckoned, not measured, because the browser draws text with fonts that matplotlib does not have.
    """
    row, title, ticks = 0.25, 0.25, 0.42 if len(rows) == 1 else 0.33
    left = (max(map(ems, labels)) * FONT + 12) / 72
    height = sum(title + row * n + ticks for n in rows)
    figure = _figure(WIDTH, height, layout=None)
    panels, top = [], height
    for n in rows:
        top -= title + row * n
        panels.append(figure.add_axes((left / WIDTH, top / height, (WIDTH - left - right) / WIDTH, row * n / height)))
        top -= ticks
    return figure, panels


def _categories(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    axes.locator_params(axis="x", nbins=5)


def _bar(axes: Axes, y: int, value: Score | float, form: str) -> None:
    """A bar, its interval where it has one, and its number in a column on the right."""
    number = value if isinstance(value, (int, float)) else value.value
    axes.barh(y, number, height=0.62, color=COLOURS[0])
    if not isinstance(value, (int, float)):
        axes.hlines(y, value.low, value.high, color=INK, linewidth=1.5)
    axes.text(1.02, y, format(number, form), transform=axes.get_yaxis_transform(), va="center")


def _write_cells(axes: Axes, share: Floats) -> None:
    for (row, column), value in np.ndenumerate(share):
        if value >= 0.005:
            colour = "white" if value > WHITE_ABOVE else NUMBER
            axes.text(column, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=SMALL, color=colour)


def _shades() -> Any:
    """From nothing to dark blue: transparent, so that an empty cell has the page's colour."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("shades", [(*DARKEST, 0.0), (*DARKEST, 1.0)])


def _curves(history: Sequence[Mapping[str, float]]) -> dict[str, dict[str, Floats]]:
    """Measure → split → values by epoch (e,), NaN where an epoch has none; only measures that some epoch has."""
    panels: dict[str, dict[str, Floats]] = {}
    for measure in ("loss", "accuracy"):
        for split in ("train", "val"):
            values = np.array([epoch.get(f"{split}_{measure}", np.nan) for epoch in history], dtype=np.float64)
            values[~np.isfinite(values)] = np.nan
            if not np.isnan(values).all():
                panels.setdefault(measure, {})[split] = values
    return panels
