"""`import_vectors`: store precomputed vectors under the encoder that the caller names. The wiring."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore._core.column_types import declared
from embedstore._core.keys import hash_strings
from embedstore._version import __version__
from embedstore.encoders.names import FRAMES, EncoderName, inner_name
from embedstore.encoders.trust import absolute_name
from embedstore.errors import DuplicateIdError, SourceError, UsageError
from embedstore.ingest.import_options import ImportOptions
from embedstore.ingest.import_pieces import PieceImporter, unit_of
from embedstore.ingest.importer import ImportedSpace, ImportReport, VectorImporter
from embedstore.ingest.report import ProgressCallback, kept_note
from embedstore.ingest.typed_batches import Typed
from embedstore.registry import ENCODERS
from embedstore.sources.base import renamed
from embedstore.sources.vectors.arrays import Matrix
from embedstore.sources.vectors.open import open_vectors
from embedstore.sources.vectors.piece_columns import PieceVectors
from embedstore.sources.vectors.source import VectorSource
from embedstore.spec import MODALITIES, UNNAMED, EncoderSpec
from embedstore.store import Store, StoreReader, path_of
from embedstore.store.space import Space
from embedstore.store.writer import StoreWriter

__all__ = ["ImportReport", "import_vectors"]

TWO_TOWERS = ("openclip", "clap")
"""Encoder families whose images or sounds can be compared with texts, which a name alone tells."""


def import_vectors(
    source: str | os.PathLike[str] | npt.NDArray[Any],
    store: Store | str | os.PathLike[str],
    *,
    space: str | None = ImportOptions.space,
    encoder: str | None = ImportOptions.encoder,
    modality: str | None = ImportOptions.modality,
    ids: str | os.PathLike[str] | Sequence[str] | npt.NDArray[Any] | None = ImportOptions.ids,
    metadata: str | os.PathLike[str] | Mapping[str, Sequence[Any]] | None = ImportOptions.metadata,
    vector_column: str | None = ImportOptions.vector_column,
    types: Mapping[str, str] | None = ImportOptions.types,
    dtype: str | None = ImportOptions.dtype,
    normalized: bool | None = ImportOptions.normalized,
    add_items: bool = ImportOptions.add_items,
    strict: bool = ImportOptions.strict,
    on_progress: ProgressCallback | None = None,
) -> ImportReport:
    """Import vectors into a space which says that they were declared to be of an encoder, not computed by it here.

    Vectors are known by their bytes: the same ones again add nothing, changed ones replace what was there. A run that was
    killed is completed by the same call, to the same bytes as one that was not.

    Parameters
    ----------
    source : path or (n, dim) array
        ``.npy``, ``.npz``, Parquet, CSV, TSV, JSON lines, HDF5 (``FILE.h5:/dataset``), a folder as clip-retrieval or autofaiss
        write it, or an array of float16, float32 or float64.
    store : Store or path
        Made if it does not exist.
    space : str, optional
        Default: the modality. A source with two modalities makes the spaces ``SPACE-image`` and ``SPACE-text``.
    encoder : str, optional
        Which encoder made the vectors. If embedstore can load it, texts and files are encoded by it to search the space.
    modality : str, optional
        What the vectors are of; needed unless the source, the name of the space or the space that is there says it.
    ids : str, path or sequence, optional
        A column of the source or of `metadata`, a file, ``"row"`` for the numbers of the rows, or the ids. Default: a column
        ``id``, else the numbers of the rows.
    metadata : path or mapping, optional
        A table whose rows are those of the vectors.
    vector_column : str, optional
        The column or array that holds the vectors, if it is not plain. A column of Parquet may hold lists of vectors: the space
        keeps several of an item then, with the places in ``NAME.places``.
    types : mapping, optional
        Metadata column → its type, as `embedstore.embed` takes them.
    dtype : str, optional
        ``"float16"`` (default) or ``"float32"``: how vectors of a new space are stored.
    normalized : bool, optional
        Declare that vectors have unit length; others are failures.
    add_items : bool
        Let a further space of a store bring items that it does not hold yet.
    strict : bool
        Raise `PayloadError` on a part's first failure instead of recording it; nothing of that part is kept.
    on_progress : callable, optional
        Called with a `Progress` now and then.

    Returns
    -------
    ImportReport

    Raises
    ------
    FingerprintError
        The space holds vectors of another encoder, or computed ones.
    DuplicateIdError
        Naming both rows.
    SourceError, StoreError, UsageError
    """
    started = time.perf_counter()
    options = ImportOptions(
        space=space,
        encoder=encoder,
        modality=modality,
        ids=ids,
        metadata=metadata,
        vector_column=vector_column,
        types=types,
        dtype=dtype,
        normalized=normalized,
        add_items=add_items,
        strict=strict,
    )
    said = declared(types or {})
    found = open_vectors(source, ids=ids, metadata=metadata, vector_column=vector_column)
    made = not isinstance(store, Store) and not (path_of(store) / "store.json").exists()
    opened = store if isinstance(store, Store) else Store.open(store, create=True)
    report = ImportReport(items=found.count, notes=[*found.notes])
    with opened.writer(discard_if_empty=made) as writer:
        matrices = _named(found, writer.store, options)
        specs = _specs(matrices, writer.store, options)
        pieces = isinstance(found.matrices.get(""), PieceVectors)
        spaces = {name: _space(writer, name, specs[name], dtype, found.name, pieces=pieces) for name in matrices}
        others = len(writer.store) > 0 and any(name not in spaces for name in writer.store.spaces)
        _check_ids(found, writer.store, refuse_unknown=others and not add_items)
        report.spaces = {name: ImportedSpace(s.spec.name, s.fingerprint, s.dim, s.info.dtype) for name, s in spaces.items()}
        report.bytes = sum(m.shape[0] * m.shape[1] * m.itemsize for _, m in matrices.values())
        typed = Typed(found.name, writer.store.items.column_types(), said, first=0)
        found.leave_text(typed.known)
        kind = PieceImporter if pieces else VectorImporter
        importer = kind(
            found, {name: matrix for name, (_, matrix) in matrices.items()}, spaces, writer, report, typed, strict=strict
        )
        importer.import_all(on_progress or (lambda progress: None))
    report.notes += [*renamed(found.kept_names()), *typed.notes()]
    for name, counts in report.spaces.items():
        report.notes += kept_note(name, counts.kept)
    report.notes += _notes(found, report, options)
    report.seconds = time.perf_counter() - started
    return report


def _named(found: VectorSource, store: StoreReader, options: ImportOptions) -> dict[str, tuple[str, Matrix]]:
    """Space name → (modality, matrix)."""
    space, modality = options.space, options.modality
    if "" not in found.matrices:
        if modality is not None and modality not in found.matrices:
            raise UsageError(f"{found.name} has no vectors of {modality}, but of {' and '.join(found.matrices)}.")
        chosen = {m: matrix for m, matrix in found.matrices.items() if modality in (None, m)}
        several = len(chosen) > 1 and space is not None
        return {f"{space}-{m}" if several else space or m: (m, matrix) for m, matrix in chosen.items()}
    if modality is None and space in store.spaces:
        modality = store.spaces[str(space)].spec.modality
    modality = modality or (space if space in MODALITIES else None)
    if modality is None:
        raise UsageError(
            f"Say what {found.name} holds vectors of: --modality {', '.join(MODALITIES[:-1])} or {MODALITIES[-1]}."
        )
    return {space or modality: (modality, found.matrices[""])}


def _specs(matrices: Mapping[str, tuple[str, Matrix]], store: StoreReader, options: ImportOptions) -> dict[str, EncoderSpec]:
    """What is declared of each space; what is not said is as it was said before."""
    specs = {}
    encoder = options.encoder and absolute_name(options.encoder)
    normalized = options.normalized
    for name, (modality, matrix) in matrices.items():
        before = store.spaces[name].spec if name in store.spaces and store.spaces[name].spec.declared else None
        if before is not None and before.dim != matrix.shape[1]:
            raise SourceError(
                f"{matrix.name} holds vectors of {matrix.shape[1]} numbers, but space {name!r} of {before.dim}. "
                "Give them a space of their own: --space NAME."
            )
        if before is not None and encoder == absolute_name(before.name):
            encoder = before.name
        named = encoder or (before.name if before is not None and before.family != UNNAMED else None)
        full = EncoderName.spelled_out(named or "")
        family, _, model = full.partition(":")
        aligned = f"declared:{full or '+'.join(matrices)}" if len(matrices) > 1 else _alignment(full)
        specs[name] = EncoderSpec(
            name=named or "unnamed",
            family=family or UNNAMED,
            model=model if named else name,
            weights="declared",
            modality=modality,
            dim=matrix.shape[1],
            normalized=before.normalized if normalized is None and before is not None else bool(normalized),
            alignment=before.alignment if before is not None and not encoder else aligned,
            declared=True,
        )
    return specs


def _alignment(encoder: str) -> str | None:
    """The spaces that vectors of `encoder`, spelled out, can be compared with; None where its name does not tell."""
    if (inner := inner_name(encoder)) is not None:
        images = EncoderName.spelled_out(inner)
        return _alignment(images) or f"{FRAMES}declared:{images}"
    return f"declared:{encoder}" if encoder.partition(":")[0] in TWO_TOWERS else None


def _space(writer: StoreWriter, name: str, spec: EncoderSpec, dtype: str | None, source: str, *, pieces: bool) -> Space:
    held = writer.store.spaces.get(name)
    stored = "float16" if held is None else held.info.dtype
    provenance = {"declared": f"imported from {os.path.basename(source)}", "embedstore": __version__}
    unit = unit_of(spec) if pieces else None
    space = writer.ensure_space(name, spec, dtype=dtype or stored, provenance=provenance, pieces=unit)
    if pieces != (space.unit is not None):
        here, given = ("several vectors", "one") if space.unit is not None else ("one vector", "several")
        raise SourceError(
            f"Space {name!r} has {here} an item, but {source} has {given}. Give them a space of their own: --space NAME."
        )
    return space


def _check_ids(found: VectorSource, store: StoreReader, *, refuse_unknown: bool) -> None:
    """Before anything is written: no id twice, and none that the store lacks where that is not wanted.

    Raises
    ------
    DuplicateIdError, UsageError
    """
    if found.ids is None and not refuse_unknown:
        return
    import pyarrow as pa
    import pyarrow.compute as pc

    ids = pa.chunked_array(found.id_blocks(65536), pa.string())
    if pc.count_distinct(ids).as_py() < len(ids):
        codes = np.asarray(ids.combine_chunks().dictionary_encode().indices)
        second = int(np.setdiff1d(np.arange(len(codes)), np.unique(codes, return_index=True)[1])[0])
        first = int(np.flatnonzero(codes == codes[second])[0])
        raise DuplicateIdError(
            f"{found.name}: rows {first} and {second} (from 0) both have the id {ids[first].as_py()!r}. "
            "Make ids unique, name another column (--ids NAME), or number the rows (--ids row)."
        )
    if not refuse_unknown:
        return
    known = np.concatenate([store.items.id_table.lookup(hash_strings(chunk.to_pylist())) for chunk in ids.chunks]) >= 0
    if not known.all():
        row = int(np.flatnonzero(~known)[0])
        raise UsageError(
            f"{store.path} has no item for {int((~known).sum()):,} of the {len(ids):,} ids of {found.name}: the first is "
            f"{ids[row].as_py()!r} in row {row} (from 0). Say where the ids are (--ids), or add these items (--add-items)."
        )


def _notes(found: VectorSource, report: ImportReport, options: ImportOptions) -> Iterator[str]:
    encoder = options.encoder
    if encoder and (family := EncoderName.parse(encoder).family) not in ENCODERS:
        yield (
            f"embedstore cannot load an encoder called {encoder!r} (there is no {family!r}): the vectors can be searched by id "
            "and by vector, and trained on, but not searched by texts or files."
        )
    if found.ids is None and options.ids is None:
        replaced = sum(space.replaced for space in report.spaces.values())
        also = f" {replaced:,} vectors replaced those of the same number." if replaced else ""
        yield f"Ids are the numbers of the rows, from 0.{also} --ids names a column or a file with others."
