"""``embedstore embed``: a dataset into a store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from embedstore._core.message_parts import asked_with
from embedstore.ingest.embed_options import EmbedOptions

from .from_options import takes
from .options import (
    AllowModel,
    AudioColumn,
    IdColumn,
    ImageColumn,
    Json,
    TextColumns,
    Types,
    VideoColumn,
    column_types,
    named_columns,
    named_texts,
)


@takes(EmbedOptions)
def embed(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="What to embed, of one of the kinds below.")],
    store: Annotated[Path, typer.Option(readable=False, help="The store's folder; made if it does not exist.")],
    image: Annotated[list[str] | None, typer.Option(help="Encoder of images: NAME or SPACE=NAME; may be repeated.")] = None,
    text: Annotated[list[str] | None, typer.Option(help="Encoder of texts.")] = None,
    audio: Annotated[list[str] | None, typer.Option(help="Encoder of sounds.")] = None,
    video: Annotated[list[str] | None, typer.Option(help="Encoder of videos.")] = None,
    message: Annotated[
        list[str] | None,
        typer.Option(metavar="SPACE={COLUMN}+{COLUMN}=ENCODER", help="Encoder of several columns at once, one vector an item."),
    ] = None,
    id_column: IdColumn = None,
    image_column: ImageColumn = None,
    text_column: TextColumns = None,
    audio_column: AudioColumn = None,
    video_column: VideoColumn = None,
    type: Types = None,
    *,
    allow_model: AllowModel = None,
    json: Json = False,
    **given: Any,
) -> None:
    """Embed DATASET into a store; run it again to add, update or resume."""
    import embedstore as es

    from . import render

    encoders = {"image": image, "text": text, "audio": audio, "video": video}
    spaces = {modality: _spaces(modality, names) for modality, names in encoders.items() if names}
    texts = named_texts(text_column, spaces.get("text", ()))
    columns = named_columns(id=id_column, image=image_column, **texts, audio=audio_column, video=video_column)
    given |= spaces
    given |= {"message": dict(map(asked_with, message))} if message else {}
    given |= {"columns": columns, "types": column_types(type), "allow_models": allow_model or ()}
    with render.embedding_progress(f"embedding {dataset.rstrip('/').rpartition('/')[2]}") as on_progress:
        report = es.embed(dataset, store, **given, on_progress=on_progress)
    render.print_json(report.to_dict()) if json else render.print_embedding(report, store)


def _spaces(modality: str, names: list[str]) -> dict[str, str]:
    """``SPACE=ENCODER`` or ``ENCODER`` (the space is then called like the modality)."""
    from embedstore.errors import UsageError

    spaces: dict[str, str] = {}
    for given in names:
        space, equals, encoder = given.partition("=")
        space, encoder = (space, encoder) if equals else (modality, given)
        if space in spaces:
            raise UsageError(f"Two encoders for space {space!r}. Name the second: --{modality} NAME={encoder}")
        spaces[space] = encoder
    return spaces
