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
    names,
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
    from embedstore.training.saved import find_model

    from . import render

    given |= {"inputs": names(given["inputs"]), "classes": None if given["classes"] is None else names(given["classes"]) or []}
    asked, dataset = _asked(store, head, dataset, zero_shot=given["classes"] is not None)
    with render.status("predicting"):
        held = opened(store, where_timeout=where_timeout, allow_model=allow_model, no_check=no_check)
        inputs = () if asked is None or text_column is None else find_model(held, asked)[1].inputs
        texts = named_texts(text_column, {*held.spaces, *inputs})
        columns = named_columns(id=id_column, image=image_column, **texts, audio=audio_column, video=video_column)
        predictions = es.predict(held, asked, dataset, where=where, columns=columns, **given)
    if out is not None:
        render.say(f"{counted(len(predictions.ids), 'prediction')} written to {predictions.save(out)}", stderr=json)
    if json:
        render.print_json(predictions.to_dict())
    elif out is None:
        render.print_predictions(predictions)


def _asked(store: Path, head: str | None, dataset: Path | None, *, zero_shot: bool) -> tuple[str | None, Path | None]:
    """The head and the dataset; with classes there is no head, and what stands in its place is the dataset."""
    if not zero_shot:
        return saved_head(store, head), dataset
    if dataset is not None:
        return head, dataset  # one too many, which `predict` says
    return None, None if head is None else Path(head)
