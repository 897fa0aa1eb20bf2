"""``embedstore verify``: every byte compared with what was committed."""

from __future__ import annotations

import sys

from embedstore._core.words import counted

from .options import Json, Store


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
