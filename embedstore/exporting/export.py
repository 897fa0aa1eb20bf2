"""`export`: the items of a store in another engine or format, and a check of what arrived there."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from embedstore._core.arguments import as_type, shown
from embedstore._core.result_files import distinct
from embedstore._core.threads import bounded
from embedstore.errors import UsageError
from embedstore.exporting.base import Exporter, Int, PieceColumns, Plan, VectorColumn
from embedstore.exporting.checking import check
from embedstore.exporting.export_options import ExportOptions
from embedstore.exporting.outgoing import Outgoing
from embedstore.exporting.report import ExportReport, SpaceCounts
from embedstore.ingest.report import Progress, ProgressCallback
from embedstore.registry import EXPORTERS
from embedstore.spec import MODALITIES
from embedstore.store import Store, path_of
from embedstore.store.space import Space

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ExportReport", "export"]


@bounded()
def export(
    store: Store | str | Path,
    *,
    to: str,
    out: str | os.PathLike[str],
    space: str | Sequence[str] | None = ExportOptions.space,
    where: str | None = ExportOptions.where,
    name: str | None = ExportOptions.name,
    dtype: str | None = ExportOptions.dtype,
    on_progress: ProgressCallback | None = None,
) -> ExportReport:
    """Write ids, vectors and metadata to another engine or format, then check what is there.

    The target becomes what the store is: the same export again writes what is new or changed, removes what was removed, and
    adds nothing twice. A killed one goes on.

    Parameters
    ----------
    store : Store or path
    to : str
        The kind of target: ``"parquet"``, ``"npy"``, ``"clip-retrieval"``, ``"lance"``, ``"qdrant"``, ``"milvus"``,
        ``"embedding-atlas"``, or what another package brings.
    out : path or address
        A folder or file; for a server its address, such as ``"http://localhost:6333"``.
    space : str or sequence of str, optional
        Spaces whose vectors go out; default all.
    where : str, optional
        SQL over the metadata columns: only these items. Others that the target holds are removed from it.
    name : str, optional
        Table or collection in the engine; default the store's name.
    dtype : str, optional
        ``"float16"`` or ``"float32"``; default as stored where the target can, else float32.
    on_progress : callable, optional
        Called with a `Progress`.

    Returns
    -------
    ExportReport

    Raises
    ------
    UsageError
        The target holds something else.
    FingerprintError
        It holds vectors of another encoder.
    OutputError
        It cannot be reached or written, or the closing check failed.
    MissingDependencyError

    Examples
    --------
    >>> es.export("shop.store", to="parquet", out="shop-parquet").check.recall["image"].exact  # doctest: +SKIP
    """
    options = ExportOptions(space=space, where=where, name=name, dtype=dtype)
    if not isinstance(out, str | os.PathLike):
        raise UsageError(f"out must be a path or an address. Got {shown(out)} instead.")
    exporter = EXPORTERS.get(as_type(to, str, "to"))(os.fspath(out))
    opened = store if isinstance(store, Store) else Store.open(path_of(store))
    started = time.perf_counter()
    plan, sources, rows = planned(opened, exporter, options)
    items = Outgoing(opened, rows, plan, sources)
    tell = on_progress or (lambda progress: None)
    with exporter:
        exporter.open(plan)
        changes = exporter.update(items, lambda done: tell(Progress(done, len(items), done)))
        seconds = time.perf_counter() - started
        found = check(exporter, items, plan)
    return ExportReport(
        to=to,
        out=exporter.where,
        name=plan.name,
        items=len(items),
        changes=changes,
        spaces={column.space: _counted(items, column) for column in plan.vectors},
        check=found,
        seconds=seconds,
        check_seconds=time.perf_counter() - started - seconds,
        notes=exporter.notes,
    )


def planned(store: Store, exporter: Exporter, options: ExportOptions) -> tuple[Plan, dict[str, str], Int]:
    """What goes out, the store's column for each metadata column, and the rows of the items.

    Raises
    ------
    UsageError
        An unknown space, a filter that is none, or nothing that the target has room for.
    """
    import pyarrow as pa

    asked = {name: store.space(name).spec for name in (store.spaces if options.spaces is None else options.spaces)}
    if not asked:
        raise UsageError(f"{store.path} has no vectors yet: nothing to export. Make some: embedstore embed DATASET --store …")
    chosen = exporter.spaces(asked)
    vectors = tuple(_column(store, exporter, name, options) for name in chosen)
    rows = store.items.rows if options.where is None else store.where(options.where)
    rows = _with_vectors(store, exporter, rows, chosen)
    types = store.items.column_types()
    columns = [name for name in types if name in MODALITIES] + store.items.metadata_columns()
    own = [*exporter.own_columns, *(name for column in vectors for name in column.names)]
    names = distinct([*own, *map(exporter.metadata_name, columns)])[len(own) :]
    schema = pa.schema([pa.field(name, _type_of(types[column])) for name, column in zip(names, columns, strict=True)])
    plan = Plan(
        name=options.name or _name_of(store),
        vectors=vectors,
        metadata=schema,
        items=len(rows),
        longest_id=store.items.longest_id(),
        last_row=store.manifest.next_row - 1,
    )
    return plan, dict(zip(names, columns, strict=True)), rows


def _column(store: Store, exporter: Exporter, name: str, options: ExportOptions) -> VectorColumn:
    wanted = options.dtype or store.space(name).dtype.name
    if options.dtype == "float16" and store.space(name).dtype.name != "float16":
        raise UsageError(f"Space {name!r} is stored as {store.space(name).dtype}; float16 would round it. Leave --dtype out.")
    held = wanted if wanted in exporter.dtypes else exporter.dtypes[-1]
    return VectorColumn(
        name, exporter.column_of(name), np.dtype(held), store.space(name).spec, _piece_columns(store.space(name), exporter)
    )


def _piece_columns(space: Space, exporter: Exporter) -> PieceColumns | None:
    """Where the pieces of a space go; None where it has none, or the target no room for them, which is told."""
    if space.pieces is None:
        return None
    if not exporter.keeps_pieces:
        exporter.notes.append(
            f"space {space.name!r} has several vectors an item: their mean is written here, all of them by --to parquet"
        )
        return None
    live = slice(None) if space.live is None else space.live
    places = None if np.isnan(space.pieces.places[live]).all() else f"{space.name}.places"
    mean = -(-len(space.pieces) // max(1, len(space)))
    # A power of two: slices keep their size, and stay as they are, when a few items come.
    return PieceColumns(f"{space.name}.pieces", places, 1 << (mean - 1).bit_length() if mean else 1)


def _with_vectors(store: Store, exporter: Exporter, rows: Int, spaces: Sequence[str]) -> Int:
    """`rows`, without items that miss a vector where the target cannot hold such ones; all are told."""
    for name in spaces:
        has = store.space(name).has(rows)
        if not has.all():
            left = int((~has).sum())
            what = "are left out" if exporter.needs_all else "stay without one"
            exporter.notes.append(f"{left:,} items have no vector in space {name!r} and {what}")
            rows = rows[has] if exporter.needs_all else rows
    return rows


def _counted(items: Outgoing, column: VectorColumn) -> SpaceCounts:
    vectors = items.count(column.column)
    return SpaceCounts(
        column=column.column,
        vectors=vectors,
        missing=len(items) - vectors,
        dim=column.dim,
        dtype=column.dtype.name,
        fingerprint=column.spec.fingerprint,
        encoder=column.spec.name,
    )


def _type_of(kind: pa.DataType) -> pa.DataType:
    """A type for readers of every kind: large strings and binaries are plain ones, a column of nothing is of text."""
    import pyarrow as pa

    if pa.types.is_null(kind):
        return pa.string()
    return pa.binary() if pa.types.is_large_binary(kind) else kind


def _name_of(store: Store) -> str:
    """The store's name, in characters that every engine takes."""
    plain = re.sub(r"[^0-9A-Za-z_]", "_", store.path.resolve().name.removesuffix(".store"))
    return plain if re.match(r"[A-Za-z_]", plain) else f"_{plain}"
