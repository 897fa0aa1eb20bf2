"""`embed`: a dataset through encoders into a store. The wiring of sources, encoders, engine and store."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from embedstore._core.column_types import declared, word_of
from embedstore._core.message_parts import spelled
from embedstore.encoders import Encoder, load_encoder
from embedstore.encoders.base import pieces_of
from embedstore.encoders.cut import NEIGHBOURS, Cut, neighbours_kept
from embedstore.encoders.trust import absolute_name, refuse_foreign
from embedstore.errors import UsageError
from embedstore.indexing.measure import interval
from embedstore.ingest.claims import SpaceState
from embedstore.ingest.embed_options import EmbedOptions
from embedstore.ingest.engines import local
from embedstore.ingest.engines.base import Job
from embedstore.ingest.report import EmbedReport, Progress, ProgressCallback, SpaceReport, kept_note
from embedstore.ingest.stages import Clock
from embedstore.ingest.text_columns import declared_texts, message_columns, text_columns
from embedstore.ingest.typed_batches import Known, Typed
from embedstore.sources import (
    ArrowSource,
    Dataset,
    LinesSource,
    Source,
    TableSource,
    WebDatasetSource,
    leave_text,
    open_source,
)
from embedstore.sources.manifests import Manifest
from embedstore.spec import MESSAGE, MODALITIES, TEXT, EncoderSpec
from embedstore.store import Store, StoreReader, path_of
from embedstore.store.access import Access
from embedstore.store.writer import StoreWriter

EncoderName = str | Encoder

PROMPTED = (TEXT, MESSAGE)
"""Modalities whose encoders take a prompt that is asked for."""
_WITH_COLUMNS = (ArrowSource, LinesSource, TableSource, WebDatasetSource)

__all__ = ["EmbedReport", "Progress", "embed"]


def embed(
    dataset: Dataset,
    store: Store | str | os.PathLike[str],
    *,
    image: EncoderName | Mapping[str, EncoderName] | None = None,
    text: EncoderName | Mapping[str, EncoderName] | None = None,
    audio: EncoderName | Mapping[str, EncoderName] | None = None,
    video: EncoderName | Mapping[str, EncoderName] | None = None,
    message: Mapping[str, EncoderName] | None = None,
    columns: Mapping[str, str] | None = None,
    types: Mapping[str, str] | Known | None = None,
    dtype: str | None = EmbedOptions.dtype,
    device: str = EmbedOptions.device,
    precision: str = EmbedOptions.precision,
    runtime: str = EmbedOptions.runtime,
    workers: int | None = EmbedOptions.workers,
    max_pixels: int | None = EmbedOptions.max_pixels,
    rehash: bool = EmbedOptions.rehash,
    retry_failed: bool = EmbedOptions.retry_failed,
    strict: bool = EmbedOptions.strict,
    prune: bool = EmbedOptions.prune,
    timeout: float = EmbedOptions.timeout,
    prompt: str | None = EmbedOptions.prompt,
    query_prompt: str | None = EmbedOptions.query_prompt,
    force: bool = EmbedOptions.force,
    allow_models: Sequence[str | os.PathLike[str]] = EmbedOptions.allow_models,
    root: str | os.PathLike[str] | None = EmbedOptions.root,
    on_progress: ProgressCallback | None = None,
) -> EmbedReport:
    """Embed `dataset` into `store`; what is there and unchanged is left alone, so it can be stopped and run again.

    Parameters
    ----------
    dataset : path, table or Source
        What `embedstore.sources.open_source` takes: a folder, a table, a data frame, a media file, WebDataset tars, a Hugging
        Face dataset, a list of paths, ``"-"`` (JSON lines on standard input), or any `Source`.
    store : Store or path
        Made if it does not exist.
    image, text, audio, video : str, Encoder, or mapping of space name to one of them
        The encoder of that modality; the space is called like the modality unless a mapping names it. With none given,
        the store's own encoders are used again.
    message : mapping of str to str or Encoder, optional
        ``"SPACE={COLUMN}+{COLUMN}"`` → encoder that makes one vector of several columns, such as
        ``{"both={image}+{text}": "st:Qwen/Qwen3-VL-Embedding-2B"}``. A column is a modality, or a metadata column of texts.
    columns : mapping, optional
        ``"id"`` or modality → name of the column (in tars: of the extension or metadata key). Or a space of `text` → the column
        whose texts it embeds, which stays a metadata column; a space keeps its column.
    types : mapping, optional
        Metadata column → ``"text"``, ``"number"``, ``"integer"``, ``"boolean"``, ``"date"`` or ``"datetime"``; dates that are
        not written as ISO 8601 has them say how: ``"date:%d.%m.%Y"``. Default: as the store holds the column; else, in files
        that do not say, number where every value is a plain decimal number, and text.
    dtype : str, optional
        ``"float16"`` (default) or ``"float32"``: how vectors of a new space are stored.
    device, precision, runtime : str
        See `embedstore.encoders.base.EncoderRequest`.
    workers : int, optional
        Threads that read and decode; default: one per CPU.
    max_pixels : int, optional
        Larger images are failures.
    rehash : bool
        Read every file and URL, even if its size and mtime are as recorded.
    retry_failed : bool
        Try unchanged payloads again that failed before.
    strict : bool
        Raise `PayloadError` on a part's first failure, new or known, instead of recording it; nothing of that part is kept.
    prune : bool
        In the end remove the items of the store that `dataset` does not have, unless it has none of them.
    timeout : float
        Seconds that reading from a URL may take.
    prompt, query_prompt : str, optional
        What is put before every text, and before every query later, instead of the model's own: the name of one of its prompts
        (one word) or a text; the empty text for none. Default: what the space records, else the model's own.
    force : bool
        Cut vectors (``MODEL@256``) of a model that does not say that they may be.
    allow_models : sequence of path
        Models that are loaded though the store names them by a relative path, or holds them.
    root : path, optional
        The folder that payloads have to lie in, links resolved: for tables that somebody else made. What a path or URL leads to
        outside of it is a failure, and is not read.
    on_progress : callable, optional
        Called with a `Progress` now and then.

    Returns
    -------
    EmbedReport

    Raises
    ------
    FingerprintError
        A space holds vectors of another encoder.
    SourceError, StoreError, EncoderError, UsageError
    """
    options = EmbedOptions(
        image=image,
        text=text,
        audio=audio,
        video=video,
        message=message,
        columns=columns,
        types=types,
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
        allow_models=allow_models,
        root=root,
    )
    known = types if isinstance(types, Known) else Known({})
    said = declared(types or {}) if not isinstance(types, Known) else {}
    made = not isinstance(store, Store) and not (path_of(store) / "store.json").exists()
    bare = bool(options.text_columns or options.messages) or not (options.encoders or made)  # the store may have such spaces
    source = open_source(dataset, options.source_columns, timeout=timeout, root=options.confined, bare=bare)
    opened = store if isinstance(store, Store) else Store.open(store, create=True, allow_models=options.allow_models)
    started = time.perf_counter()
    with opened.writer(discard_if_empty=made) as writer:
        named = options.encoders or _recorded_encoders(writer.store, source, opened.access)
        texts = text_columns(options.text_columns, options.source_columns, writer.store, named)
        messages = message_columns(options.messages, options.source_columns)
        columns_of = {n: messages.get(n, () if of == MESSAGE else (texts[n] or of,)) for n, (of, _) in named.items()}
        _refuse_absent(named, columns_of, source)
        if options.encoders or all(texts.values()):
            for name, column in ((n, c) for n, columns in columns_of.items() for c in columns if c not in MODALITIES):
                said |= declared_texts({name: column} if column not in known.kinds else {}, said)
        states = _states(writer, _loaded(named, writer.store, options, messages), dtype, texts)
        stored = writer.store.items.column_types() | dict(known.kinds)
        typed = Typed(source.name, stored, said, owner=known.owner, exact=known.exact)
        report = EmbedReport(spaces={name: SpaceReport(state.encoder.spec.name) for name, state in states.items()})
        seen = np.zeros(writer.next_row if prune else 0, bool)
        say = on_progress or (lambda progress: None)
        _run(Job(source, typed, writer, writer.store, states, options, say, report, seen, Clock()))
    report.seconds = time.perf_counter() - started
    return report


def _run(job: Job) -> None:
    """Have an engine do the job, then complete its report."""
    source, writer, report, started = job.source, job.writer, job.report, time.perf_counter()
    leave_text(source, job.typed.known)
    local.run(job)
    writer.publish_spaces()
    report.absent = len(job.store) - (report.items - report.added)
    if job.options.prune and report.absent:
        _prune(job)
    for name, state in job.states.items():
        report.spaces[name].distinct = state.encoded
        report.spaces[name].truncated = state.encoder.truncated
        if isinstance(state.encoder, Cut):
            report.spaces[name].cut = _loss(state.encoder)
    report.notes = [*getattr(source, "notes", ()), *_manifest_notes(source, job.store, job.states), *job.typed.notes()]
    for name, counts in report.spaces.items():
        report.notes += kept_note(name, counts.kept)
    report.types = {name: word_of(kind) for name, kind in job.typed.kinds.items()}
    report.shares = job.clock.shares(time.perf_counter() - started, job.options.threads)


def _loss(encoder: Cut) -> dict[str, Any]:
    """What cutting the vectors of this run costs, measured on a sample of them."""
    right = neighbours_kept(encoder.sample.vectors, encoder.spec.dim)
    recall = interval(right, NEIGHBOURS).to_dict() if len(right) else None
    return {**encoder.spec.preprocessing["cut"], "sample": len(encoder.sample.vectors), "recall_at_10": recall}


def _prune(job: Job) -> None:
    """Remove the items that the source does not have."""
    source, store, report = job.source, job.store, job.report
    if unread := getattr(source, "unread", None):
        raise UsageError(f"{source.name} could not be read whole, so --prune removed nothing; {unread}")
    if report.absent == len(store):
        raise UsageError(
            f"None of the {len(store):,} items that {store.path} held is in {source.name}, so --prune removed nothing. "
            "If that is meant, embed into a new store."
        )
    rows = store.items.rows
    job.writer.commit(removed=rows[~job.seen[rows]])
    report.removed, report.absent = report.absent, 0


def _manifest_notes(source: Source, store: StoreReader, states: Mapping[str, SpaceState]) -> list[str]:
    """Of each table that the dataset holds and that was not read: the command to embed it instead."""
    encoders = {name: (state.encoder.spec.modality, state.encoder.spec.name) for name, state in states.items()}
    found: list[Manifest] = getattr(source, "manifests", [])
    return [
        f"{table.path} is a table of files of this folder (column {next(iter(table.columns.values()))!r}) and was not read; "
        f"to embed it, with its columns, instead: {table.command(str(store.path), encoders)}"
        for table in found
    ]


def _recorded_encoders(store: StoreReader, source: Source, access: Access) -> dict[str, tuple[str, EncoderName]]:
    """The encoders of the spaces that the source has a modality, or may have a column, for."""
    found: dict[str, tuple[str, EncoderName]] = {
        name: (space.spec.modality, space.spec.name)
        for name, space in store.spaces.items()
        if all(column in source.modalities or column in space.info.texts for column in space.info.columns)
        and not space.spec.declared
    }
    if not found:
        raise UsageError(
            f"Name an encoder for a modality of {source.name} ({', '.join(source.modalities) or 'none'}), such as "
            "--image effnet-lite0 or --text minilm. 'embedstore encoders' lists them."
        )
    for _, encoder in found.values():
        refuse_foreign(str(encoder), store.path, access.allow_models)
    return found


def _recorded(store: StoreReader, space: str, encoder: str) -> EncoderSpec | None:
    """What the store knows of the encoder called `encoder` that made the vectors of `space`."""
    spec = store.spaces[space].spec if space in store.spaces else None
    same = spec is not None and absolute_name(spec.name) == absolute_name(encoder)
    return spec if spec is not None and same and not spec.declared else None


def _loaded(
    named: Mapping[str, tuple[str, EncoderName]],
    store: StoreReader,
    options: EmbedOptions,
    messages: Mapping[str, Sequence[str]],
) -> dict[str, Encoder]:
    """Space name → encoder; those of texts and of `messages` (space → columns) are asked for the prompts."""
    prompts = {"prompt": options.prompt, "query_prompt": options.query_prompt}
    _refuse_prompts(named, prompts)
    loaded: dict[str, Encoder] = {}
    for name, (modality, encoder) in named.items():
        if isinstance(encoder, str):
            loaded[name] = load_encoder(
                encoder,
                modality,
                device=options.device,
                precision=options.precision,
                runtime=options.runtime,
                max_pixels=options.max_pixels,
                force=options.force,
                recorded=_recorded(store, name, encoder),
                parts=messages.get(name, ()),
                **(prompts if modality in PROMPTED else {}),
            )
        else:
            loaded[name] = encoder
            if modality == MESSAGE and encoder.spec.parts != messages[name]:
                raise UsageError(f"{encoder.spec.label} is no encoder of {spelled(messages[name])}.")
    return loaded


def _refuse_prompts(named: Mapping[str, tuple[str, EncoderName]], asked: Mapping[str, str | None]) -> None:
    given = [f"--{name.replace('_', '-')}" for name, text in asked.items() if text is not None]
    if given and not any(modality in PROMPTED and isinstance(encoder, str) for modality, encoder in named.values()):
        raise UsageError(f"{given[0]} is for encoders of texts that are given by name, and there is none. Add --text ENCODER.")


def _refuse_absent(named: Mapping[str, tuple[str, EncoderName]], columns: Mapping[str, Sequence[str]], source: Source) -> None:
    """Refuse encoders of spaces one of whose `columns` is a modality that the source does not have."""
    for encoder, modality in ((named[name][1], column) for name, wanted in columns.items() for column in wanted):
        if modality in MODALITIES and modality not in source.modalities:
            name = encoder if isinstance(encoder, str) else encoder.spec.name
            raise UsageError(
                f"{source.name} has no {modality} for encoder {name!r}; it has {', '.join(source.modalities)}."
                + (f" Name the column: --{modality}-column NAME." if isinstance(source, _WITH_COLUMNS) else "")
            )


def _states(
    writer: StoreWriter, encoders: Mapping[str, Encoder], dtype: str | None, texts: Mapping[str, str | None]
) -> dict[str, SpaceState]:
    states = {}
    for name, encoder in encoders.items():
        is_new = name not in writer.store.spaces
        stored = "float16" if is_new else writer.store.spaces[name].info.dtype
        provenance = encoder.provenance() if is_new else {}
        license = getattr(encoder, "license", None)
        space = writer.ensure_space(
            name,
            encoder.spec,
            dtype=dtype or stored,
            provenance=provenance,
            license=license,
            column=texts[name],
            pieces=pieces_of(encoder),
        )
        states[name] = SpaceState(space, encoder)
    return states
