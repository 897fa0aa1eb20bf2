"""`export_head`: a saved head as an ONNX file that is checked against the original. Wiring of heads, stores and graphs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore._core.atomic_files import write_bytes
from embedstore._core.result_files import writing
from embedstore._core.threads import bounded
from embedstore.errors import HeadError, UsageError
from embedstore.exporting import (
    onnx_networks,
    onnx_pairs,
    onnx_prompted,
    onnx_targets,
    onnx_trees,
)  # they enter heads into the table
from embedstore.exporting.export_head_options import ExportHeadOptions
from embedstore.exporting.onnx_check import LEAST, LEAST_INT8, agreement, middle_ms
from embedstore.exporting.onnx_graph import EXTRA, Graph
from embedstore.exporting.onnx_heads import outputs
from embedstore.heads import TargetsHead
from embedstore.heads.base import Data
from embedstore.heads.io import HeadRecord
from embedstore.heads.onnx_head import SUFFIX, OnnxModel, described, feed, keep, onnx_record
from embedstore.registry import require
from embedstore.store import Store
from embedstore.training.predict import blocks, stored_rows
from embedstore.training.saved import check_fingerprints, find_head, specs_for, task_of

__all__ = ["HeadExport", "export_head"]

CONVERTERS = (onnx_networks, onnx_pairs, onnx_prompted, onnx_targets, onnx_trees)
MOST = 4096
"""Items that it is checked on, drawn at random from those of the store."""

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class HeadExport:
    """What `export_head` returns.

    Parameters
    ----------
    path : str
    head, kind, task : str
    inputs : mapping of name to (d,)
        The model's inputs; with several there is a mask ``NAME:present`` for each.
    output : str
        ``probabilities`` or ``numbers``; of several targets ``probabilities:TARGET`` and ``numbers:TARGET``, with commas.
    classes : int
        Of all targets together, where there are several.
    int8 : bool
    items : int
        Stored items that both heads predicted. With several inputs also without each of them.
    agreement : float
        The share of predictions that are the same.
    difference : float
        The largest between two probabilities, or two numbers.
    bytes, original_bytes : int
        The file, and the weights of the original.
    ms, original_ms : float
        The middle (p50) of the time for one item: in onnxruntime, and of the original.
    """

    path: str
    head: str
    kind: str
    task: str
    inputs: Mapping[str, int]
    output: str
    classes: int
    int8: bool
    items: int
    agreement: float
    difference: float
    bytes: int
    original_bytes: int
    ms: float
    original_ms: float
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The document of ``embedstore export-head --json``."""
        return dict(vars(self))


@bounded()
def export_head(
    store: Store | str | Path,
    head: str | Path,
    path: str | os.PathLike[str],
    *,
    int8: bool = ExportHeadOptions.int8,
    anyway: bool = ExportHeadOptions.anyway,
) -> HeadExport:
    """Write a saved head as an ONNX file: from stored vectors to probabilities, or numbers.

    The model's metadata has the classes, the fingerprints of the encoders, and how it compared with the original on items of
    the store. ``predict(store, "model.onnx")`` takes it, and so does everything that runs ONNX.

    Parameters
    ----------
    store : Store or path
    head : str or path
        Its name in `store`, or the folder of a head of another store.
    path : path
        A file that ends in ``.onnx``; replaced, if it is there.
    int8 : bool
        Whether matrices are kept as int8, a scale for each column.
    anyway : bool
        Whether the file is written although fewer predictions agree than should: 99.99 %, with `int8` 99 %.

    Raises
    ------
    HeadError
        There is no converter for its kind, it takes all pieces of an item, the predictions differ, or the store has no item
        to check it on.
    UsageError, FingerprintError
    MissingDependencyError
        Without onnx and onnxruntime: the extra ``onnx``.

    Examples
    --------
    >>> import embedstore as es
    >>> es.export_head("my.store", "label", "label.onnx").agreement  # doctest: +SKIP
    1.0
    """
    options = ExportHeadOptions(int8=int8, anyway=anyway)
    target = Path(path)
    if target.suffix != SUFFIX:
        raise UsageError(f"{target} should end in {SUFFIX}.")
    if not target.parent.is_dir():
        raise UsageError(f"{target} cannot be written: there is no folder {target.parent}.")
    require("onnxruntime", extra=EXTRA)
    opened = store if isinstance(store, Store) else Store.open(store)
    _, record = find_head(opened, head)
    check_fingerprints(record, specs_for(record, opened), str(opened.path))
    _refuse_pieces(record, opened)
    draft, output = _model(record, options.int8, {})
    result = _checked(record, opened, draft, target, output, options)
    least = LEAST_INT8 if options.int8 else LEAST
    if result.agreement < least and not options.anyway:
        without = "without --int8, or " if options.int8 else ""
        raise HeadError(
            f"{target} was not written: it agrees with head {record.name!r} in {result.agreement:.3%} of the predictions on "
            f"{result.items:,} items, and {least:.2%} is asked for. Export it {without}with --anyway."
        )
    told = {name: value for name, value in result.to_dict().items() if name not in ("path", "head", "kind", "inputs", "notes")}
    final, _ = _model(record, options.int8, {"check": told})
    with writing(target):
        write_bytes(target, final)
    keep(final)
    return result


def _refuse_pieces(record: HeadRecord, store: Store) -> None:
    """Raise `HeadError` where the head takes all vectors of an item: a file takes one."""
    for name in record.inputs if record.head.takes_sequences else ():
        unit = None if name not in store.spaces else store.spaces[name].unit
        if unit is not None:
            raise HeadError(
                f"Head {record.name!r} takes every {unit} of an item in {name}, and an ONNX file takes one vector an item. "
                "Export a head that takes their mean, such as --head gated."
            )


def _model(record: HeadRecord, int8: bool, more: Mapping[str, Any]) -> tuple[bytes, str]:
    """The model as bytes, and what its output is called."""
    graph = Graph(int8=int8)
    head = record.head
    found = outputs(head, graph, graph.items(head.dims_))
    shapes: list[tuple[int, ...]] = [head.output_shape]
    if isinstance(head, TargetsHead):
        shapes = [(len(known),) if len(known) else () for known in head.classes_]
    for (name, value), shape in zip(found.items(), shapes, strict=True):
        graph.output(name, value, shape)
    return graph.model(described(record, **more)).SerializeToString(), ", ".join(found)


def _checked(
    record: HeadRecord, store: Store, model: bytes, target: Path, output: str, options: ExportHeadOptions
) -> HeadExport:
    """The model compared with the head, on items of the store as they are and, of several inputs, without each."""
    head, exported = record.head, onnx_record(model, str(target)).head
    assert isinstance(exported, OnnxModel)  # `onnx_record` says so
    task = task_of(record)
    rows = stored_rows(record, store, None, None)
    if not len(rows):
        raise HeadError(f"{store.path} has no item with a vector in {', '.join(record.inputs)}, to check the file on.")
    drawn = np.sort(np.random.default_rng(0).permutation(rows)[:MOST])
    parts = [part[1:] for part in blocks(record, store, drawn)]
    inputs, present = ({name: np.concatenate([part[k][name] for part in parts]) for name in parts[0][k]} for k in (0, 1))
    asked = [(inputs, present)]
    for name in inputs if len(inputs) > 1 else ():
        asked.append((inputs, {**present, name: np.zeros(len(drawn), bool)}))
    found = agreement(task, head, exported, asked, int8=options.int8)
    one = {name: x[:1] for name, x in inputs.items()}
    there = {name: mask[:1] for name, mask in present.items()}
    given = feed(Data(one, there, np.zeros(1)))
    state = head.state()
    weights = sum(tensor.nbytes for tensor in state.tensors.values()) + sum(map(len, state.files.values()))
    return HeadExport(
        path=str(target),
        head=record.name,
        kind=head.kind,
        task=task.name,
        inputs=dict(head.dims_),
        output=output,
        classes=sum(map(len, head.classes_)) if isinstance(head, TargetsHead) else len(getattr(head, "classes_", ())),
        int8=options.int8,
        items=len(drawn),
        agreement=found.share,
        difference=found.difference,
        bytes=len(model),
        original_bytes=weights,
        ms=round(middle_ms(lambda: exported._session.run(None, given)), 4),
        original_ms=round(middle_ms(lambda: head.outputs(one, present=there)), 4),
    )
