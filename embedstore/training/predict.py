"""`predict`: a saved head on stored items or on new files. Wiring of heads, tasks, stores and extraction."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore._core.arguments import strings
from embedstore._core.metadata_features import METADATA
from embedstore._core.threads import bounded
from embedstore.errors import HeadError, UsageError
from embedstore.evaluation.contributions import EXACT_INPUTS, explain
from embedstore.evaluation.nearest import nearest_items
from embedstore.heads.base import as_inputs, pooled
from embedstore.heads.held_out import OutOfFold, load_out_of_fold
from embedstore.heads.io import HeadRecord
from embedstore.heads.onnx_head import OnnxModel
from embedstore.sources import Source
from embedstore.store import Store, View
from embedstore.store.view import MOST_PIECES, padded_pieces
from embedstore.training.certainty import intervals_of, sets_of
from embedstore.training.class_names import zero_shot
from embedstore.training.new_items import embedded_for, usable_rows
from embedstore.training.pair_table import Pairs, rows_of_pairs
from embedstore.training.predict_options import PredictOptions
from embedstore.training.predictions import Explanation, Predictions
from embedstore.training.saved import check_fingerprints, find_model, refuse_certainty, specs_for, task_of, trained_on
from embedstore.training.tasks.base import Task

__all__ = ["Explanation", "Predictions", "blocks", "predict", "predict_rows", "stored_rows"]

Array = npt.NDArray[Any]
BLOCK = 16384
NEAREST = 3


def predict(
    store: Store | str | Path,
    head: str | Path | None = None,
    dataset: str | os.PathLike[str] | Source | None = None,
    *,
    ids: Sequence[str] | None = PredictOptions.ids,
    pairs: Pairs | None = PredictOptions.pairs,
    where: str | None = PredictOptions.where,
    columns: Mapping[str, str] | None = PredictOptions.columns,
    explained: bool = PredictOptions.explained,
    classes: Sequence[str] | None = PredictOptions.classes,
    templates: Sequence[str] | None = PredictOptions.templates,
    inputs: Sequence[str] | None = PredictOptions.inputs,
    alignment: str | None = PredictOptions.alignment,
    coverage: float | None = PredictOptions.coverage,
    per_class: bool = PredictOptions.per_class,
    device: str = PredictOptions.device,
) -> Predictions:
    """Predict with a saved head.

    Parameters
    ----------
    head : str or path
        Its name in the store, the folder of a head of another store, ``other.store/heads/label``, or an ONNX file that
        `embedstore.export_head` wrote. None with `classes`.
    dataset : folder, table, file or Source, optional
        New items: embedded by the encoders the head was trained on, into nothing that is kept. Without it, stored items.
    ids : sequence of str, optional
        Stored items by id; default: all.
    pairs : path, or sequence of (id, id), optional
        Of a head for the task matching: the stored items that give the first and the second side, as a table with two columns
        (called like the head's inputs, or the only two) or as they are. Without it, each item's own two sides are a pair.
    where : str, optional
        Stored items by SQL over the metadata columns.
    columns : mapping, optional
        Of the dataset: ``"id"`` or modality → column name, as for `embed`. Or an input that has a column of texts of its own →
        that column; default: the one that it was embedded from.
    explained : bool
        Whether to say what each input contributed, and which training items are nearest.
    classes : sequence of str, optional
        Names of classes, instead of a head: zero-shot, by the texts nearest to each item; no item need be labelled.
    templates : sequence of str, optional
        With `classes`, what their texts are, such as ``"a photo of a {}"``; of several the mean.
    inputs : sequence of str, optional
        With `classes`, the spaces they are compared with; default all.
    alignment : str, optional
        With `classes`, the saved alignment through which they are compared with a space whose encoder takes no texts, where
        there are several.
    coverage : float, optional
        Answer with sets of classes too, or with an interval around each number, that hold the truth of this share of items
        (split conformal prediction by MAPIE, calibrated on the out-of-fold predictions that are kept with the head).
    per_class : bool
        Whether the coverage is to hold in each class (Mondrian).
    device : str
        For encoding the dataset.

    Raises
    ------
    HeadError, UsageError
    FingerprintError
        The store's vectors, or the encoders on this machine, are not those the head was trained on.
    """
    options = PredictOptions(
        ids=ids,
        pairs=pairs,
        where=where,
        columns=columns,
        explained=explained,
        classes=classes,
        templates=templates,
        inputs=inputs,
        alignment=alignment,
        coverage=coverage,
        per_class=per_class,
        device=device,
    )
    opened = store if isinstance(store, Store) else Store.open(store)
    home, record = _asked(opened, head, options)
    task = task_of(record)
    if isinstance(record.head, OnnxModel) and (explained or coverage is not None):
        raise UsageError(
            f"{head} does not hold the items that explanations and coverages are made from. Name the head itself: "
            f"{record.name!r}, or OTHER.store/heads/{record.name}."
        )
    refuse_certainty(task, coverage, explained=explained)
    if explained and len(record.head.dims_) > EXACT_INPUTS:
        raise UsageError(
            f"Explanations are exact for up to {EXACT_INPUTS} inputs; head {record.name!r} has {len(record.head.dims_)}."
        )
    training = replace(trained_on(record, home), columns=None) if explained else None  # nearest are told by vectors alone
    kept = None if coverage is None else load_out_of_fold(home.path / "heads" / record.name)
    if options.pairs is not None:
        return _of_pairs(task, record, opened, options.pairs, dataset, options)
    if dataset is None:
        if columns is not None:
            raise UsageError("columns name those of a dataset; leave them out for stored items.")
        check_fingerprints(record, specs_for(record, opened), str(opened.path))
        rows = stored_rows(record, opened, options.ids, where)
        return _certain(_predict_rows(task, record, opened, rows, training, []), kept, options)
    if ids is not None or where is not None:
        raise UsageError("ids and where choose stored items; leave them out when a dataset is given.")
    with tempfile.TemporaryDirectory(prefix="embedstore-") as temporary:
        new = embedded_for(record, home, dataset, options, Path(temporary) / "new.store")
        rows, unusable = usable_rows(new)
        return _certain(_predict_rows(task, record, new, rows, training, unusable), kept, options)


def _asked(store: Store, head: str | Path | None, options: PredictOptions) -> tuple[Store, HeadRecord]:
    """The head that was named, with the store that it was trained in, or one that knows classes by their names."""
    if (head is None) == (options.classes is None):
        raise UsageError("Name either a head, or classes for zero-shot (--classes 'cat,dog').")
    if head is not None:
        return find_model(store, head)
    inputs = strings(options.inputs, "inputs") if options.inputs else list(store.spaces)
    how = {"templates": options.templates, "alignment": options.alignment, "device": options.device}
    return store, zero_shot(store, inputs, strings(options.classes or (), "classes"), **how)


def _of_pairs(
    task: Task, record: HeadRecord, store: Store, pairs: Pairs, dataset: object, options: PredictOptions
) -> Predictions:
    """Predict pairs of stored items."""
    if task.needs_target:
        raise UsageError(
            f"pairs are for heads of the task matching; head {record.name!r} is for {task.name}. Leave them out, or train one: "
            "embedstore train STORE --task matching --inputs image,text"
        )
    for name in ("ids", "where", "columns"):
        if getattr(options, name) is not None:
            raise UsageError(f"{name} and pairs are given; leave out one of them.")
    if dataset is not None:
        raise UsageError("pairs are of stored items; leave out the dataset.")
    check_fingerprints(record, specs_for(record, store), str(store.path))
    sides = dict(zip(record.inputs, rows_of_pairs(store, pairs, list(record.inputs)), strict=True))
    (first, rows), (second, others) = sides.items()
    found = [np.empty((0, 2))]
    for lo in range(0, len(rows), BLOCK):
        at = slice(lo, lo + BLOCK)
        found.append(
            record.head.outputs({first: store.space(first).take(rows[at]), second: store.space(second).take(others[at])})
        )
    predicted = task.predicted(record.head, np.concatenate(found))
    ids = [store.items.take(side, ["id"]).column("id").to_pylist() for side in (rows, others)]
    named = np.array(ids[0], dtype=object)
    return Predictions(named, predicted.labels, predicted.probabilities, predicted.classes, [], task=task, partners=ids[1])


def predict_rows(record: HeadRecord, store: Store, rows: npt.NDArray[np.int64], *, contributions: bool = False) -> Predictions:
    """`predict` for whoever holds a head already, and knows which stored items, at `rows` (n,), it is asked about.

    Parameters
    ----------
    contributions : bool
        Whether to say what each input contributed; the nearest training items are left out.

    Raises
    ------
    UsageError, FingerprintError
    """
    check_fingerprints(record, specs_for(record, store), str(store.path))
    return _predict_rows(task_of(record), record, store, rows, None, [], explained=contributions)


def stored_rows(record: HeadRecord, store: Store, ids: Sequence[str] | None, where: str | None) -> npt.NDArray[np.int64]:
    """Rows of the stored items that have any of a head's inputs; those of `ids`, or that match `where`."""
    rows = store.view(inputs=list(record.inputs), where=where).rows
    if ids is None:
        return rows
    ids = strings(ids, "ids")
    wanted = store.items.rows_of(ids)
    if len(absent := np.flatnonzero(~np.isin(wanted, rows))):
        i = ids[absent[0]]
        raise HeadError(f"Item {i!r} has no vector in {', '.join(record.inputs)}, or does not match --where.")
    return wanted


@bounded()
def _predict_rows(
    task: Task,
    record: HeadRecord,
    store: Store,
    rows: npt.NDArray[np.int64],
    training: View | None,
    unusable: list[tuple[str, str]],
    *,
    explained: bool = False,
) -> Predictions:
    """Predict items of `store`; explain them, with what is nearest if the items that the head was fitted on are given."""
    head = record.head
    if not task.needs_target:  # a pair without one of its sides is no pair
        there = {name: store.space(name).has(rows) for name in record.inputs}
        whole = np.all(list(there.values()), axis=0)
        for at, item in zip(np.flatnonzero(~whole).tolist(), _ids(store, rows[~whole]), strict=True):
            unusable = [*unusable, (item, f"lacks {', '.join(name for name, has in there.items() if not has[at])}")]
        rows = rows[whole]
    found: list[npt.NDArray[np.float64]] = [np.empty((0, *head.output_shape))]
    explanations: list[Explanation] = []
    missing: list[tuple[str, ...]] = []
    for block, inputs, present in blocks(record, store, rows):
        missing += _missing(present)
        found.append(head.outputs(inputs, present=present))
        if explained or training is not None:
            asked = task.explained(head, found[-1])
            explanations += _explain(record, training, block, inputs, present, asked, store)
    predicted = task.predicted(head, np.concatenate(found))
    return Predictions(
        ids=np.array(_ids(store, rows), dtype=object),
        labels=predicted.labels,
        probabilities=predicted.probabilities,
        classes=predicted.classes,
        unusable=unusable,
        explanations=explanations,
        missing=missing,
        task=task,
        targets=predicted.targets,
    )


def _ids(store: Store, rows: npt.NDArray[np.int64]) -> list[str]:
    return list(store.items.take(rows, ["id"]).column("id").to_pylist())


def _certain(found: Predictions, kept: OutOfFold | None, options: PredictOptions) -> Predictions:
    """Predictions with sets or intervals, if a coverage was asked for."""
    if kept is None or options.coverage is None:
        return found
    if not len(kept.classes):
        pairs = intervals_of(kept, found.labels.astype(float), options.coverage, per_class=options.per_class)
        return replace(found, intervals=[(low, high) for low, high in pairs.tolist()])
    classes = found.classes.tolist()
    among = sets_of(kept, found.probabilities, classes, options.coverage, per_class=options.per_class)
    order = np.argsort(-found.probabilities, axis=1, kind="stable")
    sets = [[classes[k] for k in row if has[k]] for row, has in zip(order.tolist(), among.tolist(), strict=True)]
    return replace(found, sets=sets)


def _missing(present: Mapping[str, Array]) -> list[tuple[str, ...]]:
    """The names of the inputs that each item lacks, of their masks (n,)."""
    lacks = ~np.column_stack(list(present.values()))
    return [tuple(name for name, lack in zip(present, row, strict=True) if lack) for row in lacks.tolist()]


def blocks(
    record: HeadRecord, store: Store, rows: npt.NDArray[np.int64]
) -> Iterator[tuple[npt.NDArray[np.int64], dict[str, Array], dict[str, Array]]]:
    """(rows, inputs, masks) of the items, a block at a time; an input whose space the store lacks is absent."""
    size = BLOCK // MOST_PIECES if record.head.takes_sequences else BLOCK
    for lo in range(0, len(rows), size):
        block = rows[lo : lo + size]
        inputs, present = {}, {}
        for name, spec in record.inputs.items():
            space = store.spaces.get(name)
            present[name] = np.zeros(len(block), bool) if space is None else space.has(block)
            inputs[name] = np.zeros((len(block), spec.dim), np.float32)
            if space is not None and space.unit is not None and record.head.takes_sequences:
                inputs[name] = padded_pieces(space, block, present[name])
            elif space is not None:
                inputs[name][present[name]] = space.take(block[present[name]])
        if record.columns is not None:
            known = set(store.items.metadata_columns())
            names = [name for name in record.columns.columns if name in known]
            inputs[METADATA] = record.columns.features(store.items.take(block, ["id", *names]))
            present[METADATA] = np.full(len(block), bool(names))
        yield block, inputs, present


def _explain(
    record: HeadRecord,
    view: View | None,
    rows: npt.NDArray[np.int64],
    inputs: Mapping[str, Array],
    present: Mapping[str, Array],
    asked: Mapping[str, npt.NDArray[np.int64]],
    store: Store,
) -> list[Explanation]:
    """What the inputs contributed to those of an item's outputs that are `asked` (n,), by what stands before their names."""

    def says(x: Mapping[str, Array], masks: Mapping[str, Array]) -> npt.NDArray[np.float64]:
        return record.head.outputs(x, present=masks).reshape(len(rows), -1)

    values = {
        f"{prefix}{name}": value for prefix, at in asked.items() for name, value in explain(says, inputs, present, at).items()
    }
    if view is None:
        return [Explanation({name: float(value[i]) for name, value in values.items()}, []) for i in range(len(rows))]
    same = rows if store.path == view.store.path else np.full(len(rows), -1)
    spaces, masks = pooled(*as_inputs({n: inputs[n] for n in record.inputs}, {n: present[n] for n in record.inputs}))
    near = nearest_items(spaces, masks, view.inputs, view.present, NEAREST, never=(same, view.rows))
    labels = view.target if view.target is not None else np.empty(0)
    return [
        Explanation(
            {name: float(value[i]) for name, value in values.items()},
            [(str(view.ids[j]), _in_words(labels[j])) for j in others],
        )
        for i, others in enumerate(near)
    ]


def _in_words(label: Any) -> str:
    return ", ".join(map(str, label)) if isinstance(label, list | tuple) else str(label)
