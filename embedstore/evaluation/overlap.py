"""Copies across a split: test items whose payload, or nearly the same vector, is among the training items."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.evaluation.nearest import unit

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
Positions = npt.NDArray[np.int64]

NEAR = 0.97
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
        The same content, or a cosine above 0.97. Under ``"every input"``: one training item is a near copy in all inputs
        that the test item has.
    """

    checked: Positions
    exact: dict[str, Mask]
    near: dict[str, Mask]

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
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "checked": len(self.checked),
            "exact": {name: int(mask.sum()) for name, mask in self.exact.items()},
            "near": {name: int(mask.sum()) for name, mask in self.near.items()},
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
    for lo in range(0, len(test), BLOCK):
        block = test[lo : lo + BLOCK]
        everywhere = np.ones((len(block), len(train)), bool)
        for name, x in inputs.items():
            has = present[name][block]
            close = unit(x[block], has) @ units[name].T > NEAR
            near[name][lo : lo + BLOCK] = close.any(axis=1)
            everywhere &= close | ~has[:, None]
        near[EVERY][lo : lo + BLOCK] = everywhere.any(axis=1)
    return Copies(test, exact, near)


def _equal(hashes: Array, train: Positions, test: Positions) -> Mask:
    void = np.ascontiguousarray(hashes).view(f"V{hashes.dtype.itemsize * hashes.shape[1]}").ravel()
    return np.isin(void[test], void[train])
