"""``embedstore export-head``: a saved head as an ONNX file, checked against the original."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedstore.exporting.export_head_options import ExportHeadOptions

from .from_options import takes
from .opening import opened, saved_head
from .options import Json, NoCheck, SavedHead, Store

if TYPE_CHECKING:
    from embedstore.exporting.export_head import HeadExport


@takes(ExportHeadOptions)
def export_head(
    store: Store,
    head: SavedHead = None,
    path: Annotated[Path | None, typer.Argument(readable=False, metavar="MODEL", help="The file: NAME.onnx.")] = None,
    *,
    no_check: NoCheck = False,
    json: Json = False,
    **given: Any,
) -> None:
    """Write a saved head as an ONNX file that is checked against it on items of the store."""
    import embedstore as es
    from embedstore.errors import UsageError

    from . import render

    named = saved_head(store, head)
    if path is None:
        raise UsageError(f"Name the file: embedstore export-head {store} {named} {Path(named).name}.onnx")
    with render.status("exporting"):
        result = es.export_head(opened(store, no_check=no_check), named, path, **given)
    render.print_json(result.to_dict()) if json else _print(result)


def _print(result: HeadExport) -> None:
    from . import render

    small = ", int8" if result.int8 else ""
    inputs = " + ".join(result.inputs)
    render.print_table(
        [f"head {result.head!r} ({result.kind} on {inputs}{small})", "size", "one item, p50"],
        [
            ("as it is saved", _size(result.original_bytes), f"{result.original_ms:.3f} ms"),
            (result.path, _size(result.bytes), f"{result.ms:.3f} ms"),
        ],
        numeric=["size", "one item, p50"],
    )
    also = ", and without each of the inputs" if len(result.inputs) > 1 else ""
    render.say(
        f"{result.agreement:.3%} of the predictions agree on {result.items:,} items of the store{also}; {result.output} differ "
        f"by {result.difference:.1e} at most. Use it: embedstore predict STORE {result.path}"
    )


def _size(count: int) -> str:
    return f"{count / 1e6:.2f} MB" if count >= 10_000 else f"{count / 1e3:.1f} kB"
