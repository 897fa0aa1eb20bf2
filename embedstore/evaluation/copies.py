"""Copies across a split: test items whose payload, or nearly the same vector, is among the training items."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.evaluation.nearest import unit

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
Positions = npt.NDArray[np.int64]

NEAR = 0.97
"""Cosine above which two vectors are near copies, unless vectors that have nothing to do with one another come as near."""
FALSE_ALARMS = 0.05
"""The share of test items that may have a near copy by chance."""
EQUAL = 1e-5
"""1 - cosine of vectors that are equal but for rounding."""
LEVELS = 10, 30, 100, 300
"""The neighbours of a test item by which the chance of nearer ones is told; true copies are fewer than the first."""
MOST_COPIES = 5
"""An item with more than this is taken to be in a cluster of its kind."""
SAMPLE = 512, 4096
"""Test and training items whose cosines are looked at for that."""
LEAST_JUDGED = 20
"""Items without a copy from which on scores over them alone mean something."""
WORK = 2_000_000_000
"""Pairs that are compared at most; beyond, a sample of the test items is checked."""
BLOCK = 512
EVERY = "every input"


@dataclass(frozen=True)
class Copies:
    """Which of the checked items have a copy in training.

    Parameters
    ----------
    checked : (t,) positions of the test items compared
    exact, near : dict of input to mask (t,)
        The same content, or a cosine above the threshold. Under ``"every input"``: one training item is a near copy in all
        inputs that the test item has.
    thresholds : dict of input to float
    """

    checked: Positions
    exact: dict[str, Mask]
    near: dict[str, Mask]
    thresholds: dict[str, float] = field(default_factory=dict)

    @property
    def rule(self) -> str:
        """What makes a near copy, in words."""
        if set(self.thresholds.values()) <= {NEAR}:
            return f"cosine > {NEAR:g} in {EVERY}"
        return "cosine > " + " and ".join(f"{value:.7g} in {name}" for name, value in self.thresholds.items())

    @classmethod
    def none(cls) -> Copies:
        """Those of no item."""
        return cls(np.empty(0, np.int64), {}, {EVERY: np.zeros(0, bool)})

    def __add__(self, other: Copies) -> Copies:
        """Those of two folds."""
        return Copies(
            np.concatenate([self.checked, other.checked]),
            {name: np.concatenate([mask, other.exact[name]]) for name, mask in self.exact.items()},
            {name: np.concatenate([mask, other.near[name]]) for name, mask in self.near.items()},
            {name: max(value, other.thresholds[name]) for name, value in self.thresholds.items()},
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "checked": len(self.checked),
            "exact": {name: int(mask.sum()) for name, mask in self.exact.items()},
            "near": {name: int(mask.sum()) for name, mask in self.near.items()},
            "thresholds": self.thresholds,
        }


def find_copies(
    inputs: Mapping[str, Array],
    present: Mapping[str, Mask],
    hashes: Mapping[str, Array],
    *,
    train: Positions,
    test: Positions,
    seed: int = 0,
) -> Copies:
    """Compare test items with training items.

    Parameters
    ----------
    inputs, present : mapping of input to (n, d) and (n,)
    hashes : mapping of input to (n, 2) uint64
        Content hashes of the payloads; zeros where absent. May lack inputs.
    train, test : (m,), (t,) positions
    """
    if len(test) * len(train) > WORK:
        test = np.sort(np.random.default_rng(seed).permutation(test)[: max(1, WORK // len(train))])
    exact = {name: _equal(hashes[name], train, test) & present[name][test] for name in inputs if name in hashes}
    near = {name: np.zeros(len(test), bool) for name in [*inputs, EVERY]}
    units = {name: unit(x[train], present[name][train]) for name, x in inputs.items()}
    thresholds = {name: _threshold(x, present[name], train, test, seed) for name, x in inputs.items()}
    for lo in range(0, len(test), BLOCK):
        block = test[lo : lo + BLOCK]
        everywhere = np.ones((len(block), len(train)), bool)
        for name, x in inputs.items():
            has = present[name][block]
            close = unit(x[block], has) @ units[name].T > thresholds[name]
            near[name][lo : lo + BLOCK] = close.any(axis=1)
            everywhere &= close | ~has[:, None]
        near[EVERY][lo : lo + BLOCK] = everywhere.any(axis=1)
    return Copies(test, exact, near, thresholds)


def same_items(hashes: Mapping[str, Array], present: Mapping[str, Mask], groups: Array | None = None) -> Positions:
    """A number for each item (n,), the same for copies of one another and for items of one group.

    Two items are copies where their content is equal in every input that one of them has; the other may have more.

    Parameters
    ----------
    hashes, present : mapping of input to (n, 2) uint64 and (n,)
        Content hashes of the payloads. Inputs without hashes are not looked at.
    groups : (n,), optional
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    masks = np.stack([present[name] for name in hashes], axis=1)
    links = [np.empty((2, 0), np.int64)]
    if groups is not None:
        links.append(_to_firsts(np.arange(len(masks)), groups.astype(str)))
    for pattern in np.unique(masks[masks.any(axis=1)], axis=0):
        has = np.flatnonzero(masks[:, pattern].all(axis=1))
        keys = _void(np.concatenate([x[has] for x, of in zip(hashes.values(), pattern.tolist(), strict=True) if of], axis=1))
        shared = np.isin(keys, keys[(masks[has] == pattern).all(axis=1)])
        links.append(_to_firsts(has[shared], keys[shared]))
    a, b = np.concatenate(links, axis=1)
    graph = coo_array((np.ones(len(a), bool), (a, b)), shape=(len(masks), len(masks)))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)


def _to_firsts(items: Positions, keys: Array) -> Positions:
    """Links (2, m) from each of `items` (m,) to the first one with the same key."""
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    return np.stack([items, items[first][inverse]])


def _threshold(x: Array, present: Mask, train: Positions, test: Positions, seed: int) -> float:
    """The cosine above which a training item is a near copy: `NEAR`, or higher where that many are as near by chance.

    Within a small distance δ = 1 - cosine lies a share of all pairs that falls as a power of δ. Its exponent is told by two
    distances, within which there are many more items than copies, and followed to where only `FALSE_ALARMS` are left. Across
    the edge of a cluster the share hardly falls, so the pair of distances that allows most is believed, unless it overlooked
    a nearer cluster: then more items than an item has copies (`MOST_COPIES`) are within what it allows.
    """
    train, test = train[present[train]], test[present[test]]
    rng = np.random.default_rng(seed)
    some, among = (np.sort(rng.permutation(of)[:size]) for of, size in zip((test, train), SAMPLE, strict=True))
    if not len(some) or not len(among):
        return NEAR
    distance = 1 - unit(x[some], present[some]) @ unit(x[among], present[among]).T
    distance = distance[distance > EQUAL]  # equal vectors are copies, however many there are, and tell nothing of others
    if not len(distance):
        return NEAR
    wanted, least = FALSE_ALARMS / len(train), EQUAL / 100 * x.shape[1] ** 0.5
    found = [least]
    for share in sorted({min(count / len(train), 0.1) for count in LEVELS}):
        near, far = np.maximum(np.quantile(distance, [share, 3 * share]), least)
        allowed = float(near * (wanted / share) ** (np.log(far / near) / np.log(3)))
        if (distance < min(allowed, 1 - NEAR)).mean() * len(train) <= MOST_COPIES:
            found.append(allowed)
    return float(max(NEAR, 1 - max(found)))


def _equal(hashes: Array, train: Positions, test: Positions) -> Mask:
    void = _void(hashes)
    return np.isin(void[test], void[train])


def _void(rows: Array) -> Array:
    """Rows (n, k) as values (n,) that can be compared."""
    return np.ascontiguousarray(rows).view(f"V{rows.dtype.itemsize * rows.shape[1]}").ravel()
