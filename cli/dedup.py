"""``embedstore dedup``: exact and near copies as a table, a file or JSON, and their removal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedstore._core.words import counted
from embedstore.duplicates.dedup_options import DedupOptions

from .from_options import takes
from .opening import opened
from .options import SECONDS, Json, NoCheck, Store, Where, WhereTimeout, names

if TYPE_CHECKING:
    from embedstore.duplicates.report import DuplicateCluster, DuplicateReport

SHOWN = 10


@takes(DedupOptions)
def dedup(
    store: Store,
    *,
    where: Where = None,
    where_timeout: WhereTimeout = SECONDS,
    no_check: NoCheck = False,
    out: Annotated[Path | None, typer.Option(readable=False, help="Write every duplicate to a .csv or .json.")] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Remove them; one item of each cluster stays.")] = False,
    json: Json = False,
    **given: Any,
) -> None:
    """Find exact and near duplicates, and remove them."""
    from embedstore.duplicates.find import find_duplicates, remove_duplicates
    from embedstore.duplicates.report import check_output

    from . import render

    held = opened(store, where_timeout=where_timeout, no_check=no_check)
    if out is not None:
        check_output(out)
    if given["space"] is not None:
        given["space"] = names(given["space"]) or []
    with render.status("comparing") as say:
        report = find_duplicates(held, where=where, **given, on_progress=say)
    if out is not None:
        render.say(f"{counted(len(report.ids), 'duplicate')} written to {report.save(out)}", stderr=json)
    left = remove_duplicates(held, report) if remove else None
    if json:
        removal = {} if left is None else {"removed": len(report.ids), "left": len(left)}
        render.print_json({**report.to_dict(), **removal})
        return
    _print_report(report)
    if left is not None:
        render.say(f"Removed {len(report.ids):,}; {counted(len(left), 'item')} {'is' if len(left) == 1 else 'are'} left.")
    elif report.ids and out is None:
        render.say("Write them to a file: --out duplicates.csv. Remove them, keeping one item a cluster: --remove.")


def _print_report(report: DuplicateReport) -> None:
    """The largest clusters, and what was found in all."""
    from . import render

    rows = [_row(found, bool(report.pixels)) for found in report.clusters[:SHOWN]]
    if rows:
        furthest = ["largest difference", "lowest cosine"] if report.pixels else ["lowest cosine"]
        numeric = ["exact", "near", *furthest]
        render.print_table(["keep", *numeric, "duplicates"], rows, numeric=numeric)
    if len(report.clusters) > SHOWN:
        render.say(f"  … {counted(len(report.clusters), 'cluster')} in all")
    kinds = f"{report.counts['exact']:,} exact"
    if report.pixels:
        kinds += f", {report.counts['near']:,} near by {report.by}"
    elif report.threshold is not None:
        kinds += f", {report.counts['near']:,} near at cosine {report.threshold:g} or more"
    render.say(
        f"{len(report.ids):,} of {report.items:,} items are duplicates by {' and '.join(report.spaces)} ({kinds})"
        + (f" of {len(report.clusters):,} others" if rows else "")
        + f"; {report.seconds:.1f} s"
    )
    for note in report.notes:
        render.say(f"note: {note}")


def _row(found: DuplicateCluster, pixels: bool) -> tuple[object, ...]:
    kinds = [member.kind for member in found.members]
    names = ", ".join(member.id for member in found.members[:3])
    more = f" and {len(kinds) - 3:,} more" if len(kinds) > 3 else ""
    furthest = [f"{min(member.score for member in found.members):.3f}"]
    if pixels:
        furthest.insert(0, f"{max(member.difference or 0.0 for member in found.members):.3f}")
    return found.representative, kinds.count("exact"), kinds.count("near"), *furthest, names + more
