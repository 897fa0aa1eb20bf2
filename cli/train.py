"""``embedstore train``: a head on cached vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .opening import opened
from .options import SECONDS, Json, NoCheck, Store, Where, WhereTimeout, names


def train(
    store: Store,
    target: Annotated[str | None, typer.Argument(metavar="TARGET", help="Metadata column with the labels.")] = None,
    head: Annotated[str, typer.Option(metavar="KIND", help="One of the heads below.")] = "linear",
    inputs: Annotated[str | None, typer.Option(help="Spaces to use, separated by commas; default all.")] = None,
    where: Where = None,
    where_timeout: WhereTimeout = SECONDS,
    no_check: NoCheck = False,
    columns: Annotated[str | None, typer.Option(help="Metadata columns to use as one more input.")] = None,
    cv: Annotated[int | None, typer.Option(help="Score by K-fold cross-validation.")] = None,
    task: Annotated[str | None, typer.Option(metavar="NAME", help="One of the tasks below; default by the target.")] = None,
    group: Annotated[str | None, typer.Option(help="Column; items with one value stay together in splits.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the saved head; default the target.")] = None,
    seed: Annotated[int, typer.Option(help="Of splits, folds and bootstrap.")] = 0,
    seeds: Annotated[int, typer.Option(help="How often a head that depends on its seed is fitted.")] = 5,
    device: Annotated[str, typer.Option(help="cpu, auto, cuda or cuda:N.")] = "cpu",
    no_report: Annotated[bool, typer.Option("--no-report", help="Do not write report.html.")] = False,
    plots: Annotated[Path | None, typer.Option(readable=False, help="Folder for the report's figures as PNG files.")] = None,
    json: Json = False,
) -> None:
    """Train a head on cached vectors, score it beside its baselines, save it with a report."""
    import embedstore as es

    from . import render

    with render.status("training") as say:
        report = es.train(
            opened(store, where_timeout=where_timeout, no_check=no_check),
            target,
            head=head,
            inputs=names(inputs),
            where=where,
            columns=names(columns),
            task=task,
            group=group,
            cv=cv,
            name=name,
            seed=seed,
            seeds=seeds,
            device=device,
            report=not no_report,
            plots=plots,
            on_progress=say,
        )
    render.print_json(report.to_dict()) if json else render.print_training(report)
