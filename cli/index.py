"""`index`: build an index and say how right it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .options import Json, Store

if TYPE_CHECKING:
    from embedstore.retrieval.index import IndexReport


def index(
    store: Store,
    space: Annotated[str | None, typer.Argument(metavar="SPACE", help="The space; may be left out where there is one.")] = None,
    recall: Annotated[float, typer.Option(help="What the lower 95 % bound of recall@AT has to pass.")] = 0.95,
    at: Annotated[int, typer.Option(help="The k of recall@k.")] = 10,
    memory: Annotated[str | None, typer.Option(help="Budget for building and for the index, such as 4GB.")] = None,
    latency: Annotated[str | None, typer.Option(help="Wanted at the 95th percentile, such as 5ms.")] = None,
    factory: Annotated[str | None, typer.Option(help="Flat, HNSW32, IVF4096,SQ8, IVF4096,RaBitQ …; default by size.")] = None,
    queries: Annotated[str | None, typer.Option(help="Real queries: a space, or a .npy of shape (m, dim).")] = None,
    device: Annotated[str, typer.Option(help="cpu, or cuda to build a graph on a GPU.")] = "cpu",
    json: Json = False,
) -> None:
    """Build an index, tuned on held-out queries until its recall is proven."""
    import embedstore as es

    from . import render

    options = {
        "recall": recall,
        "at": at,
        "memory": memory,
        "latency": latency,
        "factory": factory,
        "queries": queries,
        "device": device,
    }
    with render.status("indexing") as say:
        report = es.index(store, space, **options, on_progress=say)  # type: ignore[arg-type]
    render.print_json(report.to_dict()) if json else print_index(report)


def print_index(report: IndexReport) -> None:
    """The operating points, then what it costs."""
    from . import render

    if report.exact:
        render.say(f"{report.n:,} vectors of {report.dim}: no index, search is exact ({report.why})")
        return
    rows = []
    for level in report.levels:
        for name, score in level.recall.items():
            used = "used" if level is report.level() else ""
            efforts = f"{level.setting.effort}" + (f" ({level.setting.again})" if level.setting.again else "")
            setting = f"{efforts} / {level.setting.candidates}"
            times = [f"{ms:.2f}" for ms in (level.mean_ms, level.p50_ms, level.p95_ms)]
            rows.append((f"{level.target:g}", name, str(score), setting, *times, used))
    columns = [
        "target",
        "queries",
        f"recall@{report.at} [95 %]",
        "effort (again) / re-ranked",
        "mean ms",
        "p50 ms",
        "p95 ms",
        "",
    ]
    render.print_table(columns, rows, numeric=["target", "mean ms", "p50 ms", "p95 ms"])
    threads = "thread" if report.threads == 1 else "threads"
    render.say(
        f"{report.type} over {report.n:,} vectors of {report.dim}: {report.qps:,.0f} queries/s one by one, "
        f"{report.batch_qps:,.0f} in batches on {report.threads} {threads} (exact: {1000 / report.exact_ms:,.0f}); "
        f"{report.bytes_per_vector:,.0f} bytes a vector; "
        f"built in {report.build_seconds:.1f} s, tuned in {report.tune_seconds:.1f} s"
    )
    for note in report.notes:
        render.say(f"note: {note}")
