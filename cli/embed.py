"""``embedstore embed``: a dataset into a store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .options import (
    AllowModel,
    AudioColumn,
    Device,
    IdColumn,
    ImageColumn,
    Json,
    TextColumn,
    Types,
    VideoColumn,
    column_types,
    named_columns,
)

PROMPT = "Put before every text instead of the model's own: one of its prompts by name, or a text ('query: '); '' for none."


def embed(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="What to embed, of one of the kinds below.")],
    store: Annotated[Path, typer.Option(readable=False, help="The store's folder; made if it does not exist.")],
    image: Annotated[list[str] | None, typer.Option(help="Encoder of images: NAME or SPACE=NAME; may be repeated.")] = None,
    text: Annotated[list[str] | None, typer.Option(help="Encoder of texts.")] = None,
    audio: Annotated[list[str] | None, typer.Option(help="Encoder of sounds.")] = None,
    video: Annotated[list[str] | None, typer.Option(help="Encoder of videos.")] = None,
    id_column: IdColumn = None,
    image_column: ImageColumn = None,
    text_column: TextColumn = None,
    audio_column: AudioColumn = None,
    video_column: VideoColumn = None,
    type: Types = None,
    dtype: Annotated[str | None, typer.Option(help="float16 (default) or float32, for new spaces.")] = None,
    device: Device = "auto",
    precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    runtime: Annotated[str, typer.Option(help="auto (OpenVINO on a CPU if installed), torch, compile or openvino.")] = "auto",
    workers: Annotated[int | None, typer.Option(help="Threads that read and decode; default one a CPU.")] = None,
    max_pixels: Annotated[int | None, typer.Option(help="Larger images are failures.")] = None,
    rehash: Annotated[bool, typer.Option("--rehash", help="Read every file, whatever its size and mtime.")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try unchanged failures again.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first failure, new or known.")] = False,
    prune: Annotated[bool, typer.Option("--prune", help="Remove items of the store that DATASET does not have.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds that a read from a URL may take.")] = 60.0,
    root: Annotated[
        Path | None, typer.Option(readable=False, help="Read no payload outside this folder: for tables of others.")
    ] = None,
    prompt: Annotated[str | None, typer.Option(help=PROMPT)] = None,
    query_prompt: Annotated[str | None, typer.Option(help="The same before a query, recorded for searches.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Cut vectors (MODEL@256) though the model does not allow it.")] = False,
    allow_model: AllowModel = None,
    json: Json = False,
) -> None:
    """Embed DATASET into a store; run it again to add, update or resume."""
    import embedstore as es

    from . import render

    columns = named_columns(id=id_column, image=image_column, text=text_column, audio=audio_column, video=video_column)
    given = {"image": image, "text": text, "audio": audio, "video": video}
    named_spaces: dict[str, Any] = {m: _spaces(m, names) for m, names in given.items() if names}
    with render.embedding_progress(f"embedding {dataset.rstrip('/').rpartition('/')[2]}") as on_progress:
        report = es.embed(
            dataset,
            store,
            **named_spaces,
            columns=columns,
            types=column_types(type),
            dtype=dtype,
            device=device,
            precision=precision,
            runtime=runtime,
            workers=workers,
            max_pixels=max_pixels,
            rehash=rehash,
            retry_failed=retry_failed,
            strict=strict,
            prune=prune,
            timeout=timeout,
            prompt=prompt,
            query_prompt=query_prompt,
            force=force,
            allow_models=allow_model or (),
            root=root,
            on_progress=on_progress,
        )
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
