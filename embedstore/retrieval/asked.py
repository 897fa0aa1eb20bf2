"""What is asked, as vectors of spaces: several queries weighted, by space, and as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from embedstore._core.unit import unit_rows
from embedstore.errors import UsageError
from embedstore.retrieval.aligned_spaces import SearchableSpace

Float = npt.NDArray[np.float32]
CANCELLED = 1e-6  # of the weights: what is left is rounding


@dataclass(frozen=True)
class Asked:
    """One query as a vector of a space.

    Parameters
    ----------
    space : SearchableSpace
    vector : (dim,) float32
    weight : float
    leave_out : tuple of int
        Rows that are part of the question, not of the answer.
    note : str, optional
    pieces : (q, dim) float32, optional
        The vectors of the query's own pieces, where it has several; `vector` is then one for all of them.
    aligned : tuple of str
        Spaces of aligners that the query could search as well, where none was named.
    """

    space: SearchableSpace
    vector: Float
    weight: float = 1.0
    leave_out: tuple[int, ...] = ()
    note: str | None = None
    aligned: tuple[str, ...] = ()
    pieces: Float | None = None

    @property
    def several(self) -> Float:
        """What an item is compared with (q, dim): the query's pieces, or its one vector."""
        return self.vector[None] if self.pieces is None else self.pieces


def joined(asked: Sequence[Asked]) -> Mapping[str, list[Asked]]:
    """Queries by the space that they search."""
    groups: dict[str, list[Asked]] = {}
    for one in asked:
        groups.setdefault(one.space.name, []).append(one)
    return groups


def weighted(asked: list[Asked], weights: Sequence[float] | None, fusion: str) -> list[Asked]:
    """The queries with their weights, one for each.

    Raises
    ------
    UsageError
        Not as many; no numbers; all zero; below 0 where queries are not added up as vectors.
    """
    if weights is None:
        return asked
    try:
        with np.errstate(over="ignore"):
            values = np.asarray(weights, np.float32).ravel()
    except (TypeError, ValueError):
        raise UsageError(f"weights should be numbers. Got {weights!r} instead.") from None
    if len(values) != len(asked):
        raise UsageError(f"There are {len(asked)} queries but {len(values)} weights; give one for each.")
    if not np.isfinite(values).all() or not values.any():
        raise UsageError(f"weights should be numbers that float32 holds, not all zero. Got {weights!r} instead.")
    if values.min() < 0 and (fusion != "score" or len(joined(asked)) > 1):
        raise UsageError(
            f"Weights below 0 need queries in one space, which are added up. Got {weights!r} across spaces or with rrf."
        )
    return [replace(one, weight=one.weight * float(weight)) for one, weight in zip(asked, values, strict=True)]


def combined(group: Sequence[Asked]) -> Asked:
    """Queries of one space as one: the sum of weighted cosines is the cosine to the weighted sum.

    Of several queries each is its one vector, and none its pieces.
    """
    if len(group) == 1 and group[0].weight >= 0:
        return group[0]
    vectors = unit_rows(np.stack([one.vector for one in group]))
    weights = np.asarray([one.weight for one in group], np.float32)
    vector = weights @ vectors
    if not np.linalg.norm(vector) > CANCELLED * np.abs(weights).sum():
        raise UsageError("The queries, with their weights, cancel one another out. Change a weight.")
    return replace(group[0], vector=vector, pieces=None, weight=float(np.abs(weights).sum()))


def directed(vector: Float, what: str) -> Float:
    """`vector` (dim,), unless it is all zeros.

    Raises
    ------
    UsageError
        Begins with `what`.
    """
    if not vector.any():
        raise UsageError(f"{what} is all zeros; it has no direction to search in.")
    return vector
