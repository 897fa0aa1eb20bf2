"""``embedstore train``: a head on cached vectors."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from embedstore.training.train_options import TrainOptions

from .from_options import takes
from .opening import opened
from .options import SECONDS, Json, NoCheck, Store, Where, WhereTimeout, names, numbers, whole_numbers


@takes(TrainOptions)
def train(
    store: Store,
    target: Annotated[
        str | None, typer.Argument(metavar="TARGET", help="Metadata column with the labels; several: A,B; none for matching.")
    ] = None,
    *,
    where: Where = None,
    where_timeout: WhereTimeout = SECONDS,
    no_check: NoCheck = False,
    no_report: Annotated[bool, typer.Option("--no-report", help="Do not write report.html.")] = False,
    json: Json = False,
    **given: Any,
) -> None:
    """Train a head on cached vectors, score it beside its baselines, save it with a report."""
    import embedstore as es

    from . import render

    given |= {name: names(given[name]) for name in ("inputs", "columns")}
    given["weights"] = numbers(given["weights"], "weights")
    given["shots"] = whole_numbers(given["shots"], "--shots")
    with render.status("training") as say:
        held = opened(store, where_timeout=where_timeout, no_check=no_check)
        report = es.train(held, target, where=where, report=not no_report, **given, on_progress=say)
    render.print_json(report.to_dict()) if json else render.print_training(report)
