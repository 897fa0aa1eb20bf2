"""``embedstore predict``: what a saved head says of stored or new items."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from embedstore._core.words import counted
from embedstore.training.predict_options import PredictOptions

from .from_options import takes
from .opening import opened, saved_head
from .options import (
    SECONDS,
    AllowModel,
    AudioColumn,
    IdColumn,
    ImageColumn,
    Json,
    NoCheck,
    Store,
    TextColumns,
    VideoColumn,
    Where,
    WhereTimeout,
    named_columns,
    named_texts,
)


@takes(PredictOptions)
def predict(
    store: Store,
    head: Annotated[
        str | None,
        typer.Argument(metavar="HEAD", help="A saved head: its name, OTHER.store/heads/NAME, or an ONNX file of one."),
    ] = None,
    dataset: Annotated[
        Path | None, typer.Argument(readable=False, metavar="DATASET", help="New items: a folder, table or file.")
    ] = None,
    *,
    where: Where = None,
    where_timeout: WhereTimeout = SECONDS,
    no_check: NoCheck = False,
    out: Annotated[Path | None, typer.Option(readable=False, help="Write a .csv, .parquet or .jsonl, not the screen.")] = None,
    id_column: IdColumn = None,
    image_column: ImageColumn = None,
    text_column: TextColumns = None,
    audio_column: AudioColumn = None,
    video_column: VideoColumn = None,
    allow_model: AllowModel = None,
    json: Json = False,
    **given: Any,
) -> None:
    """Predict with a saved head, on stored items or on new files."""
    import embedstore as es

    from . import render

    with render.status("predicting"):
        held = opened(store, where_timeout=where_timeout, allow_model=allow_model, no_check=no_check)
        texts = named_texts(text_column, held.spaces)
        columns = named_columns(id=id_column, image=image_column, **texts, audio=audio_column, video=video_column)
        predictions = es.predict(held, saved_head(store, head), dataset, where=where, columns=columns, **given)
    if out is not None:
        render.say(f"{counted(len(predictions.ids), 'prediction')} written to {predictions.save(out)}", stderr=json)
    if json:
        render.print_json(predictions.to_dict())
    elif out is None:
        render.print_predictions(predictions)
