"""Pairs of items as a view: each item's own two sides, and others drawn on the same side of the split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore._core.splits import SPLITS, hashed_fraction
from embedstore._core.unit import unit_rows
from embedstore.errors import HeadError, UsageError
from embedstore.evaluation.pair_metrics import HARD, PAIR, RANDOM
from embedstore.evaluation.paired import Codes, content_codes, copy_groups
from embedstore.retrieval.align import split_of_pairs
from embedstore.store import Store, View
from embedstore.store.items import Rows
from embedstore.training.train_options import TrainOptions

Array = npt.NDArray[Any]

NEAREST = 10
"""Of the items most like one, other than its copies, one is drawn for a hard pair."""
MOST_ITEMS = 10_000
"""Items of a part of the split, and of a block of training items, that pairs are made of at most."""
BLOCKS, LEAST_IN_BLOCK = 5, 40
"""Parts of the training items within which pairs are drawn, so that a head can be fitted to some and tried on others."""
LEAST = 20
"""Items that have both sides, in training, from which on pairs can be learned."""
ROWS = 512


@dataclass(frozen=True)
class PairView(View):
    """Pairs of items: `rows` and `ids` are those of the first side, `partners` the rows of the second (n,).

    The target (n,) holds what a pair is: `PAIR`, `RANDOM` or `HARD`. A pair's group is that of the item it was drawn for.
    """

    partners: Rows = field(default_factory=lambda: np.empty(0, np.int64))
    unit = "pairs"

    @property
    def sides(self) -> Mapping[str, Rows]:
        """Space → the rows (n,) whose vectors it gives."""
        return dict(zip(self.spaces, (self.rows, self.partners), strict=True))

    @cached_property
    def inputs(self) -> dict[str, Array]:
        """Space → vectors (n, dim)."""
        return {name: self.spaces[name].take(rows) for name, rows in self.sides.items()}

    @cached_property
    def present(self) -> dict[str, npt.NDArray[np.bool_]]:
        """Both sides are always there."""
        return {name: np.ones(len(self), bool) for name in self.spaces}

    @property
    def hashes(self) -> dict[str, Array]:
        return {name: self.spaces[name].hash_of(rows) for name, rows in self.sides.items()}

    def select(self, index: Array) -> PairView:
        found = super().select(index)
        assert isinstance(found, PairView)  # `replace` keeps the class
        return replace(found, partners=self.partners[index])


@dataclass(frozen=True)
class Asked:
    """Which pairs are drawn.

    Parameters
    ----------
    inputs : (str, str)
        Spaces.
    where, group : str, optional
        As `train` takes them.
    negatives, hard, seed
        Likewise.
    never : (n,) str
        Ids of items that make no pair, and neither do others that share a payload, or a value of `group`, with one of them.
    """

    inputs: Sequence[str]
    where: str | None = None
    group: str | None = None
    negatives: int = TrainOptions.negatives
    hard: float = TrainOptions.hard
    seed: int = 0
    never: Array = field(default_factory=lambda: np.empty(0, str))


def pairs_to_learn(store: Store, asked: Asked) -> tuple[PairView, list[str]]:
    """Pairs of the items of `store` that have both inputs, with their split, and what people should know of them.

    Items that share a payload in either space, or a value of the column `group`, are on one side of the split, and no such two
    make a pair that does not belong together. A column ``split`` decides for each item; where it sends such items to several
    parts, those stay that are in the first of train, val and test, and the others make no pair.

    Raises
    ------
    UsageError, HeadError
        Not two spaces, or too few items.
    """
    view, codes, notes = _whole(store, asked)
    groups = copy_groups(*codes) if len(view) else np.empty(0, np.int64)
    split, by_column = split_of_pairs(view, groups, asked.seed) if len(view) else (np.empty(0, str), False)
    if by_column and not (stays := _in_one_part(split, groups)).all():
        notes.append(
            f"{int((~stays).sum()):,} items share {_shared(asked)} with items in an earlier part of the column 'split' (train, "
            "val, test), and make no pair"
        )
        view, groups, split, codes = view.select(stays), groups[stays], split[stays], [c[stays] for c in codes]
    counts = {part: int((split == part).sum()) for part in SPLITS}
    if counts["train"] < LEAST or counts["val"] < 2 or counts["test"] < 2:
        said = ", ".join(f"{count} {part}" for part, count in counts.items())
        raise HeadError(
            f"{len(view):,} items of {store.path} have both {' and '.join(asked.inputs)} ({said}); at least {LEAST} train, "
            "2 val and 2 test are needed. Embed more items that have both."
        )
    pairs, more = _drawn(view, codes, groups, _pools(split, groups, asked.seed), asked)
    return replace(pairs, split_column=by_column), [*notes, *more]


def pairs_to_judge(store: Store, asked: Asked) -> tuple[PairView, list[str]]:
    """Pairs of the items of `store` that have both inputs, all of them drawn from all.

    Raises
    ------
    HeadError
        Fewer than two such items are left.
    """
    view, codes, notes = _whole(store, asked)
    if len(view) < 2:
        raise HeadError(
            f"{len(view)} items of {store.path} have both {' and '.join(asked.inputs)} and share nothing with those that were "
            "fitted on. Evaluate on "
            "another store, add items, or count what the head has seen (--seen; such scores flatter)."
        )
    pairs, more = _drawn(view, codes, copy_groups(*codes), [("test", np.arange(len(view)))], asked)
    return pairs, [*notes, *more]


def _in_one_part(split: Array, groups: Codes) -> npt.NDArray[np.bool_]:
    """Which items (n,) are in the first part of the split, of train, val and test, that any item of their group is in."""
    part = np.array([SPLITS.index(name) for name in split.tolist()], np.int64)
    first = np.full(groups.max(initial=-1) + 1, len(SPLITS))
    np.minimum.at(first, groups, part)
    return np.asarray(part == first[groups], bool)


def _whole(store: Store, asked: Asked) -> tuple[View, list[Codes], list[str]]:
    """The items that have both sides, what makes two of them copies or of one group, and a note about the others."""
    if len(asked.inputs) != 2 or asked.inputs[0] == asked.inputs[1]:
        raise UsageError(
            f"Matching compares two spaces; name them: --inputs image,text. Got {', '.join(asked.inputs)}; "
            f"spaces: {', '.join(store.spaces)}."
        )
    every = store.view(inputs=list(asked.inputs), where=asked.where, group=asked.group)
    view = _with_both(every)
    lacking = len(every) - len(view) + every.without_input
    notes = [f"{lacking:,} items lack one of {' and '.join(asked.inputs)} and make no pair"] if lacking else []
    if len(asked.never):
        view = view.select(~np.isin(view.ids.astype(str), asked.never))
        known = every if asked.where is None else store.view(inputs=list(asked.inputs), group=asked.group)
        like = np.isin(view.rows, _like(_with_both(known), asked.never))
        view = view.select(~like)
        if like.any():
            shared = _shared(asked)
            notes.append(f"{int(like.sum()):,} items share {shared} with items that the head was fitted on, and make no pair")
    return view, _codes(view), notes


def _with_both(view: View) -> View:
    return view.select(np.logical_and(*view.present.values()))


def _codes(view: View) -> list[Codes]:
    """What makes two items (n,) copies of one another, or of one group."""
    codes = [content_codes(found) for found in view.hashes.values()]
    if view.groups is not None:
        codes.append(np.unique(view.groups.astype(str), return_inverse=True)[1].astype(np.int64).reshape(-1))
    return codes


def _like(view: View, ids: Array) -> Rows:
    """Rows of the items that are not told apart from those with `ids`, which are among them."""
    seen = np.isin(view.ids.astype(str), ids)
    if not seen.any():
        return view.rows[:0]
    groups = copy_groups(*_codes(view))
    return view.rows[np.isin(groups, groups[seen])]


def _shared(asked: Asked) -> str:
    return "a payload" if asked.group is None else f"a payload or a {asked.group}"


def _drawn(
    view: View, codes: list[Codes], groups: Codes, pools: Sequence[tuple[str, Codes]], asked: Asked
) -> tuple[PairView, list[str]]:
    """Pairs within each of the `pools`, which are (split, positions in `view`)."""
    drawn, left_out = [], 0
    for number, (part, pool) in enumerate(pools):
        rng = np.random.default_rng((asked.seed, number))
        if len(pool) > MOST_ITEMS:
            left_out += len(pool) - MOST_ITEMS
            pool = np.sort(rng.permutation(pool)[:MOST_ITEMS])
        found = drawn_pairs(view.select(pool), [c[pool] for c in codes], asked.negatives, asked.hard, rng)
        of, first, second, kind = found
        drawn.append((np.full(len(of), part), pool[of], pool[first], pool[second], kind))
    parts, of, first, second, kind = (np.concatenate(column) for column in zip(*drawn, strict=True))
    if (kind == PAIR).all():
        raise HeadError(f"All items of {view.store.path} share their payloads: no pair of them does not belong together.")
    pairs = PairView(
        store=view.store,
        spaces=view.spaces,
        rows=view.rows[first],
        ids=view.ids[first],
        target=kind.astype(object),
        split=parts,
        target_name="-".join(asked.inputs),
        groups=groups[of].astype(str).astype(object),
        group_name="item",
        partners=view.rows[second],
    )
    return pairs, [f"{left_out:,} items, drawn at random, make no pair: there are enough"] if left_out else []


def _pools(split: Array, groups: Codes, seed: int) -> list[tuple[str, Codes]]:
    """The parts of the split, that of training in blocks, as positions; copies are in one block."""
    train = np.flatnonzero(split == "train")
    count = max(2, min(BLOCKS, len(train) // LEAST_IN_BLOCK))
    fraction = hashed_fraction([str(group) for group in groups[train].tolist()], seed=seed + 1)
    block = (fraction * count).astype(int)
    pools = [("train", train[block == k]) for k in range(count) if (block == k).any()]
    return [*pools, *((part, np.flatnonzero(split == part)) for part in ("val", "test"))]


def drawn_pairs(
    view: View, codes: list[Codes], negatives: int, hard: float, rng: np.random.Generator
) -> tuple[Codes, Codes, Codes, Codes]:
    """Pairs of the items of `view`: whose they are, their first and second side (positions), and what they are, each (m,).

    Parameters
    ----------
    codes : list of (n,) int64
        Two items with one code make no pair of different items.
    negatives : int
        For each item.
    hard : float
        The share of them that are drawn from the nearest items, in the first and the second space by turns.
    """
    n = len(view)
    units = [unit_rows(x) for x in view.inputs.values()]
    ways = [HARD] * round(negatives * hard) + [RANDOM] * (negatives - round(negatives * hard))
    found = [(np.arange(n), np.arange(n), np.full(n, PAIR))]
    for lo in range(0, n, ROWS):
        at = np.arange(lo, min(lo + ROWS, n))
        same = np.logical_or.reduce([c[at, None] == c[None] for c in codes])
        near = [_nearest(np.where(same, -np.inf, x[at] @ x.T)) for x in units]
        for turn, kind in enumerate(ways):
            if kind == HARD:
                among = near[turn % 2]
                other = among[np.arange(len(at)), rng.integers(0, among.shape[1], len(at))]
            else:
                other = np.where(same, -1.0, rng.random(same.shape)).argmax(axis=1)
            good = ~same[np.arange(len(at)), other]
            found.append((at[good], other[good], np.full(int(good.sum()), kind)))
    of, other, kinds = (np.concatenate(column).astype(np.int64) for column in zip(*found, strict=True))
    swapped = rng.random(len(of)) < 0.5
    return of, np.where(swapped, other, of), np.where(swapped, of, other), kinds


def _nearest(similarity: Array) -> Codes:
    """Positions (m, k) of the most similar, where there are fewer the last ones again."""
    k = min(NEAREST, similarity.shape[1])
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    good = np.isfinite(np.take_along_axis(similarity, order, axis=1)).sum(axis=1)
    return np.take_along_axis(order, np.minimum(np.arange(k)[None], np.maximum(good - 1, 0)[:, None]), axis=1)
