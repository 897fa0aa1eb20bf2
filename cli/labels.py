"""``embedstore labels``: labels that are likely wrong, as a table, a file, a page or JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedstore._core.words import counted
from embedstore.training.labels_options import LabelsOptions

from .from_options import takes
from .opening import opened, saved_head
from .options import SECONDS, Json, NoCheck, SavedHead, Store, Where, WhereTimeout

if TYPE_CHECKING:
    from embedstore.training.labels import LabelReport

SHOWN = 20


@takes(LabelsOptions)
def labels(
    store: Store,
    head: SavedHead = None,
    *,
    where: Where = None,
    where_timeout: WhereTimeout = SECONDS,
    no_check: NoCheck = False,
    out: Annotated[Path | None, typer.Option(readable=False, help="Write every one to a .csv, .parquet or .jsonl.")] = None,
    json: Json = False,
    **given: Any,
) -> None:
    """Find labels that are likely wrong, by what a saved head says of items that it did not see."""
    import embedstore as es

    from . import render

    with render.status("looking at labels"):
        held = opened(store, where_timeout=where_timeout, no_check=no_check)
        report = es.labels(held, saved_head(store, head), where=where, **given)
    if out is not None:
        render.say(f"{counted(len(report.suspects), 'label')} written to {report.save(out)}", stderr=json)
    render.print_json(report.to_dict()) if json else _print_report(report)


def _print_report(report: LabelReport) -> None:
    from . import render

    alone = [f"only {name}" for name in report.inputs]
    rows = [
        (s.id, s.given, s.proposed, f"{s.quality:.3f}", f"{s.probability:.3f}", *(s.alone.get(name) for name in report.inputs))
        for s in report.suspects[:SHOWN]
    ]
    if rows:
        numeric = ["quality", "probability"]
        render.print_table(["id", "given", "proposed", *numeric, *alone], rows, numeric=numeric)
    if len(report.suspects) > SHOWN:
        render.say(f"  … {counted(len(report.suspects), 'label')} in all; all of them: --out wrong.csv, --report wrong.html")
    disagree = f"; the inputs of {report.disagree:,} items disagree (--disagree)" if report.inputs else ""
    render.say(
        f"{report.estimated:,} of {report.items:,} labels of {report.target!r} are estimated to be wrong, {report.held:,} are "
        f"held for wrong{disagree}; by the out-of-fold predictions of head {report.head!r}, {report.seconds:.1f} s"
    )
    for note in report.notes:
        render.say(f"note: {note}")
    if report.report:
        render.say(f"report: {report.report}")
