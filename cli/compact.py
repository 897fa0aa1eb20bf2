"""`compact`: less on disk, and indexes that know everything again."""

from __future__ import annotations

from typing import Any

from embedstore.retrieval.compact_options import CompactOptions

from .from_options import takes
from .options import Json, Store


@takes(CompactOptions)
def compact(store: Store, *, json: Json = False, **given: Any) -> None:
    """Rewrite a store without what was removed, and build again indexes that fell behind."""
    import embedstore as es

    from . import render

    with render.status("compacting") as say:
        report = es.compact(store, **given, on_progress=say)
    if json:
        render.print_json(report.to_dict())
        return
    if report.reason:
        (files, left), (size, now) = report.files, report.bytes
        render.say(f"{report.reason}: {files:,} files of {size / 1e6:,.1f} MB became {left:,} of {now / 1e6:,.1f} MB")
    else:
        render.say("The parts are compact: nothing was removed, and they are not small.")
    for space, what in report.indexes.items():
        render.say(f"index of {space}: {what}")
