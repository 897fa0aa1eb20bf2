"""What says that two vectors of different spaces belong together, as a few numbers a head can weigh. On arrays.

The first number is the cosine through an alignment (`Aligner`). The others ask pairs that are known to belong together:
the partners of the vectors nearest to one side say what the other side should be like, and the cosine to that is a number.
All of it is learned from the pairs that it is given, so one of these pairs looks better than it is: `left_out` gives the
numbers of each pair by what was learned from others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from embedstore._core.unit import unit_rows
from embedstore.errors import HeadError
from embedstore.evaluation.paired import Codes, content_codes
from embedstore.heads.aligner import MIN_PAIRS, Aligner, even_folds
from embedstore.heads.base import Array, HeadState
from embedstore.heads.knn import nearest

NEIGHBOURS = 5, 20
"""How many of the nearest known pairs are asked; each gives a number in each direction."""
SHARPNESS = 10.0
"""Neighbours weigh as e to this times their cosine."""
MOST_KNOWN = 20_000
"""Known pairs that are asked at most, drawn at random: they are kept with the head."""
FOLDS = 4
"""Parts that known pairs are left out in."""
LARGEST = 0.5
"""The largest share of all pairs that may hang together through common sides."""
BLOCK = 512

Pairs = tuple[Array, Array]


class PairFeatures:
    """Numbers of pairs (x, y), learned from pairs that belong together.

    Parameters
    ----------
    neighbours : sequence of int
        Numbers of nearest known pairs to ask; none: the cosine through the alignment alone.
    seed : int

    Attributes
    ----------
    aligner_ : Aligner
    known_ : (m, d1), (m, d2) float16
        Unit vectors of known pairs.
    mean_ : (d1,), (d2,) float32
        Of all of them.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(200, 4))
    >>> features = PairFeatures(neighbours=(5,)).fit((x, x[:, :3]))
    >>> features.of((x, x[:, :3])).shape
    (200, 3)
    """

    aligner_: Aligner
    known_: Pairs
    mean_: Pairs

    def __init__(self, neighbours: Sequence[int] = NEIGHBOURS, seed: int = 0) -> None:
        self.neighbours = tuple(neighbours)
        self.seed = seed

    @property
    def width(self) -> int:
        """How many numbers a pair has."""
        return 1 + 2 * len(self.neighbours)

    def fit(self, known: Pairs, *, like: Aligner | None = None) -> Self:
        """Learn from known pairs (m, d1), (m, d2); an alignment `like` another one chooses nothing again."""
        self.aligner_ = Aligner(seed=self.seed).fit({"x": known[0], "y": known[1]}, like=like)
        at = np.sort(np.random.default_rng(self.seed).permutation(len(known[0]))[:MOST_KNOWN])
        units = unit_rows(known[0]), unit_rows(known[1])
        self.mean_ = units[0].mean(axis=0), units[1].mean(axis=0)
        empty = at[:0] if not self.neighbours else at
        self.known_ = units[0][empty].astype(np.float16), units[1][empty].astype(np.float16)
        return self

    def of(self, pairs: Pairs) -> npt.NDArray[np.float32]:
        """The numbers (n, width) of pairs (n, d1), (n, d2)."""
        firsts = [_distinct(side) for side in pairs]  # an item is part of several pairs
        sides = [unit_rows(side[first]) for side, (first, _) in zip(pairs, firsts, strict=True)]
        of = [back for _, back in firsts]
        projected = [self.aligner_.project(name, side) for name, side in zip("xy", sides, strict=True)]
        found = [np.einsum("nd,nd->n", projected[0][of[0]], projected[1][of[1]])]
        centred = [unit_rows(side - mean) for side, mean in zip(sides, self.mean_, strict=True)]
        for side in (0, 1) if self.neighbours else ():
            for expected in self._expected(sides[side], side):
                found.append(np.einsum("nd,nd->n", expected[of[side]], centred[1 - side][of[1 - side]]))
        return np.stack(found, axis=1).astype(np.float32)

    def _expected(self, vectors: Array, side: int) -> list[npt.NDArray[np.float32]]:
        """By each number of neighbours, what the other side of `vectors` (n, d) should be like: centred, of unit length."""
        known, partners = self.known_[side], self.known_[1 - side].astype(np.float32)
        found = [np.empty((len(vectors), partners.shape[1]), np.float32) for _ in self.neighbours]
        for lo in range(0, len(vectors), BLOCK):
            block = slice(lo, lo + BLOCK)
            near, score = nearest([known], vectors[block], max(self.neighbours))
            weight = np.exp(SHARPNESS * (score - score[:, :1]))
            for k, out in zip(self.neighbours, found, strict=True):
                mean = np.einsum("nk,nkd->nd", weight[:, :k], partners[near[:, :k]]) / weight[:, :k].sum(axis=1, keepdims=True)
                out[block] = unit_rows(mean - self.mean_[1 - side])
        return found

    def left_out(self, pairs: Pairs, belong: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """The numbers (n, width) of pairs of which these `belong` (n,) together, each by what was learned from others.

        Pairs that share a side, directly or over others, are left out together, so that nothing is known of either side. Also
        returns which pairs (n,) could be: where most hang together, those whose sides belong to pairs left out apart cannot.
        """
        folds, kept = _folds(content_codes(pairs[0]), content_codes(pairs[1]), belong, self.seed)
        found = np.zeros((len(belong), self.width), np.float32)
        for fold in np.unique(folds[kept]).tolist():
            out = np.flatnonzero(kept & (folds == fold))
            rest = np.flatnonzero(belong & (folds != fold))
            if len(rest) < MIN_PAIRS:
                raise HeadError(
                    f"Matching needs pairs that have nothing to do with one another: without a part of them {len(rest)} are "
                    f"left, and at least {MIN_PAIRS} are needed."
                )
            other = PairFeatures(self.neighbours, self.seed).fit((pairs[0][rest], pairs[1][rest]), like=self.aligner_)
            found[out] = other.of((pairs[0][out], pairs[1][out]))
        return found, kept

    def state(self) -> HeadState:
        """What was learned, to be saved."""
        aligner = self.aligner_.state()
        arrays = {"known.0": self.known_[0], "known.1": self.known_[1], "mean.0": self.mean_[0], "mean.1": self.mean_[1]}
        config = {"neighbours": list(self.neighbours), "seed": self.seed, "aligner": aligner.config}
        return HeadState(config, {**arrays, **{f"aligner.{name}": value for name, value in aligner.tensors.items()}})

    @classmethod
    def from_state(cls, config: dict[str, Any], tensors: dict[str, Array]) -> Self:
        """What `state` gave."""
        made = cls(config["neighbours"], config["seed"])
        inner = {name.removeprefix("aligner."): value for name, value in tensors.items() if name.startswith("aligner.")}
        made.aligner_ = Aligner.from_state({}, HeadState(config["aligner"], inner))
        made.known_ = tensors["known.0"], tensors["known.1"]
        made.mean_ = tensors["mean.0"], tensors["mean.1"]
        return made


def _distinct(vectors: Array) -> tuple[Codes, Codes]:
    """Positions of distinct rows, and which of them each row (n,) is."""
    _, first, back = np.unique(content_codes(vectors), return_index=True, return_inverse=True)
    return first, back.reshape(-1)


def _folds(x: Codes, y: Codes, belong: npt.NDArray[np.bool_], seed: int) -> tuple[Codes, npt.NDArray[np.bool_]]:
    """The fold (n,) of each pair of contents `x` and `y` (n,), and which pairs have both sides in it."""
    together = _components(x, y, np.ones(len(x), bool))
    if np.bincount(together).max() <= LARGEST * len(x):
        return even_folds(together, FOLDS, seed), np.ones(len(x), bool)
    parts = _components(x, y, belong)
    fold_of = even_folds(parts[belong], FOLDS, seed)
    sides = []
    for codes in (x, y):
        known = np.full(int(codes.max()) + 1, -1)
        known[codes[belong]] = fold_of
        sides.append(known[codes])
    return sides[0], (sides[0] == sides[1]) & (sides[0] >= 0)


def _components(x: Codes, y: Codes, linked: npt.NDArray[np.bool_]) -> Codes:
    """A number for each pair (n,), the same where pairs of those `linked` connect their sides."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    first, second = int(x.max()) + 1, int(y.max()) + 1
    edges = (np.ones(int(linked.sum()), bool), (x[linked], first + y[linked]))
    found = connected_components(coo_array(edges, shape=(first + second, first + second)), directed=False)[1]
    return np.unique(found[x], return_inverse=True)[1].reshape(-1)
