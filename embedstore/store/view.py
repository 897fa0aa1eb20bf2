"""A view: items joined over several spaces, with a presence mask, a target and a split. What a head trains on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from embedstore.errors import UsageError
from embedstore.spec import EncoderSpec
from embedstore.splits import hashed_split, parse_split
from embedstore.store.items import Rows
from embedstore.store.space import Space

if TYPE_CHECKING:
    from embedstore.store.reader import Store

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class View:
    """Items of a store as arrays; rows are ordered as in the store.

    Vectors are read when `inputs` is first used; `blocks` and `select` give smaller views, so that a view larger than
    memory can be walked.

    Parameters
    ----------
    spaces : mapping of input name to Space
    rows : (n,) int64
    ids : (n,) object (str)
    target : (n,) object or None
        None where the view has no target; items whose target is null are not in the view.
    split : (n,) str
        ``"train"``, ``"val"`` or ``"test"``.
    target_name : str or None
    dropped : int
        Items left out because their target is null.
    split_column : bool
        Whether a column ``split`` decided, rather than the hashed id.
    """

    spaces: Mapping[str, Space]
    rows: Rows
    ids: Array
    target: Array | None
    split: Array
    target_name: str | None = None
    dropped: int = 0
    split_column: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def inputs(self) -> dict[str, Array]:
        """Input name → vectors (n, dim) of the space's dtype; zeros where an item has none (see `present`)."""
        return {name: self._gather(space, self.present[name]) for name, space in self.spaces.items()}

    @cached_property
    def present(self) -> dict[str, npt.NDArray[np.bool_]]:
        """Input name → mask (n,): whether the item has a vector there."""
        return {name: space.has(self.rows) for name, space in self.spaces.items()}

    @property
    def specs(self) -> dict[str, EncoderSpec]:
        """Input name → the encoder that made its vectors."""
        return {name: space.spec for name, space in self.spaces.items()}

    def select(self, index: Array) -> View:
        """The items at `index`: a mask (n,) or positions (m,)."""
        target = None if self.target is None else self.target[index]
        return replace(self, rows=self.rows[index], ids=self.ids[index], target=target, split=self.split[index])

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


def make_view(store: Store, *, inputs: Sequence[str], target: str | None, where: str | None, seed: int) -> View:
    """Join `inputs` over the items of `store`.

    An item is in the view if it has a vector in at least one of `inputs` and, where a `target` column is named, a value
    in it. A column ``split`` (train, val, test) decides the split; otherwise the hashed id does.

    Raises
    ------
    UsageError
        An unknown space or column, or nothing is left.
    """
    if not inputs:
        raise UsageError(f"inputs must name at least one space. Spaces: {', '.join(store.spaces) or 'none yet'}.")
    spaces = {name: store.space(name) for name in inputs}
    rows = store.items.rows if where is None else store.items.where(where)
    present = np.zeros(len(rows), dtype=bool)
    for space in spaces.values():
        present |= space.has(rows)
    rows = rows[present]
    types = store.items.column_types()
    if target is not None and target not in store.items.metadata_columns():
        known = ", ".join(store.items.metadata_columns()) or "none"
        raise UsageError(f"{store.path} has no metadata column {target!r}. Columns: {known}.")
    wanted = () if target is None else dict.fromkeys((target, "split"))
    columns = ["id", *(name for name in wanted if name in types)]
    table = store.items.take(rows, columns)
    ids: Array = table.column("id").to_numpy()
    labels = None if target is None else _objects(table.column(target).to_pylist())
    split = hashed_split(ids, seed=seed)
    if "split" in columns:
        split = parse_split(table.column("split").to_pylist(), default=split)
    keep = np.ones(len(rows), bool) if labels is None else np.asarray([not _is_null(v) for v in labels], dtype=bool)
    if not keep.any():
        raise UsageError(
            f"No item is left: {len(rows)} have a vector in {', '.join(inputs)}"
            + (f", none of them a value in {target!r}." if target else ".")
        )
    return View(
        spaces=spaces,
        rows=rows[keep],
        ids=ids[keep],
        target=None if labels is None else labels[keep],
        split=split[keep],
        target_name=target,
        dropped=int((~keep).sum()),
        split_column="split" in columns,
    )


def _objects(values: list[Any]) -> Array:
    """Values as (n,) object, whatever they are."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _is_null(value: object) -> bool:
    return value is None or value == "" or (isinstance(value, float) and np.isnan(value))
