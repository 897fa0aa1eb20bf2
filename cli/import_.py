"""`import`: vectors that somebody else computed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedstore._core.words import counted
from embedstore.ingest.import_options import ImportOptions

from .from_options import takes
from .options import Json, Types, column_types

if TYPE_CHECKING:
    from embedstore.ingest.import_vectors import ImportReport
    from embedstore.ingest.importer import ImportedSpace

SOURCE = "A .npy, .npz, .parquet, .csv, .tsv, .jsonl or HDF5 file (FILE.h5:/dataset), or a folder of .npy or .parquet files."


@takes(ImportOptions)
def import_vectors(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help=SOURCE)],
    store: Annotated[
        Path, typer.Argument(readable=False, metavar="STORE", help="The store's folder; made if it does not exist.")
    ],
    *,
    type: Types = None,
    json: Json = False,
    **given: Any,
) -> None:
    """Import vectors that were computed elsewhere; they are marked as declared."""
    import embedstore as es

    from . import render

    with render.embedding_progress(f"importing {source.rstrip('/').rpartition('/')[2]}") as on_progress:
        report = es.import_vectors(source, store, **given, types=column_types(type), on_progress=on_progress)
    render.print_json(report.to_dict()) if json else print_import(report, store)


import_vectors.__name__ = "import"  # the command's name, which no function can have


def print_import(report: ImportReport, store: Path) -> None:
    """Counts of each space, the first failures, and the closing line."""
    from . import render

    columns = ["space", "declared encoder", "imported", "unchanged", "missing", "failed", "zeros"]
    rows = [
        (name, s.encoder, _imported(s), *(f"{getattr(s, column):,}" for column in columns[3:]))
        for name, s in report.spaces.items()
    ]
    render.print_table(columns, rows, numeric=columns[2:])
    for space, item, reason in report.failures[:5]:
        render.say(f"failed: {item} ({space}): {reason}")
    if (failed := sum(s.failed for s in report.spaces.values())) > 5:
        render.say(
            f"  … {counted(failed, 'failure')} in all; embedstore info {store} --failures lists those that left no vector"
        )
    render.say(
        f"{counted(report.items, 'row')} ({counted(report.added, 'item')} new, {report.updated:,} updated), "
        f"{report.bytes / 1e6:,.1f} MB in "
        f"{report.seconds:.1f} s: {report.gb_per_s:.2f} GB/s"
    )
    for note in report.notes:
        render.say(f"note: {note}")


def _imported(space: ImportedSpace) -> str:
    return f"{space.imported:,}" + (f" ({space.replaced:,} replaced)" if space.replaced else "")
