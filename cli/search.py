"""`search`: one question, or a whole file of vectors."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from embedstore.retrieval.search_options import BATCHED, SearchOptions

from .from_options import takes
from .opening import opened
from .options import SECONDS, AllowModel, Json, NoCheck, Store, Where, WhereTimeout, names

ONE_QUESTION = ("words", *(field.name for field in fields(SearchOptions) if field.name not in BATCHED), "fingerprint")
"""Parameters that a search of many queries does not take."""


@takes(SearchOptions)
def search(
    context: typer.Context,
    store: Store,
    words: Annotated[list[str] | None, typer.Argument(metavar="TEXT", help="Search by these words, as --text does.")] = None,
    text: Annotated[list[str] | None, typer.Option(help="Search by words. Queries may be repeated and mixed.")] = None,
    image: Annotated[list[Path] | None, typer.Option(readable=False, help="Search by an image file.")] = None,
    audio: Annotated[list[Path] | None, typer.Option(readable=False, help="Search by a sound file.")] = None,
    video: Annotated[list[Path] | None, typer.Option(readable=False, help="Search by a video file.")] = None,
    id: Annotated[list[str] | None, typer.Option("--id", help="Search by an item of the store.")] = None,
    vector: Annotated[Path | None, typer.Option(readable=False, help="Search by a vector in .npy or .npz.")] = None,
    fingerprint: Annotated[str | None, typer.Option(help="Fingerprint of the encoder that made --vector.")] = None,
    like: Annotated[list[str] | None, typer.Option(help="Id of an example; may be repeated.")] = None,
    unlike: Annotated[list[str] | None, typer.Option(help="Id of an example of what is not wanted.")] = None,
    weights: Annotated[str | None, typer.Option(help="One number for each query, separated by commas.")] = None,
    *,
    where: Where = None,
    where_timeout: WhereTimeout = SECONDS,
    no_check: NoCheck = False,
    columns: Annotated[str | None, typer.Option(help="Columns to show, separated by commas.")] = None,
    batch: Annotated[str | None, typer.Option(help="Many queries: a .npy of shape (m, dim), or a space of the store.")] = None,
    out: Annotated[Path | None, typer.Option(readable=False, help="With --batch: .parquet, .csv or .jsonl to write.")] = None,
    allow_model: AllowModel = None,
    json: Json = False,
    **given: Any,
) -> None:
    """Find the nearest items to texts, images, items or vectors, by cosine."""
    import embedstore as es
    from embedstore.errors import UsageError

    from . import render

    held = opened(store, where_timeout=where_timeout, allow_model=allow_model, no_check=no_check)
    if batch is not None:
        if extra := [_written(name) for name in ONE_QUESTION if _given(context, name)]:
            raise UsageError(f"--batch is a search of its own: leave out {', '.join(extra)}.")
        with render.status("searching") as say:
            alike = {name: value for name, value in given.items() if name in BATCHED}
            done = es.search_batch(held, batch, out, where=where, **alike, on_progress=say)
        render.print_json(done.to_dict()) if json else render.say(str(done))
        return
    if out is not None:
        raise UsageError("--out belongs to --batch; one question's results are printed (--json for machines).")
    if fingerprint is not None and vector is None:
        raise UsageError("--fingerprint belongs to --vector: it says which encoder made that vector.")
    shown = names(columns)
    texts = ["text"] if "text" in held.items.column_types() else []
    table = shown or [*texts, *held.items.metadata_columns()[:3]]
    given |= {"text": [*_text(words or []), *(text or [])], "image": image, "audio": audio, "video": video, "id": id}
    given |= {"like": like, "unlike": unlike, "weights": _numbers(weights), "where": where, "columns": shown if json else table}
    with render.status("searching"):
        queried = es.QueryVector.load(vector, fingerprint) if vector else None
        result = es.search(held, **given, vector=queried)
    render.print_json(result.to_dict()) if json else render.print_hits(result, table)


def _text(words: list[str]) -> list[str]:
    """Words that were typed one after the other, as one text; none where there are none."""
    from embedstore.errors import UsageError
    from embedstore.sources.base import MODALITY_OF
    from embedstore.sources.files import absent

    if len(words) == 1 and Path(words[0]).is_file():
        raise UsageError(f"{words[0]} is a file. Search by it: --image {words[0]}. Search by its name: --text {words[0]}")
    if len(words) == 1 and Path(words[0]).suffix.lower() in MODALITY_OF:
        raise UsageError(f"{absent(words[0])} Search by its name: --text {words[0]}")
    return [" ".join(words)] if words else []


def _written(name: str) -> str:
    """A parameter as it is typed."""
    return "TEXT" if name == "words" else f"--{name.replace('_', '-')}"


def _given(context: typer.Context, name: str) -> bool:
    """Whether a parameter was said, be it with its default value."""
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


def _numbers(given: str | None) -> list[float] | None:
    from embedstore.errors import UsageError

    try:
        return [float(number) for number in names(given) or []] or None
    except ValueError:
        raise UsageError(f"--weights should be numbers separated by commas, such as 1,0.5. Got {given!r} instead.") from None
