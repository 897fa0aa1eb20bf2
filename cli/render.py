"""How results look in a terminal. JSON goes to stdout alone; progress goes to stderr."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from embedstore._embed import EmbedReport
    from embedstore._predict import Predictions
    from embedstore._search import SearchResult
    from embedstore._train import TrainReport
    from embedstore.pipeline.report import ProgressCallback


def out() -> Console:
    """The console for results."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True) if not sys.stdout.isatty() else Console(highlight=False)


def print_json(document: Mapping[str, Any]) -> None:
    """One document on stdout."""
    text = json.dumps(_finite(document), ensure_ascii=False, default=str, allow_nan=False)
    sys.stdout.write(text + "\n")


def _finite(value: Any) -> Any:
    """`value` with null for NaN and infinity, which JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return value


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, numeric: Sequence[str] = ()) -> None:
    """A plain table; `numeric` columns to the right."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    console = out()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(
            column, justify="right" if column in numeric else "left", overflow="ellipsis", no_wrap=column in numeric
        )
    for row in rows:
        table.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    if not console.is_terminal:
        console.width = 160
    console.print(table)


@contextmanager
def embedding_progress(description: str) -> Iterator[ProgressCallback]:
    """A progress bar on stderr with rate and time left; nothing where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task(description, total=None, rate="")

        def update(state: Any) -> None:
            speed = progress.tasks[0].speed
            rate = f"{speed:,.0f} items/s" if speed else ""
            progress.update(task, completed=state.done, total=state.total, rate=rate)

        yield update


@contextmanager
def status(description: str) -> Iterator[Any]:
    """A spinner on stderr; yields a function that changes its text."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda text: None
        return
    with console.status(description) as spinner:
        yield lambda text: spinner.update(f"{description}: {text}")


def print_embedding(report: EmbedReport, store: object) -> None:
    """Counts of each space, the first failures, and the closing line."""
    columns = ["space", "encoder", "embedded", "distinct", "unchanged", "missing", "failed", "truncated"]
    rows = [(name, s.encoder, *(f"{getattr(s, column):,}" for column in columns[2:])) for name, s in report.spaces.items()]
    print_table(columns, rows, numeric=columns[2:])
    console = out()
    for space, item, stage, reason in report.failures[:5]:
        console.print(f"failed: {item} ({space}, {stage}): {reason}", markup=False)
    failed = sum(s.failed for s in report.spaces.values())
    if failed > 5:
        console.print(f"  … {failed:,} failures in all; embedstore info {store} --failures lists them", markup=False)
    missing = sum(s.missing for s in report.spaces.values())
    shares = ", ".join(f"{stage} {share:.0%}" for stage, share in report.shares.items())
    console.print(
        f"{report.items:,} items ({report.added:,} new, {report.updated:,} updated), {missing:,} missing, "
        f"{failed:,} failed in {report.seconds:.1f} s: {report.items_per_s:,.0f} items/s, "
        f"bound by {report.bound_by} (busy: {shares})",
        markup=False,
    )


def print_training(report: TrainReport) -> None:
    """Scores of the head beside its baselines."""
    table = [(f"{report.kind} ({' + '.join(report.inputs)})", report.metrics)]
    table += [(name if name == "majority" else f"{report.kind} ({name})", s) for name, s in report.baselines.items()]
    rows = [(name, str(s["accuracy"]), str(s["macro_f1"])) for name, s in table]
    print_table(["head", "accuracy [95 %]", "macro F1 [95 %]"], rows)
    sizes = ", ".join(f"{count:,} {part}" for part, count in report.items.items() if part != "test")
    out().print(
        f"{report.classes} classes; {report.evaluation}; fitted on {sizes}{_learned(report.learned)}; "
        f"{report.seconds:.1f} s. Saved as head {report.head!r}.",
        markup=False,
    )
    for note in report.notes:
        out().print(f"note: {note}", markup=False)


def _learned(values: Mapping[str, Any]) -> str:
    """What the head chose, in a few words."""
    words = []
    for name, value in values.items():
        parts = value.items() if isinstance(value, dict) else ()
        words.append(f"{name} " + (", ".join(f"{k} {v:.2f}" for k, v in parts) if parts else f"{value:.2g}"))
    return "".join(f"; {word}" for word in words)


def print_hits(result: SearchResult, columns: Sequence[str]) -> None:
    """Results as a table."""
    rows = [(hit.rank, f"{hit.score:.3f}", hit.id, *(_short(hit.metadata.get(c)) for c in columns)) for hit in result.results]
    print_table(["#", "score", "id", *columns], rows, numeric=["#", "score"])
    took = sum(result.took_ms.values())
    kind = "exact" if result.index["exact"] else f"recall {result.index['recall']:.3f}"
    out().print(f"{len(result.results)} results from space {result.space!r}, {kind}, in {took:.0f} ms", markup=False)
    if result.note:
        sys.stderr.write(f"note: {result.note}\n")


def print_predictions(predictions: Predictions) -> None:
    """One line an item."""
    best = predictions.probabilities.max(axis=1) if len(predictions.ids) else []
    rows = [
        (i, label, f"{p:.3f}") for i, label, p in zip(predictions.ids.tolist(), predictions.labels.tolist(), best, strict=True)
    ]
    print_table(["id", "prediction", "probability"], rows, numeric=["probability"])
    for item, reason in predictions.unusable:
        sys.stderr.write(f"unusable: {item}: {reason}\n")


def _short(value: Any, limit: int = 60) -> str:
    text = "" if value is None else " ".join(str(value).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
