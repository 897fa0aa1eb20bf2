"""How results look in a terminal. JSON goes to stdout alone; progress goes to stderr."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from embedstore._core.words import counted

from .streams import console, plain
from .streams import print_json as print_json
from .streams import say as say

if TYPE_CHECKING:
    from embedstore.evaluation.ladder import Step
    from embedstore.evaluation.metrics import Score
    from embedstore.evaluation.target_scores import TargetScores
    from embedstore.ingest.embed import EmbedReport
    from embedstore.ingest.report import ProgressCallback
    from embedstore.retrieval.search_result import SearchResult
    from embedstore.training.certainty import Certainty
    from embedstore.training.compare import CompareReport
    from embedstore.training.evaluate import EvaluationReport
    from embedstore.training.predictions import Predictions
    from embedstore.training.shots import ShotCurve
    from embedstore.training.train_report import TrainReport


LIMITS = {"text": 400}
"""Columns that are cut where the terminal ends, and the most characters that are laid out at all."""
ASCII_HEAD = "    \n    \n -- \n    \n    \n -- \n    \n    \n"
"""`rich.box.SIMPLE_HEAD` for terminals without its lines."""


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[Any]], *, numeric: Sequence[str] = (), trimmed: Sequence[str] = ()
) -> None:
    """A plain table; `numeric` columns to the right, `trimmed` ones in one line, cut where the terminal ends.

    An ``id`` is what people type next: it gives way last.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    to = console()
    table = Table(box=box.SIMPLE_HEAD if to.encoding.startswith("utf") else box.Box(ASCII_HEAD, ascii=True), pad_edge=False)
    for column in columns:
        table.add_column(
            Text(plain(column, to)),
            justify="right" if column in numeric else "left",
            overflow="ellipsis",
            no_wrap=column in (*numeric, "id"),
        )
    for row in rows:
        cells = ("" if cell is None else plain(cell, to) for cell in row)
        table.add_row(*(Text(cell, no_wrap=c in trimmed or None) for c, cell in zip(columns, cells, strict=True)))
    if not to.is_terminal:
        to.width = 160
    to.print(table)


@contextmanager
def embedding_progress(description: str) -> Iterator[ProgressCallback]:
    """A progress bar on stderr with rate and time left; nothing where stderr is no terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    to = console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}", markup=False),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=to, disable=not to.is_terminal, transient=True) as progress:
        task = progress.add_task(plain(description, to), total=None, rate="")

        def update(state: Any) -> None:
            speed = progress.tasks[0].speed
            rate = f"{speed:,.0f} items/s" if speed else ""
            progress.update(task, completed=state.done, total=state.total, rate=rate)

        yield update


@contextmanager
def status(description: str) -> Iterator[Any]:
    """A spinner on stderr; yields a function that changes its text."""
    from rich.text import Text

    to = console(stderr=True)
    if not to.is_terminal:
        yield lambda text: None
        return
    with to.status(Text(description), spinner="dots" if to.encoding.startswith("utf") else "line") as spinner:
        yield lambda text: spinner.update(Text(plain(f"{description}: {text}", to)))


def print_embedding(report: EmbedReport, store: object) -> None:
    """Counts of each space, the first failures, and the closing line."""
    columns = ["space", "encoder", "embedded", "distinct", "unchanged", "missing", "failed", "truncated"]
    rows = [(name, s.encoder, *(f"{getattr(s, column):,}" for column in columns[2:])) for name, s in report.spaces.items()]
    print_table(columns, rows, numeric=columns[2:])
    for name, space_report in report.spaces.items():
        if space_report.cut:
            say(f"{name}: {_cut(space_report.cut)}")
    for space, item, stage, reason in report.failures[:5]:
        say(f"failed: {item} ({space}, {stage}): {reason}")
    failed = sum(s.failed for s in report.spaces.values())
    if failed > 5:
        say(f"  … {counted(failed, 'failure')} in all; embedstore info {store} --failures lists those that left no vector")
    print_columns(report.types)
    for note in report.notes:
        say(f"note: {note}")
    if report.removed:
        say(f"{report.removed:,} items that the dataset does not have were removed")
    elif report.absent:
        say(f"{report.absent:,} other items of the store are not in this dataset and stay; --prune removes them")
    missing = sum(s.missing for s in report.spaces.values())
    shares = ", ".join(f"{stage} {share:.0%}" for stage, share in report.shares.items())
    say(
        f"{counted(report.items, 'item')} ({report.added:,} new, {report.updated:,} updated), {missing:,} missing, "
        f"{failed:,} failed in {report.seconds:.1f} s: {report.items_per_s:,.0f} items/s, "
        f"bound by {report.bound_by} (busy: {shares})" + (f"; {report.advice}" if report.advice else "")
    )


def print_columns(types: Mapping[str, str]) -> None:
    """The metadata columns with their types."""
    if types:
        say(f"columns: {', '.join(f'{name} ({kind})' for name, kind in types.items())}")


def _cut(cut: Mapping[str, Any]) -> str:
    """What is left of shortened vectors, in words."""
    recall, kept = cut["recall_at_10"], f"{cut['kept']} of {cut['of']} numbers of a vector are kept"
    if not recall:
        return f"{kept}; {cut['sample']:,} new vectors are too few to measure the recall that is lost"
    return (
        f"{kept}; recall@10 against the full ones {recall['value']:.3f} [{recall['low']:.3f}, {recall['high']:.3f}], "
        f"{1 - recall['value']:.1%} lost, on {cut['sample']:,} new vectors"
    )


def told(space: Mapping[str, Any]) -> str:
    """The column, the prompts and the licence of a space, in words; nothing where it has none."""
    words = [f"the texts of column {space['column']!r}"] if "column" in space else []
    words += [f"items have the prompt {space['prompt']!r}"] if "prompt" in space else []
    words += [f"queries have the prompt {space['query_prompt']!r}"] if "query_prompt" in space else []
    words += [f"licence of the weights: {space['license']}"] if "license" in space else []
    return "; ".join(words)


def print_training(report: TrainReport) -> None:
    """Scores of the head beside its baselines, and the ladder if there is one."""
    if report.ladder:
        _print_ladder(report.ladder, report.task)
    inputs = " + ".join(report.inputs)
    chosen = f": {report.learned['chosen']}" if "chosen" in report.learned else ""
    title = f"{report.kind}{chosen} ({inputs})"
    _print_scores(title, report.metrics, report.baselines, report.gain, report.task, report.inputs)
    sizes = ", ".join(f"{count:,} {part}" for part, count in report.items.items() if part != "test")
    classes = f"{counted(report.classes, 'class', 'classes')}; " if report.classes else ""
    say(
        f"{classes}{report.evaluation}; fitted on {sizes}{_learned(report.learned)}; "
        f"fit {report.fit_seconds:.1f} s, {report.seconds:.1f} s with baselines{_crossed(report.out_of_fold)} and scores. "
        f"Saved as head {report.head!r}."
    )
    if len(report.seeds) > 1:
        low, high, mean = min(report.seeds), max(report.seeds), sum(report.seeds) / len(report.seeds)
        say(f"over {len(report.seeds)} seeds: {next(iter(report.metrics))} {mean:.3f}, from {low:.3f} to {high:.3f}")
    _print_certainty(report.certainty)
    _print_changes(report.balance)
    _print_targets(report.targets)
    _print_tuning(report.tuning)
    _print_shots(report.shots)
    _print_notes(report.notes, report.report)


def _print_certainty(found: Certainty | None) -> None:
    if found is not None:
        what = "classes in a set" if found.classes else "wide"
        each = " in each class" if found.per_class else ""
        say(f"coverage {found.target:g}{each}: measured {found.coverage}; {found.size} {what} on average")


def _crossed(kept: Mapping[str, Any]) -> str:
    """What the out-of-fold predictions cost, in words; nothing where cross-validation made them anyway."""
    return f", {kept['folds']} folds kept ({kept['seconds']:.1f} s)" if kept.get("seconds") else ""


def print_evaluation(report: EvaluationReport) -> None:
    """Every metric of a saved head, and its baselines."""
    _print_scores(f"{report.kind} ({report.head})", report.metrics, report.baselines, report.gain, report.task)
    print_table(["metric", "value [95 %]"], [(name, str(score)) for name, score in report.metrics.items()])
    say(f"{report.evaluation}; {report.seconds:.1f} s.")
    _print_certainty(report.certainty)
    _print_targets(report.targets)
    _print_notes(report.notes, report.report)


def print_comparison(report: CompareReport) -> None:
    """Candidates, the best first."""
    from embedstore.training.tasks.base import task_called

    task = task_called(report.task)
    rows: list[tuple[Any, ...]] = []
    for one in report.candidates:
        scores = (str(one.metrics[name]) for name in task.headlines)
        behind = "best" if one.behind is None else f"{one.behind}" + ("" if one.behind.certain_gain else ", not certain")
        searched = [str(one.search["map"]) if one.search else ""] if any(c.search for c in report.candidates) else []
        rows.append((one.name, *scores, behind, *searched, "?" if one.ms is None else f"{one.ms:.1f}", f"{one.bytes:,}"))
    search = ["search, mAP [95 %]"] if any(c.search for c in report.candidates) else []
    lead = f"behind, in {task.lead}"
    titles = [f"{title} [95 %]" for title in task.headlines.values()]
    print_table(["inputs", *titles, lead, *search, "ms/item", "bytes/item"], rows, numeric=["ms/item", "bytes/item"])
    say(f"{report.head} heads on {report.items:,} items; {report.evaluation}; {report.seconds:.1f} s.")
    _print_notes(report.notes, "")


def _print_scores(
    name: str,
    metrics: Mapping[str, Score],
    baselines: Mapping[str, Mapping[str, Score]],
    gain: tuple[str, Score],
    task_name: str,
    inputs: Sequence[str] = (),
) -> None:
    from embedstore.reports.data import METRIC_NAMES
    from embedstore.training.tasks.base import task_called

    task = task_called(task_name)
    alone = {task.linear_on(one): f"linear ({one})" for one in inputs}
    table = [(name, metrics), *((alone.get(label, task.title(label)), scores) for label, scores in baselines.items())]
    shown = task.headlines
    print_table(
        ["head", *(f"{title} [95 %]" for title in shown.values())], [(n, *(str(s[m]) for m in shown)) for n, s in table]
    )
    verdict = "" if gain[1].low > 0 or gain[1].high < 0 else ": no certain difference"
    say(f"gain in {METRIC_NAMES.get(task.lead, task.lead)} over {gain[0]}, paired: {gain[1]}{verdict}")


def _print_ladder(ladder: Sequence[Step], task_name: str) -> None:
    from embedstore.reports.data import METRIC_NAMES
    from embedstore.training.tasks.base import task_called

    lead = task_called(task_name).lead
    rows = []
    for step in ladder:
        gain = "" if step.gain is None else f"{step.gain.value:+z.3f} [{step.gain.low:+z.3f}, {step.gain.high:+z.3f}]"
        rows.append((step.name, str(step.score), gain, f"{step.seconds:.1f}", "kept" if step.kept else step.note))
    print_table(
        ["step", f"{METRIC_NAMES.get(lead, lead)}, out of fold", "gain over the step kept", "s", ""], rows, numeric=["s"]
    )


def _print_changes(balance: Mapping[str, Any] | None) -> None:
    """What helping rare classes changed, beside the same head without it."""
    if balance is None:
        return
    from embedstore.evaluation.metrics import Score
    from embedstore.reports.data import METRIC_NAMES

    kinds = ("without", "with", "change")
    rows = [(METRIC_NAMES.get(name, name.replace("_", " ")), found) for name, found in balance["metrics"].items()]
    rows += [(f"recall of {name}", found) for name, found in balance["recall"].items()]
    table = [(name, *(str(Score.from_dict(found[kind])) for kind in kinds)) for name, found in rows]
    print_table([f"balance: {balance['how']}", "without [95 %]", "with [95 %]", "change, paired [95 %]"], table)


def _print_targets(targets: Mapping[str, TargetScores]) -> None:
    """The most telling scores of each of several targets, beside those of the head that it would have alone."""
    from embedstore.training.tasks.base import ALONE, KNN, task_called

    rows = []
    for name, found in targets.items():
        task = task_called(found.task)
        others = [found.baselines.get(other, {}) for other in (task.constant, KNN, ALONE)]
        for metric, title in task.headlines.items():
            cells = (scores.get(metric) for scores in (found.metrics, *others, found.change))
            rows.append((name, title, *(None if cell is None else str(cell) for cell in cells)))
    titles = ["this head", "constant", "kNN", "the target alone", "change over alone, paired"]
    kept = [k for k in range(len(titles)) if any(row[k + 2] is not None for row in rows)]
    if rows:
        table = [(*row[:2], *(row[k + 2] for k in kept)) for row in rows]
        print_table(["target", "score", *(f"{titles[k]} [95 %]" for k in kept)], table)


def _print_tuning(tuning: Mapping[str, Any] | None) -> None:
    """The best parameters, and what they gained over the head as it comes."""
    if tuning is None:
        return
    from embedstore.evaluation.metrics import Score
    from embedstore.reports.data import METRIC_NAMES
    from embedstore.training.tuning_report import told

    metric, gain = METRIC_NAMES.get(tuning["metric"], tuning["metric"]), Score.from_dict(tuning["gain"])
    verdict = "" if gain.low > 0 or gain.high < 0 else ": no certain difference"
    say(
        f"tuned by {tuning['trials']} trials ({tuning['by']}, {tuning['seconds']:.1f} s): trial {tuning['best']}, "
        f"{told(tuning['params']) or 'the head as it comes'}; {metric} {tuning['value']:.3f} out of fold in training, "
        f"{tuning['default_value']:.3f} as it comes"
    )
    say(f"gain of tuning in {metric} on the test items, paired: {gain}{verdict}")


def _print_shots(curve: ShotCurve | None) -> None:
    """Accuracy over the number of items a class."""
    if curve is None:
        return
    names = list(dict.fromkeys(name for point in curve.points for name in point.accuracy))
    rows = []
    for point in curve.points:
        cells = [str(point.accuracy[name]) if name in point.accuracy else "" for name in names]
        rows.append((f"{point.shots}", *cells, str(point.lead) if point.lead else ""))
    print_table(["shots", *names, "gain over the best other"], rows, numeric=["shots"])
    say(
        f"shots: items of each class to fit on; accuracy over {curve.draws} draws, each judged on up to {curve.judged:,} others"
    )


def _print_notes(notes: Sequence[str], report: str) -> None:
    for note in notes:
        say(f"note: {note}")
    if report:
        say(f"report: {report}")


def _learned(values: Mapping[str, Any]) -> str:
    """What the head chose, in a few words."""
    words = []
    for name, value in values.items():
        if name == "chosen":
            continue
        parts = value.items() if isinstance(value, dict) else ()
        words.append(f"{name} " + (", ".join(f"{k} {v:.2f}" for k, v in parts) if parts else f"{value:.2g}"))
    return "".join(f"; {word}" for word in words)


def print_hits(result: SearchResult, columns: Sequence[str]) -> None:
    """Results as a table."""
    at = ["at"] if any(hit.piece for hit in result.results) else []
    rows = [
        (
            hit.rank,
            f"{hit.score:.3f}",
            hit.id,
            *(str(hit.piece or "") for _ in at),
            *(_short(hit.metadata.get(c), LIMITS.get(c, 60)) for c in columns),
        )
        for hit in result.results
    ]
    print_table(["#", "score", "id", *at, *columns], rows, numeric=["#", "score"], trimmed=list(LIMITS))
    took = sum(result.took_ms.values())
    used = result.index
    kind = (
        "exact" if used["exact"] else f"{used['type']}, recall@{used['at']} {used['recall']:.3f} (at least {used['low']:.3f})"
    )
    by = f" (alignment {result.alignment!r})" if result.alignment else ""
    say(f"{counted(len(result.results), 'result')} from space {result.space!r}{by}, {kind}, in {took:.0f} ms")
    if result.aligned:
        say(f"Aligned spaces that this can search too: --space {', --space '.join(result.aligned)}")
    if result.note:
        say(f"note: {result.note}", stderr=True)


def print_predictions(predictions: Predictions) -> None:
    """One line an item."""
    rows: list[tuple[Any, ...]] = []
    lacking = any(predictions.missing)
    found = predictions.to_rows()
    probability = ["probability"] if any("probability" in row for row in found) and not predictions.targets else []
    for row in found:
        sure = [f"{row['probability']:.3f}"] if probability else []
        certain = [", ".join(map(str, row["set"]))] if predictions.sets else []
        certain += [f"{row['low']:.4g}", f"{row['high']:.4g}"] if predictions.intervals else []
        said = ", ".join(map(str, row["prediction"])) if isinstance(row["prediction"], list) else row["prediction"]
        told = [_told(row, name) for name in predictions.targets] or [said]
        partner = [row["with"]] if predictions.partners else []
        cells = [row["id"], *partner, *told, *sure, *certain, *([", ".join(row.get("missing", ()))] if lacking else [])]
        if predictions.explanations:
            cells += [", ".join(f"{name} {value:+.2f}" for name, value in row["contributions"].items())]
            cells += [", ".join(f"{near['id']} ({near['label']})" for near in row["nearest"])]
        rows.append(tuple(cells))
    more = ["contributions", "nearest training items"] if predictions.explanations else []
    missing = ["missing input"] if lacking else []
    certainty = [*(["set"] if predictions.sets else []), *(["low", "high"] if predictions.intervals else [])]
    said = predictions.targets or ["prediction"]
    partner = ["with"] if predictions.partners else []
    columns = ["id", *partner, *said, *probability, *certainty, *missing, *more]
    print_table(columns, rows, numeric=[*probability, "low", "high"])
    for item, reason in predictions.unusable:
        say(f"unusable: {item}: {reason}", stderr=True)


def _told(row: Mapping[str, Any], target: str) -> str:
    """What is predicted of one of several targets, and how probable it is where that is known."""
    value, probability = row["prediction"][target], row.get("probability", {}).get(target)
    return f"{value:.4g}" if probability is None else f"{value} ({probability:.3f})"


def _short(value: Any, limit: int) -> str:
    text = "" if value is None else " ".join(str(value).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
