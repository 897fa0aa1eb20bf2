"""``embedstore export``: the items of a store in another engine or format."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedstore.exporting.export_options import ExportOptions

from .from_options import takes
from .opening import opened
from .options import SECONDS, Json, NoCheck, Store, Where, WhereTimeout

if TYPE_CHECKING:
    from embedstore.exporting.report import ExportReport


@takes(ExportOptions)
def export(
    store: Store,
    out: Annotated[str, typer.Argument(metavar="OUT", help="A folder or file; for a server its address.")],
    *,
    to: Annotated[str, typer.Option(metavar="TARGET", help="The kind of target; see below.")],
    where: Where = None,
    where_timeout: WhereTimeout = SECONDS,
    no_check: NoCheck = False,
    json: Json = False,
    **given: Any,
) -> None:
    """Write ids, vectors and metadata to another engine or format, and check what arrived."""
    import embedstore as es

    from . import render

    with render.embedding_progress(f"exporting to {to}") as progress:
        held = opened(store, where_timeout=where_timeout, no_check=no_check)
        report = es.export(held, to=to, out=out, where=where, **given, on_progress=progress)
    render.print_json(report.to_dict()) if json else print_export(report)


def print_export(report: ExportReport) -> None:
    """What is in the target, and how the closing check came out."""
    from . import render

    rows = []
    for name, space in report.spaces.items():
        recall = report.check.recall[name]
        scores = [str(score) if score else "–" for score in (recall.exact, recall.default)]
        rows.append((name, space.column, f"{space.vectors:,}", f"{space.missing:,}", space.dim, space.dtype, *scores))
    k = max((recall.k for recall in report.check.recall.values()), default=0)
    columns = ["space", "column", "vectors", "missing", "dim", "dtype", f"recall@{k} exact [95 %]", "by default [95 %]"]
    render.print_table(columns, rows, numeric=["vectors", "missing", "dim"])
    for note in report.notes:
        render.say(f"note: {note}")
    equal = "to the bit" if report.check.equality == "bits" else "within rounding, at unit length"
    render.say(
        f"checked in {report.check_seconds:.1f} s: {report.check.items:,} items there; {report.check.sampled:,} read back, "
        f"their metadata equal, their vectors equal {equal}"
    )
    changes = report.changes
    rate = report.items / report.seconds if report.seconds else 0
    render.say(
        f"{report.items:,} items in {report.out}: {changes.written:,} written, {changes.unchanged:,} unchanged, "
        f"{changes.removed:,} removed in {report.seconds:.1f} s ({rate:,.0f} items/s)"
    )
