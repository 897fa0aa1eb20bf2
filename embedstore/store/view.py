"""A view: items joined over several spaces, with a presence mask, a target and a split. What a head trains on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from embedstore._core.arguments import strings
from embedstore._core.metadata_features import METADATA, ColumnEncoder
from embedstore._core.splits import hashed_split, parse_split
from embedstore.errors import UsageError
from embedstore.spec import EncoderSpec
from embedstore.store.items import Rows
from embedstore.store.reader import StoreReader
from embedstore.store.space import Space

MOST_PIECES = 64
"""Of an item that a head is given."""
MOST_BYTES = 16 << 30
"""Of the pieces of all items that a head is given."""

if TYPE_CHECKING:
    import pyarrow as pa

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class View:
    """Items of a store as arrays; rows are ordered as in the store.

    Vectors are read when `inputs` is first used; `blocks` and `select` give smaller views, so that a view larger than
    memory can be walked.

    Parameters
    ----------
    store : StoreReader
    spaces : mapping of input name to Space
    rows : (n,) int64
    ids : (n,) object (str)
    target : (n,) object or None
        None where the view has no target; items whose target is null are not in the view. Of several targets, tuples with None
        where an item lacks one; items that lack all are not in the view.
    split : (n,) str
        ``"train"``, ``"val"`` or ``"test"``.
    target_name : str or None
        Of several targets, their names with commas between them.
    target_names : tuple of str
        The columns of several targets; none where there is one.
    dropped : int
        Items left out because their target is null.
    without_input : int
        Items left out because they have a vector in none of the spaces.
    split_column : bool
        Whether a column ``split`` decided, rather than the hashed id.
    groups : (n,) object (str) or None
        Items of one group share a split and a fold; an item without a group is a group of its own.
    group_name : str or None
    columns : ColumnEncoder or None
        Metadata columns that are the input ``"metadata"``.
    """

    store: StoreReader = field(repr=False)
    spaces: Mapping[str, Space]
    rows: Rows
    ids: Array
    target: Array | None
    split: Array
    target_name: str | None = None
    target_names: tuple[str, ...] = ()
    dropped: int = 0
    without_input: int = 0
    split_column: bool = False
    groups: Array | None = None
    group_name: str | None = None
    columns: ColumnEncoder | None = None

    unit: ClassVar[str] = "items"
    """What it is a view of, in a word."""

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def inputs(self) -> dict[str, Array]:
        """Input name → vectors (n, dim) of the space's dtype; zeros where an item has none (see `present`)."""
        vectors = {name: self._gather(space, self.present[name]) for name, space in self.spaces.items()}
        if self.columns is not None:
            vectors[METADATA] = self.columns.features(self.metadata(["id", *self.columns.columns]))
        return vectors

    @cached_property
    def sequences(self) -> dict[str, Array]:
        """As `inputs`, with the pieces (n, f, dim) of spaces with several vectors an item, zeros where an item has fewer.

        Of an item with more than `MOST_PIECES` so many, at equal distances.
        """
        found = dict(self.inputs)
        for name, space in self.spaces.items():
            if space.unit is not None:
                found[name] = padded_pieces(space, self.rows, self.present[name])
        return found

    @cached_property
    def present(self) -> dict[str, npt.NDArray[np.bool_]]:
        """Input name → mask (n,): whether the item has a vector there."""
        masks = {name: space.has(self.rows) for name, space in self.spaces.items()}
        return masks if self.columns is None else {**masks, METADATA: np.ones(len(self), bool)}

    @property
    def names(self) -> list[str]:
        """Names of the inputs."""
        return [*self.spaces, *(() if self.columns is None else (METADATA,))]

    @property
    def dims(self) -> dict[str, int]:
        """Input name → width."""
        dims = {name: space.dim for name, space in self.spaces.items()}
        return dims if self.columns is None else {**dims, METADATA: self.columns.width}

    def with_columns(self, columns: Sequence[str]) -> View:
        """The same items with metadata columns as one more input, ``"metadata"``.

        Means and levels are learned outside of the test split (in cross-validation over it too: they know no label).
        """
        known = self.store.items.metadata_columns()
        for name in columns:
            if name not in known:
                raise UsageError(f"{self.store.path} has no metadata column {name!r}. Columns: {', '.join(known) or 'none'}.")
            if name in (self.target_name, *self.target_names):
                raise UsageError(f"Column {name!r} is {'a' if self.target_names else 'the'} target; it cannot be an input too.")
        if METADATA in self.spaces:
            raise UsageError(f"A space is called {METADATA!r} already; leave it out to use metadata columns.")
        seen = self.select(self.split != "test") if (self.split != "test").any() else self
        return replace(self, columns=ColumnEncoder.fit(seen.metadata(columns).to_pydict()))

    @property
    def specs(self) -> dict[str, EncoderSpec]:
        """Input name → the encoder that made its vectors."""
        return {name: space.spec for name, space in self.spaces.items()}

    def select(self, index: Array) -> View:
        """The items at `index`: a mask (n,) or positions (m,)."""
        target = None if self.target is None else self.target[index]
        groups = None if self.groups is None else self.groups[index]
        return replace(self, rows=self.rows[index], ids=self.ids[index], target=target, split=self.split[index], groups=groups)

    def of_target(self, name: str) -> View:
        """The items that have a value of `name`, one of several targets, with it as their only target."""
        at = self.target_names.index(name)
        values = _objects([] if self.target is None else [row[at] for row in self.target])
        there = np.asarray([value is not None for value in values], bool)
        return replace(self.select(there), target=values[there], target_name=name, target_names=())

    @property
    def keys(self) -> Array:
        """What splits are hashed by (n,): the groups, or the ids where there are none."""
        return self.ids if self.groups is None else self.groups

    @property
    def hashes(self) -> dict[str, Array]:
        """Space → content hashes (n, 2) uint64 of the payloads; zeros where an item has none."""
        return {name: space.hash_of(self.rows) for name, space in self.spaces.items()}

    def metadata(self, columns: Sequence[str]) -> pa.Table:
        """Columns of the items, aligned with `rows`."""
        return self.store.items.take(self.rows, list(columns))

    def blocks(self, size: int = 65536) -> Iterator[View]:
        """The view in order, in views of at most `size` items."""
        for lo in range(0, len(self), size):
            yield self.select(np.arange(lo, min(lo + size, len(self))))

    def _gather(self, space: Space, present: npt.NDArray[np.bool_]) -> Array:
        if present.all():
            return space.take(self.rows)
        out = np.zeros((len(self), space.dim), dtype=space.dtype)
        out[present] = space.take(self.rows[present])
        return out


def padded_pieces(space: Space, rows: Rows, present: npt.NDArray[np.bool_]) -> Array:
    """Pieces (n, f, dim) of `rows` (n,), of which those `present` have some; see `View.sequences`."""
    pieces = space.pieces_of(rows[present])
    most = min(MOST_PIECES, int(pieces.counts.max(initial=1)))
    if (size := 4 * len(rows) * most * space.dim) > MOST_BYTES:
        raise UsageError(
            f"The {space.unit}s of {len(rows):,} items in space {space.name!r} take {size / 1e9:.0f} GB. Take fewer items "
            "(--where), or a head on their mean (--head linear)."
        )
    out = np.zeros((len(rows), most, space.dim), np.float32)
    out[present] = pieces.padded(most)
    return out


def make_view(
    store: StoreReader,
    *,
    inputs: Sequence[str],
    target: str | Sequence[str] | None,
    where: str | None = None,
    seed: int = 0,
    group: str | None = None,
    may_be_empty: bool = False,
) -> View:
    """Join `inputs` over the items of `store`.

    An item is in the view if it has a vector in at least one of `inputs` and, where `target` names a column, or several, a
    value in one of them. A column ``split`` (train, val, test) decides the split; otherwise the hashed id does, or the hashed
    value of the column `group`.

    Raises
    ------
    UsageError
        An unknown space or column; or nothing is left, and the view may not be empty.
    """
    if not inputs:
        raise UsageError(f"inputs must name at least one space. Spaces: {', '.join(store.spaces) or 'none yet'}.")
    spaces = {name: store.space(name) for name in inputs}
    found = store.items.rows if where is None else store.where(where)
    present = np.zeros(len(found), dtype=bool)
    for space in spaces.values():
        present |= space.has(found)
    rows = found[present]
    types = store.items.column_types()
    targets = _columns_named(target, store.items.metadata_columns())
    for name in (*targets, *(() if group is None else (group,))):
        if name not in store.items.metadata_columns():
            known = ", ".join(store.items.metadata_columns()) or "none"
            raise UsageError(f"{store.path} has no metadata column {name!r}. Columns: {known}.")
    wanted = dict.fromkeys([*((*targets, "split") if targets else ()), *(() if group is None else (group,))])
    columns = ["id", *(name for name in wanted if name in types)]
    table = store.items.take(rows, columns)
    ids: Array = table.column("id").to_numpy()
    labels = _targets([table.column(name).to_pylist() for name in targets])
    groups = None if group is None else _groups(table.column(group).to_pylist(), ids)
    split = hashed_split(ids if groups is None else groups, seed=seed)
    if "split" in columns:
        split = parse_split(table.column("split").to_pylist(), default=split)
    keep = np.ones(len(rows), bool) if labels is None else np.asarray([not is_null(v) for v in labels], dtype=bool)
    if not len(found) and where is not None and not may_be_empty:
        raise UsageError(f"No item of {store.path} is left: none matches --where {where!r}.")
    if not keep.any() and not may_be_empty:
        raise UsageError(
            f"No item of {store.path} is left: {len(rows):,} have a vector in {', '.join(inputs)}"
            + (f", none of them a value in {', '.join(map(repr, targets))}." if targets else ".")
        )
    return View(
        store=store,
        spaces=spaces,
        rows=rows[keep],
        ids=ids[keep],
        target=None if labels is None else labels[keep],
        split=split[keep],
        target_name=",".join(targets) if targets else None,
        target_names=tuple(targets) if len(targets) > 1 else (),
        dropped=int((~keep).sum()),
        without_input=int((~present).sum()),
        split_column="split" in columns,
        groups=None if groups is None else groups[keep],
        group_name=group,
    )


def _columns_named(target: str | Sequence[str] | None, known: Sequence[str]) -> list[str]:
    """The columns of a target: one by its name, commas and all, or those that are listed, perhaps with commas between them."""
    if target is None:
        return []
    several = isinstance(target, str) and target not in known and "," in target
    names = [name.strip() for name in str(target).split(",") if name.strip()] if several else strings(target, "target")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"target names {twice!r} more than once.")
    if not names:
        raise UsageError(f"target should name a column. Columns: {', '.join(known) or 'none'}.")
    return names


def _targets(columns: Sequence[list[Any]]) -> Array | None:
    """The values (n,) of one column, or of several as tuples; None where all of an item's are null, or there is no column."""
    if len(columns) < 2:
        return _objects(columns[0]) if columns else None
    rows = (tuple(None if is_null(value) else value for value in row) for row in zip(*columns, strict=True))
    return _objects([None if all(value is None for value in row) else row for row in rows])


def _groups(values: list[Any], ids: Array) -> Array:
    """Group names (n,); an item without one is alone in a group of its own."""
    return _objects([f"item {i}" if is_null(v) else f"group {v}" for i, v in zip(ids.tolist(), values, strict=True)])


def _objects(values: list[Any]) -> Array:
    """Values as (n,) object, whatever they are."""
    return np.fromiter(values, object, len(values))  # lists of one length would become more than one dimension


def is_null(value: object) -> bool:
    """Whether a value of a metadata column says nothing: null, the empty text, or NaN."""
    return value is None or value == "" or (isinstance(value, float) and np.isnan(value))
