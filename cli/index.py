"""`index`: build an index and say how right it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedstore.retrieval.index_options import IndexOptions

from .from_options import takes
from .options import Json, Store

if TYPE_CHECKING:
    from embedstore.retrieval.index import IndexReport


@takes(IndexOptions)
def index(
    store: Store,
    space: Annotated[str | None, typer.Argument(metavar="SPACE", help="The space; may be left out where there is one.")] = None,
    *,
    json: Json = False,
    **given: Any,
) -> None:
    """Build an index, tuned on held-out queries until its recall is proven."""
    import embedstore as es

    from . import render

    with render.status("indexing") as say:
        report = es.index(store, space, **given, on_progress=say)
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
