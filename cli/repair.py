"""`repair`: damaged parts out, what they held embedded again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedstore._core.words import counted
from embedstore.ingest.repair_options import RepairOptions

from .from_options import takes
from .options import AllowModel, AudioColumn, IdColumn, ImageColumn, Json, Store, TextColumn, VideoColumn, named_columns

if TYPE_CHECKING:
    from embedstore.ingest.repair import RepairReport
    from embedstore.store.salvage import Damage


@takes(RepairOptions)
def repair(
    store: Store,
    dataset: Annotated[
        str | None, typer.Argument(metavar="DATASET", help="What was embedded into the store; without it nothing is embedded.")
    ] = None,
    id_column: IdColumn = None,
    image_column: ImageColumn = None,
    text_column: TextColumn = None,
    audio_column: AudioColumn = None,
    video_column: VideoColumn = None,
    *,
    allow_model: AllowModel = None,
    json: Json = False,
    **given: Any,
) -> None:
    """Take damaged parts out of a store, and embed again what they held."""
    import embedstore as es

    from . import render

    columns = named_columns(id=id_column, image=image_column, text=text_column, audio=audio_column, video=video_column)
    with render.embedding_progress("repairing") as on_progress:
        given |= {"columns": columns, "allow_models": allow_model or ()}
        report = es.repair(store, dataset, **given, on_progress=on_progress)
    render.print_json(report.to_dict()) if json else _print_report(report, store)


def _print_report(report: RepairReport, store: Path) -> None:
    from . import render

    damage = report.damage
    if not damage.files and report.embedded is None and not report.notes:
        render.say("Every part is as it was committed: nothing to repair.")
        return
    for file in damage.files:
        render.say(f"damaged: {file}")
    if damage.files:
        render.say(_lost(damage))
    if report.embedded is not None:
        spaces = [f"{space.embedded:,} in space {name}" for name, space in report.embedded.spaces.items()]
        render.say(f"Embedded again: {', '.join(spaces)}.")
    for note in report.notes:
        render.say(f"note: {note}")
    render.say(f"Look at the whole store: embedstore verify {store}")


def _lost(damage: Damage) -> str:
    lost = [counted(damage.items, "item")] * bool(damage.items)
    lost += [f"{counted(vectors, 'vector')} of space {name}" for name, vectors in damage.vectors.items()]
    return f"Lost: {' and '.join(lost) or 'nothing'}. What is whole in damaged parts was kept."
