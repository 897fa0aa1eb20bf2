"""Which items to label next, or to keep: by how they lie, and by how sure a head is of them. Arrays only."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore._core.kmeans import assign, kmeans
from embedstore._core.unit import unit_rows

Array = npt.NDArray[Any]
Float = npt.NDArray[np.float64]
Positions = npt.NDArray[np.int64]

NEIGHBOURS = 20
ROUNDS = 9
"""Of k-means."""
BLOCK = 4096


def spread(vectors: Array, n: int, *, held: Array | None = None) -> tuple[Positions, Float]:
    """`n` of `vectors` (m, d), each the farthest from all before it and from those `held` (h, d): greedy k-centre.

    Returns
    -------
    chosen : (n,) positions
    distances : (n,) float64
        Cosine distance of each to the nearest one before it; infinite for the first where nothing is held.

    Notes
    -----
    Gonzalez 1985; as core-sets for labelling, Sener & Savarese 2018. The first is the most central one, not one at random.
    """
    unit = unit_rows(vectors)
    nearest = np.full(len(unit), np.inf)
    if held is not None and len(held):
        for lo in range(0, len(held), BLOCK):
            nearest = np.minimum(nearest, 1 - (unit @ unit_rows(held[lo : lo + BLOCK]).T).max(axis=1))
    chosen, distances = [], []
    for _ in range(min(n, len(unit))):
        none = not np.isfinite(nearest).any()
        at = int(np.argmax(unit @ unit.mean(axis=0))) if none else int(np.argmax(nearest))
        chosen.append(at)
        distances.append(float(nearest[at]))
        nearest = np.minimum(nearest, 1 - unit @ unit[at])
        nearest[chosen] = -np.inf
    return np.asarray(chosen, np.int64), np.asarray(distances)


def typical(vectors: Array, n: int, *, held: Array | None = None, seed: int = 0) -> tuple[Positions, Float]:
    """`n` of `vectors` (m, d) from the middle of as many clusters, those first that hold most and none of the vectors `held`.

    Returns
    -------
    chosen : (n,) positions
    density : (n,) float64
        Mean cosine of each to its nearest neighbours within its cluster.

    Notes
    -----
    Hacohen, Dekel & Weinshall 2022 (TypiClust).
    """
    if not len(vectors):
        return np.empty(0, np.int64), np.empty(0)
    own = unit_rows(vectors)
    held = np.empty((0, own.shape[1]), own.dtype) if held is None else unit_rows(held)
    every = np.concatenate([own, held])
    clusters = assign(every, kmeans(every, min(n + len(held), len(every)), seed=seed, rounds=ROUNDS))
    mine, theirs = clusters[: len(own)], clusters[len(own) :]
    taken = set(theirs.tolist())
    sizes = np.bincount(clusters, minlength=clusters.max(initial=0) + 1)
    density = np.zeros(len(own))
    for cluster in np.unique(mine):
        members = np.flatnonzero(mine == cluster)
        density[members] = _density(own[members])
    order = sorted(np.unique(mine).tolist(), key=lambda c: (c in taken, -sizes[c], c))
    chosen: list[int] = []
    left = np.ones(len(own), bool)
    while len(chosen) < min(n, len(own)):  # more than one of a cluster where there are fewer clusters
        for cluster in order:
            members = np.flatnonzero((mine == cluster) & left)
            if len(members) and len(chosen) < n:
                chosen.append(int(members[np.argmax(density[members])]))
                left[chosen[-1]] = False
    return np.asarray(chosen, np.int64), density[chosen]


def uncertain(probabilities: Array, n: int) -> tuple[Positions, Float]:
    """The `n` of (m, c) whose two likeliest classes are nearest to one another.

    Returns
    -------
    chosen : (n,) positions
        The least certain first.
    margins : (n,) float64
        Difference of the two probabilities.
    """
    margins = margin(probabilities)
    chosen = np.argsort(margins, kind="stable")[:n]
    return chosen.astype(np.int64), margins[chosen]


def margin(probabilities: Array) -> Float:
    """How much likelier the likeliest class is than the second one (m,), of (m, c) with two classes or more."""
    top = np.partition(probabilities, -2, axis=1)[:, -2:]
    return np.asarray(top[:, 1] - top[:, 0], np.float64)


def graded(margins: Array, n: int, seed: int) -> Positions:
    """`n` of items with these `margins` (m,) at random: one of rank r by its margin with a probability in proportion to 1 / r.

    About half of them are the `n²` least certain ones or so, the others come from everywhere: a head that was only ever told of
    what it doubts does not learn what it takes for granted.
    """
    if not len(margins):
        return np.empty(0, np.int64)
    order = np.argsort(margins, kind="stable")
    share = 1 / np.arange(1, len(order) + 1)
    drawn = np.random.default_rng(seed).choice(len(order), min(n, len(order)), replace=False, p=share / share.sum())
    return order[drawn].astype(np.int64)


def balanced(probabilities: Array, n: int, counts: Array) -> tuple[Positions, Float]:
    """`n` of (m, c), each of the class that has the fewest items by then, of those the likeliest to be of it.

    Parameters
    ----------
    counts : (c,) int
        Items that each class has already.

    Returns
    -------
    chosen : (n,) positions
    probability : (n,) float64
        Of the class that each was chosen for.
    """
    have, left = np.asarray(counts, np.int64).copy(), np.ones(len(probabilities), bool)
    predicted = probabilities.argmax(axis=1)
    chosen: list[int] = []
    sure: list[float] = []
    for _ in range(min(n, len(probabilities))):
        for wanted in np.argsort(have, kind="stable"):
            members = np.flatnonzero(left & (predicted == wanted))
            if len(members):
                break
        at = int(members[np.argmax(probabilities[members, wanted])])
        chosen.append(at)
        sure.append(float(probabilities[at, wanted]))
        left[at] = False
        have[wanted] += 1
    return np.asarray(chosen, np.int64), np.asarray(sure)


def _density(unit: Array) -> Float:
    """The mean cosine (m,) of each row to its nearest neighbours among the others."""
    if len(unit) == 1:
        return np.zeros(1)
    k = min(NEIGHBOURS, len(unit) - 1)
    found = np.empty(len(unit))
    for lo in range(0, len(unit), BLOCK):
        cosines = unit[lo : lo + BLOCK] @ unit.T
        rows = np.arange(len(cosines))
        cosines[rows, lo + rows] = -np.inf
        found[lo : lo + BLOCK] = np.partition(cosines, -k, axis=1)[:, -k:].mean(axis=1)
    return found
