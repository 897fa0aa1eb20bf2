"""One function a command. Each parses, calls the library, prints; imports happen inside."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from embedstore._core.words import counted

from .opening import SECONDS, AllowModel, NoCheck, WhereTimeout, opened

Store = Annotated[Path, typer.Argument(readable=False, metavar="STORE", help="The store's folder.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, nothing else.")]
Where = Annotated[str | None, typer.Option(help="SQL over the metadata, such as \"label = 'food' and price < 10\".")]
DATASET = (
    "A folder; a .csv, .tsv, .jsonl, .parquet or .arrow; Parquet parts ('part-*.parquet', or their folder); WebDataset "
    "tars ('data-{000..012}.tar', 'data-*.tar', or their folder); a "
    "folder saved by Hugging Face datasets, or hf:NAME[/CONFIG][:SPLIT]; a .txt or .lst of paths; one media file; - for JSON "
    "lines on standard input. Files, tables, tars and lists may be URLs."
)
PROMPT = "Put before every text instead of the model's own: one of its prompts by name, or a text ('query: '); '' for none."
HEAD_KINDS = "linear, ridge, knn, kernel, late, weighted, gated, bilinear, attention, gbdt, ensemble, or auto: a ladder."
Types = Annotated[
    list[str] | None,
    typer.Option(
        "--type",
        metavar="COLUMN=TYPE",
        help="What a metadata column is: text, number, integer, boolean, date or datetime; date:%d.%m.%Y gives a format. "
        "May be repeated.",
    ),
]
IdColumn = Annotated[str | None, typer.Option(help="Column with the ids, if not 'id'.")]
ImageColumn = Annotated[str | None, typer.Option(help="Column with image paths or bytes, if not 'image'.")]
TextColumn = Annotated[str | None, typer.Option(help="Column with texts, if not 'text'.")]
AudioColumn = Annotated[str | None, typer.Option(help="Column with sounds, if not 'audio'.")]
VideoColumn = Annotated[str | None, typer.Option(help="Column with videos, if not 'video'.")]
SavedHead = Annotated[
    str | None,
    typer.Argument(metavar="HEAD", help="A saved head: its name, or its folder in another store, OTHER.store/heads/NAME."),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]


def register(app: typer.Typer) -> None:
    """Add every command to `app`."""
    from .align import align
    from .compact import compact
    from .dedup import dedup
    from .eval_search import eval_search
    from .examples import epilog
    from .import_ import import_vectors
    from .index import index
    from .remove import remove
    from .repair import repair
    from .search import search

    for command in (
        demo,
        embed,
        import_vectors,
        info,
        index,
        search,
        train,
        evaluate,
        predict,
        align,
        eval_search,
        dedup,
        verify,
        repair,
        remove,
        compact,
        encoders,
    ):
        name = command.__name__.replace("_", "-")
        app.command(name, no_args_is_help=command not in (demo, encoders), epilog=epilog(name))(command)


def demo(
    store: Annotated[Path, typer.Option(readable=False, help="Where to make the demo's store.")] = Path("demo.store"),
    device: Device = "auto",
) -> None:
    """Embed 600 real images and texts, train heads, search: the whole thing in a minute."""
    from .demo import run

    run(store, device)


def embed(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help=DATASET)],
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


def named_columns(**named: str | None) -> dict[str, str] | None:
    """What is in which column, where they have other names; None where they have not."""
    return {word: column for word, column in named.items() if column} or None


def column_types(given: list[str] | None) -> dict[str, str] | None:
    """``COLUMN=TYPE`` as a mapping."""
    from embedstore.errors import UsageError

    types: dict[str, str] = {}
    for text in given or []:
        column, equals, kind = text.rpartition("=")
        if not equals or not column:
            raise UsageError(f"--type {text}: expected COLUMN=TYPE, such as version=text.")
        types[column] = kind
    return types or None


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


def info(
    store: Store,
    failures: Annotated[bool, typer.Option("--failures", help="List every failure with its reason.")] = False,
    json: Json = False,
) -> None:
    """Show what a store holds."""
    import embedstore as es

    from . import render

    opened = es.Store.open(store)
    document = opened.info()
    listed = [{"space": s.name, **row} for s in opened.spaces.values() for row in s.failures.to_pylist()]
    if failures:
        document["failures"] = [{k: row[k] for k in ("space", "id", "stage", "reason")} for row in listed]
    if json:
        render.print_json(document)
        return
    columns = ["space", "vectors", "missing", "failed", "dim", "dtype", "encoder", "fingerprint"]
    rows = [
        (name, *(f"{space[c]} (declared)" if c == "encoder" and "declared" in space else space[c] for c in columns[1:]))
        for name, space in document["spaces"].items()
    ]
    render.print_table(columns, rows, numeric=columns[1:5])
    heads = ", ".join(document["heads"]) or "none"
    metadata = ", ".join(f"{name} ({kind})" for name, kind in document["columns"].items()) or "none"
    render.say(
        f"{counted(document['items'], 'item')}; columns: {metadata}; heads: {heads}; generation {document['generation']}"
    )
    for name, space in document["spaces"].items():
        if told := render.told(space):
            render.say(f"{name}: {told}")
    for row in document.get("failures", ()):
        render.say(f"failed: {row['id']} ({row['space']}, {row['stage']}): {row['reason']}")


def train(
    store: Store,
    target: Annotated[str | None, typer.Argument(metavar="TARGET", help="Metadata column with the labels.")] = None,
    head: Annotated[str, typer.Option(help=HEAD_KINDS)] = "linear",
    inputs: Annotated[str | None, typer.Option(help="Spaces to use, separated by commas; default all.")] = None,
    where: Where = None,
    where_timeout: WhereTimeout = SECONDS,
    no_check: NoCheck = False,
    columns: Annotated[str | None, typer.Option(help="Metadata columns to use as one more input.")] = None,
    cv: Annotated[int | None, typer.Option(help="Score by K-fold cross-validation.")] = None,
    task: Annotated[str | None, typer.Option(help="classification or regression; default by the target.")] = None,
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
            inputs=_names(inputs),
            where=where,
            columns=_names(columns),
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


def _names(given: str | None) -> list[str] | None:
    """Names separated by commas."""
    return [name.strip() for name in given.split(",") if name.strip()] if given else None


def _head(store: Path, given: str | None) -> str:
    """The head that was named; an error that lists those there are where none was."""
    import embedstore as es
    from embedstore.errors import UsageError

    if given is None:
        heads = ", ".join(es.Store.open(store).heads) or "none yet: embedstore train makes one"
        raise UsageError(f"Name a head of {store}. Heads: {heads}.")
    return given


def evaluate(
    store: Store,
    head: SavedHead = None,
    where: Where = None,
    where_timeout: WhereTimeout = SECONDS,
    no_check: NoCheck = False,
    group: Annotated[str | None, typer.Option(help="Column; the intervals draw its values instead of items.")] = None,
    seen: Annotated[bool, typer.Option("--seen", help="Count items that the head was fitted on, too.")] = False,
    report: Annotated[Path | None, typer.Option(readable=False, help="Write an HTML report here.")] = None,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
    json: Json = False,
) -> None:
    """Score a saved head on labelled items that it was not fitted on."""
    import embedstore as es

    from . import render

    with render.status("evaluating"):
        held = opened(store, where_timeout=where_timeout, no_check=no_check)
        result = es.evaluate(held, _head(store, head), where=where, group=group, seen=seen, report=report, seed=seed)
    render.print_json(result.to_dict()) if json else render.print_evaluation(result)


def predict(
    store: Store,
    head: SavedHead = None,
    dataset: Annotated[
        Path | None, typer.Argument(readable=False, metavar="DATASET", help="New items: a folder, table or file.")
    ] = None,
    id: Annotated[list[str] | None, typer.Option("--id", help="A stored item; may be repeated. Default: all.")] = None,
    where: Where = None,
    where_timeout: WhereTimeout = SECONDS,
    no_check: NoCheck = False,
    out: Annotated[Path | None, typer.Option(readable=False, help="Write a .csv, .parquet or .jsonl, not the screen.")] = None,
    id_column: IdColumn = None,
    image_column: ImageColumn = None,
    text_column: TextColumn = None,
    audio_column: AudioColumn = None,
    video_column: VideoColumn = None,
    explain: Annotated[bool, typer.Option("--explain", help="What each input contributed, and the nearest items.")] = False,
    device: Device = "auto",
    allow_model: AllowModel = None,
    json: Json = False,
) -> None:
    """Predict with a saved head, on stored items or on new files."""
    import embedstore as es

    from . import render

    columns = named_columns(id=id_column, image=image_column, text=text_column, audio=audio_column, video=video_column)
    with render.status("predicting"):
        held = opened(store, where_timeout=where_timeout, allow_model=allow_model, no_check=no_check)
        predictions = es.predict(
            held, _head(store, head), dataset, ids=id or None, where=where, columns=columns, explained=explain, device=device
        )
    if out is not None:
        render.say(f"{counted(len(predictions.ids), 'prediction')} written to {predictions.save(out)}", stderr=json)
    if json:
        render.print_json(predictions.to_dict())
    elif out is None:
        render.print_predictions(predictions)


def verify(store: Store, json: Json = False) -> None:
    """Compare every byte of a store with what was committed; exit code 1 if anything is damaged."""
    import embedstore as es

    from . import render

    report = es.verify(es.Store.open(store))
    if json:
        render.print_json(report.to_dict())
    else:
        for line in [*report.problems, *(f"note: {note}" for note in report.notes)]:
            render.say(line)
        state = "clean" if report.clean else f"{counted(len(report.problems), 'problem')}"
        render.say(f"{counted(report.files, 'file')}, {report.bytes / 1e6:,.1f} MB read: {state}")
    sys.exit(0 if report.clean else 1)


def encoders(json: Json = False) -> None:
    """List the encoders that --image, --text, --audio and --video take."""
    from embedstore.encoders import ALIASES, ENCODERS
    from embedstore.encoders.base import describe
    from embedstore.encoders.names import LICENSES

    from . import render

    described = {name: describe(name) for name in ENCODERS.names()} | {n: f"short for {full}" for n, full in ALIASES.items()}
    rows = [(name, text, LICENSES.get(name)) for name, text in described.items()]
    if json:
        render.print_json({"encoders": [{"name": name, "description": text, "license": own} for name, text, own in rows]})
        return
    render.print_table(["encoder", "what it is", "licence of the weights"], rows)
    typer.echo("A model's own licence, where its makers say it, is shown by embedstore info once it has embedded something.")
