"""`select`: which items to label next, or to keep. Wiring of stores and heads to `embedstore.evaluation.selection`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from embedstore._core.result_files import write_table
from embedstore._core.threads import bounded
from embedstore.errors import UsageError
from embedstore.evaluation import selection
from embedstore.heads.label_sets import Labeller
from embedstore.store import Store
from embedstore.store.items import Rows
from embedstore.store.space import Space
from embedstore.store.view import is_null
from embedstore.training.predict import predict, stored_rows
from embedstore.training.saved import find_head
from embedstore.training.select_options import BY_HEAD, SelectOptions

__all__ = ["Selected", "Selection", "select"]

POOL = 5
"""A way that another one follows leaves so many times what is asked for."""
SCORES = {"diverse": "distance", "typical": "density", "uncertain": "margin", "balanced": "probability"}


@dataclass(frozen=True)
class Selected:
    """An item that was selected.

    Parameters
    ----------
    score : float
        By the last way: the cosine distance to the nearest item before it (diverse), the mean cosine to its neighbours
        (typical), the difference of the two likeliest classes (uncertain), the probability of its class (balanced).
    prediction : label, optional
        What the head says of it, where one was asked.
    """

    rank: int
    id: str
    score: float
    prediction: Any = None


@dataclass(frozen=True)
class Selection:
    """What `select` returns; the most wanted item comes first."""

    by: list[str]
    space: str | None
    head: str | None
    candidates: int
    labelled: int
    items: list[Selected]
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The document of ``embedstore select --json``."""
        return {**vars(self), "score": SCORES[self.by[-1]], "items": [vars(item) for item in self.items]}

    def save(self, path: str | Path) -> Path:
        """Write one row an item (rank, id, score, and prediction if a head was asked) to a .csv, .parquet or .jsonl file.

        Raises
        ------
        UsageError
            Another ending, or no such folder.
        OutputError
            The file cannot be written.
        """
        import pyarrow as pa

        names = ("rank", "id", "score", *(("prediction",) if self.head else ()))
        return write_table(path, pa.table({name: [getattr(item, name) for item in self.items] for name in names}))


@bounded()
def select(
    store: Store | str | Path,
    *,
    n: int = SelectOptions.n,
    by: str | Sequence[str] = SelectOptions.by,
    space: str | None = SelectOptions.space,
    head: str | None = SelectOptions.head,
    labelled: str | None = SelectOptions.labelled,
    where: str | None = SelectOptions.where,
    seed: int = SelectOptions.seed,
) -> Selection:
    """Select items that are worth a label, or worth keeping.

    Parameters
    ----------
    store : Store or path
    n : int
        How many.
    by : str or sequence of str
        ``"diverse"`` (each as far as can be from all before it), ``"typical"`` (from the middle of clusters), ``"uncertain"``
        (those of which the head is least sure), ``"balanced"`` (of the classes that have the fewest items). Of several, each
        selects among what the one before it leaves: ``"uncertain,diverse"``.
    space : str, optional
        The space whose vectors count for diverse and typical; default: the first one. Items without a vector in it are left
        out.
    head : str, optional
        A saved head, for uncertain and balanced.
    labelled : str, optional
        Metadata column: items with a value in it have their label already. They are not selected, and diverse and typical stay
        away from them. Default: the target of the head; without a head, or with the empty text, no item has one.
    where : str, optional
        SQL over the metadata columns: only these items are candidates.
    seed : int
        Of the clusters.

    Returns
    -------
    Selection

    Raises
    ------
    UsageError, HeadError

    Examples
    --------
    >>> es.select("shop.store", n=200, by="uncertain,diverse", head="category").save("next.csv")  # doctest: +SKIP
    """
    options = SelectOptions(n=n, by=by, space=space, head=head, labelled=labelled, where=where, seed=seed)
    opened = store if isinstance(store, Store) else Store.open(store)
    rows, done, notes = _candidates(opened, options)
    looked = None
    if any(way not in BY_HEAD for way in options.ways):
        if not opened.spaces:
            raise UsageError(f"{opened.path} has no space yet. Embed something first.")
        looked = opened.space(options.space or next(iter(opened.spaces)))
        has = looked.has(rows)
        if not has.all():
            notes.append(f"{int((~has).sum()):,} items without a vector in space {looked.name!r} are left out")
        rows, done = rows[has], done[looked.has(done)]
    rows, said = _asked(opened, rows, options, notes)
    at, scores = np.arange(len(rows)), np.zeros(len(rows))
    for i, way in enumerate(options.ways):
        most = n if i == len(options.ways) - 1 else POOL * n
        if way in BY_HEAD:
            chosen, scores = _by_head(way, said, at, most)
        else:
            chosen, scores = _by_place(way, looked, rows[at], done, most, seed)
        at = at[chosen]
    ids = opened.items.take(rows[at], ["id"]).column("id").to_pylist()
    labels = said.labels[at].tolist() if said is not None else [None] * len(at)
    items = [
        Selected(rank, i, float(score), label)
        for rank, (i, score, label) in enumerate(zip(ids, scores, labels, strict=True), 1)
    ]
    name = None if looked is None else looked.name
    return Selection(options.ways, name, head, len(rows), len(done), items, notes)


def _by_place(
    way: str, space: Space | None, rows: Rows, done: Rows, n: int, seed: int
) -> tuple[selection.Positions, selection.Float]:
    assert space is not None
    vectors, held = np.asarray(space.take(rows), np.float32), np.asarray(space.take(done), np.float32)
    if way == "diverse":
        return selection.spread(vectors, n, held=held)
    return selection.typical(vectors, n, held=held, seed=seed)


@dataclass(frozen=True)
class _Said:
    """What a head says of candidates: probabilities (m, c), classes (m,), and the items (c,) that each class has already."""

    probabilities: selection.Array
    labels: selection.Array
    counts: selection.Array


def _by_head(way: str, said: _Said | None, at: selection.Positions, n: int) -> tuple[selection.Positions, selection.Float]:
    assert said is not None
    probabilities = said.probabilities[at]
    if way == "uncertain":
        return selection.uncertain(probabilities, n)
    return selection.balanced(probabilities, n, said.counts)


def _candidates(store: Store, options: SelectOptions) -> tuple[Rows, Rows, list[str]]:
    """Rows that may be selected, and rows that have their label already."""
    rows = store.items.rows if options.where is None else store.where(options.where)
    column = options.labelled
    if column is None and options.head:
        column = find_head(store, options.head)[1].target
    if not column:
        return rows, rows[:0], []
    if column not in store.items.metadata_columns():
        if options.labelled is None:
            return rows, rows[:0], [f"the store has no column {column!r}, so that no item counts as labelled"]
        known = ", ".join(store.items.metadata_columns()) or "none"
        raise UsageError(f"{store.path} has no metadata column {column!r}. Columns: {known}.")
    values = store.items.take(store.items.rows, [column]).column(column)
    has = np.array([not is_null(value) for value in values.to_pylist()], bool)
    done = store.items.rows[has]
    left = rows[~np.isin(rows, done)]
    if not len(left):
        raise UsageError(
            f"Every item has a value in {column!r}: none is left to select. Name another column: --labelled COLUMN."
        )
    return left, done, []


def _asked(store: Store, rows: Rows, options: SelectOptions, notes: list[str]) -> tuple[Rows, _Said | None]:
    """The rows of which the head can say something, and what it says; `notes` is told of the others."""
    if options.head is None:
        return rows, None
    record = find_head(store, options.head)[1]
    has = np.isin(rows, stored_rows(record, store, None, None))
    inputs = ", ".join(record.inputs)
    if len(rows) and not has.any():
        raise UsageError(f"None of the {len(rows):,} candidates has a vector in {inputs}, which head {options.head!r} takes.")
    if not has.all():
        notes.append(f"{int((~has).sum()):,} items without a vector in {inputs} are left out: head {options.head!r} takes them")
    rows = rows[has]
    ids = store.items.take(rows, ["id"]).column("id").to_pylist()
    found = predict(store, options.head, ids=ids)
    one_class = found.probabilities.ndim == 2 and found.labels.ndim == 1 and not isinstance(record.head, Labeller)
    if not one_class or found.probabilities.shape[1] < 2:
        raise UsageError(f"Head {options.head!r} gives no probabilities of classes; uncertain and balanced need one that does.")
    if found.unusable:
        notes.append(f"{len(found.unusable):,} items of which head {options.head!r} cannot say anything are left out")
        rows = rows[np.isin(np.asarray(ids, object), found.ids)]
    counts = np.zeros(len(found.classes), np.int64)
    if record.target in store.items.metadata_columns():
        values = store.items.take(store.items.rows, [record.target]).column(record.target).to_pylist()
        code = {label: k for k, label in enumerate(found.classes.tolist())}
        for value in values:
            if value in code:
                counts[code[value]] += 1
    return rows, _Said(found.probabilities, found.labels, counts)
