"""`Aligner`: makes the vectors of two frozen encoders comparable, from items that have both. Closed form, on arrays.

Regularised canonical correlation analysis (Hotelling 1936; ridge: Vinod 1976): each side is centred, whitened in the basis of
its principal components with a ridge, and turned into the directions in which the two sides correlate most. Directions are
weighted by a power of their correlations (Gong et al. 2014, arXiv 1212.4522), so that those that carry little weigh little.
Penalties, power and dimension are those that retrieve best, in both directions, among pairs that were not fitted on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from embedstore._core.threads import bounded
from embedstore._core.unit import unit_rows
from embedstore.errors import HeadError
from embedstore.evaluation.paired import Codes, Ranking, content_codes, copy_groups, rank_distinct, rank_pairs
from embedstore.heads.base import Array, Float, HeadState, Mask, as_inputs, check_inputs
from embedstore.heads.params import Params
from embedstore.heads.solvers.correlations import Basis, Choice, HeldOut, Sums, mean_reciprocal_ranks

MIN_PAIRS = 10
ONE_FOLD_FROM = 2000
"""Pairs from which one fold is enough to choose on."""


class Aligner(Params):
    """Two spaces made comparable by regularised CCA.

    Vectors are brought to unit length first: what search compares are directions.

    Parameters
    ----------
    penalties : sequence of float
        Ridge of either side as a multiple of its mean variance, to choose from; every pair of them is tried.
    powers : sequence of float
        Of the correlations by which directions are weighted, to choose from.
    dims : sequence of int
        Numbers of directions to choose from, beside all of them. Empty: all.
    folds : int
        On which the above are chosen where there are fewer than 2,000 pairs; with more, on one of them.
    seed : int
        Of the folds.

    Attributes
    ----------
    names_ : (str, str)
    dims_ : dict of name to width
    dim_ : int
        Width of projected vectors.
    mean_ : dict of name to (d,) float32
    weight_ : dict of name to (d, dim) float32
    correlations_ : (dim,) float64
        Regularised canonical correlations, descending.
    penalties_ : dict of name to float
    power_ : float
    pairs_ : int
        Items fitted on.
    mrr_ : float
        Mean reciprocal rank over both directions, contents once, on held-out pairs; NaN where there was nothing to choose.
    loss_, steps_ : str or None, int
        How it was trained further, see `embedstore.heads.trained_aligner`.
    """

    kind: ClassVar[str] = "align"

    names_: tuple[str, str]
    dims_: dict[str, int]
    dim_: int
    mean_: dict[str, npt.NDArray[np.float32]]
    weight_: dict[str, npt.NDArray[np.float32]]
    correlations_: Float
    penalties_: dict[str, float]
    power_: float
    pairs_: int
    mrr_: float
    loss_: str | None = None
    steps_: int = 0

    def __init__(
        self,
        *,
        penalties: Sequence[float] = (0.1, 0.3, 1.0, 3.0),
        powers: Sequence[float] = (0.25, 0.5, 1.0, 2.0),
        dims: Sequence[int] = (32, 64, 128, 256),
        folds: int = 5,
        seed: int = 0,
    ) -> None:
        self.penalties = penalties
        self.powers = powers
        self.dims = dims
        self.folds = folds
        self.seed = seed

    @bounded()
    def fit(
        self,
        X: Mapping[str, Array],
        *,
        present: Mapping[str, Mask] | None = None,
        groups: Array | None = None,
        like: Aligner | None = None,
    ) -> Self:
        """Fit to the items that have both inputs.

        Parameters
        ----------
        X : mapping of two names to (n, d1) and (n, d2)
        present : mapping of name to (n,) bool, optional
            Which items have the input; all, if omitted.
        groups : (n,) optional
            Items of one group are in one fold. Default: items with an equal vector on either side are.
        like : Aligner, optional
            Fitted to two inputs of these names: its penalties, power and dimension are taken, and nothing is chosen.

        Raises
        ------
        HeadError
            Not two inputs, shapes that do not fit, values that are not finite, a side that does not vary, or fewer than 10
            items that have both.
        """
        self._check_params()
        names, x, y, both = pairs_of(X, present)
        if like is None:
            folds = self.folds_of(
                copy_groups(content_codes(x), content_codes(y)) if groups is None else np.asarray(groups)[both]
            )
        else:
            folds = np.zeros(len(x), np.int64)
        sums = [Sums.of(x[folds == k], y[folds == k]) for k in range(int(folds.max()) + 1)]
        total = sum(sums[1:], sums[0])
        basis = Basis.of(total, names)
        self.names_, self.dims_ = names, {names[0]: x.shape[1], names[1]: y.shape[1]}
        choice, self.mrr_ = self._choose(sums, total, folds, x, y) if like is None else (like.choice, float("nan"))
        left, right, correlations = basis.solve(choice)
        self.pairs_, self.power_, self.correlations_ = len(x), choice.power, correlations[: choice.dim]
        self.penalties_ = dict(zip(names, (choice.first, choice.second), strict=True))
        self.dim_ = len(self.correlations_)
        directions = (basis.vectors[0] @ left[:, : self.dim_], basis.vectors[1] @ right[:, : self.dim_])
        scale = self.correlations_**self.power_
        self.mean_ = {name: mean.astype(np.float32) for name, mean in zip(names, basis.mean, strict=True)}
        self.weight_ = {n: np.ascontiguousarray(d * scale, np.float32) for n, d in zip(names, directions, strict=True)}
        return self

    def _choose(self, sums: Sequence[Sums], total: Sums, folds: Codes, x: Array, y: Array) -> tuple[Choice, float]:
        """The choice that retrieves best on held-out pairs: penalties and power first, then the dimension; and its MRR."""
        strong_first = sorted(map(float, self.penalties), reverse=True)
        candidates = [Choice(a, b, float(p)) for a, b in product(strong_first, repeat=2) for p in self.powers]
        if len(sums) < 2 or (len(candidates) == 1 and not self.dims):
            return candidates[0], float("nan")
        held_out = [
            HeldOut.of(Basis.of(total - sums[k], self.names_), x[folds == k], y[folds == k], seed=self.seed)
            for k in range(0 if len(x) < ONE_FOLD_FROM else len(sums) - 1, len(sums))  # the last has no very large group
        ]
        best = candidates[int(np.argmax(mean_reciprocal_ranks(held_out, candidates)))]
        widths = [d for d in sorted(self.dims) if d < min(fold.basis.rank for fold in held_out)]
        narrower = [replace(best, dim=d) for d in [*widths, None]]
        mrr = mean_reciprocal_ranks(held_out, narrower)
        return narrower[int(np.argmax(mrr))], float(mrr.max())

    @property
    def choice(self) -> Choice:
        """What was chosen."""
        first, second = (self.penalties_[name] for name in self.names_)
        return Choice(first, second, self.power_, self.dim_)

    def project(self, name: str, vectors: Array) -> npt.NDArray[np.float32]:
        """Vectors (n, d) of one side in the common space: (n, dim) float32 of unit length.

        Raises
        ------
        HeadError
            Not fitted, an unknown name, another width, or values that are not finite.
        """
        if not hasattr(self, "dims_"):
            raise HeadError("This Aligner is not fitted yet; call fit first.")
        if name not in self.dims_:
            raise HeadError(f"The aligner has no side {name!r}. Sides: {', '.join(self.dims_)}.")
        x = np.asarray(vectors)
        if x.ndim != 2 or x.shape[1] != self.dims_[name]:
            raise HeadError(f"Vectors of {name!r} should have shape (n, {self.dims_[name]}). Got {x.shape} instead.")
        if len(bad := np.flatnonzero(~np.isfinite(x).all(axis=1))):
            raise HeadError(f"Vector {bad[0]} of {name!r} holds NaN or infinity.")
        return unit_rows((unit_rows(x) - self.mean_[name]) @ self.weight_[name])

    def rank(
        self,
        X: Mapping[str, Array],
        *,
        present: Mapping[str, Mask] | None = None,
        codes: Mapping[str, Codes] | None = None,
        distinct: bool = False,
    ) -> dict[tuple[str, str], Ranking]:
        """Retrieval among the items that have both inputs, in both directions.

        Parameters
        ----------
        codes : mapping of name to (n,) int64, optional
            Contents, as of `content_codes`. Default: equal vectors are copies.
        distinct : bool
            Every content once, instead of every pair.

        Returns
        -------
        dict of (query's name, gallery's name) to Ranking
        """
        inputs, masks = as_inputs(X, present)
        check_inputs(inputs, masks, self.dims_)
        both = np.flatnonzero(masks[self.names_[0]] & masks[self.names_[1]])
        if not len(both):
            raise HeadError(f"No item has both {self.names_[0]!r} and {self.names_[1]!r}.")
        found = codes or {name: content_codes(x) for name, x in inputs.items()}
        projected = {name: self.project(name, inputs[name][both]) for name in self.names_}
        return {
            (q, g): (rank_distinct if distinct else rank_pairs)(projected[q], projected[g], found[q][both], found[g][both])
            for q, g in (self.names_, self.names_[::-1])
        }

    def score(self, X: Mapping[str, Array], *, present: Mapping[str, Mask] | None = None) -> float:
        """Mean reciprocal rank over both directions, every content once."""
        return float(np.mean([ranking.mrr for ranking in self.rank(X, present=present, distinct=True).values()]))

    def state(self) -> HeadState:
        """The fitted aligner, to be saved."""
        config = {"names": list(self.names_), "penalties": self.penalties_, "power": self.power_, "pairs": self.pairs_}
        config["mrr"] = None if np.isnan(self.mrr_) else self.mrr_
        config |= {} if self.loss_ is None else {"loss": self.loss_, "steps": self.steps_}
        sides = enumerate(self.names_)
        tensors = {
            f"{what}.{i}": value[name] for i, name in sides for what, value in (("mean", self.mean_), ("weight", self.weight_))
        }
        return HeadState(config, {**tensors, "correlations": self.correlations_})

    @classmethod
    def from_state(cls, params: Mapping[str, Any], state: HeadState) -> Self:
        """A fitted aligner from its constructor's `params` and its `state`."""
        made = cls(**params)
        first, second = state.config["names"]
        made.names_ = first, second
        made.mean_ = {name: state.tensors[f"mean.{i}"] for i, name in enumerate(made.names_)}
        made.weight_ = {name: state.tensors[f"weight.{i}"] for i, name in enumerate(made.names_)}
        made.correlations_ = state.tensors["correlations"]
        made.dims_ = {name: len(weight) for name, weight in made.weight_.items()}
        made.dim_ = len(made.correlations_)
        made.penalties_, made.power_, made.pairs_ = (
            dict(state.config["penalties"]),
            state.config["power"],
            state.config["pairs"],
        )
        made.loss_, made.steps_ = state.config.get("loss"), int(state.config.get("steps", 0))
        made.mrr_ = float("nan") if state.config["mrr"] is None else state.config["mrr"]
        return made

    def _check_params(self) -> None:
        if not len(self.penalties) or not all(p > 0 for p in self.penalties):
            raise HeadError(f"penalties should be numbers above 0, at least one. Got {self.penalties!r} instead.")
        if not len(self.powers) or not all(p >= 0 for p in self.powers):
            raise HeadError(f"powers should be numbers of 0 or more, at least one. Got {self.powers!r} instead.")
        if not all(d >= 1 for d in self.dims):
            raise HeadError(f"dims should be whole numbers of 1 or more. Got {self.dims!r} instead.")
        if self.folds < 2:
            raise HeadError(f"folds should be 2 or more. Got {self.folds!r} instead.")

    def folds_of(self, groups: Array) -> Codes:
        """Fold (n,) of each item, whole groups in each, as `fit` makes them."""
        return even_folds(groups, self.folds, self.seed)


def even_folds(groups: Array, folds: int, seed: int) -> Codes:
    """Fold (n,) of each item, whole groups in each, filled evenly: the largest group goes where there is most room."""
    _, codes, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    filled, fold_of = np.zeros(min(folds, len(sizes)), np.int64), np.empty(len(sizes), np.int64)
    for group in order.tolist():
        fold_of[group] = filled.argmin()
        filled[fold_of[group]] += sizes[group]
    return np.asarray(fold_of[codes.reshape(-1)])


def pairs_of(X: Mapping[str, Array], present: Mapping[str, Mask] | None) -> tuple[tuple[str, str], Array, Array, Array]:
    """The two names, the vectors of the items that have both, and which items (n,) those are."""
    if not isinstance(X, Mapping) or len(X) != 2:
        got = ", ".join(X) if isinstance(X, Mapping) else type(X).__name__
        raise HeadError(f"X should map two names to arrays (n, d). Got {got or 'none'} instead.")
    inputs, masks = as_inputs(X, present)
    check_inputs(inputs, masks, {name: x.shape[-1] for name, x in inputs.items()})
    first, second = inputs
    for name, x in inputs.items():
        if x.ndim != 2:
            raise HeadError(f"Input {name!r} should have shape (n, d). Got {x.shape} instead.")
    both = masks[first] & masks[second]
    if both.sum() < MIN_PAIRS:
        raise HeadError(
            f"An alignment needs at least {MIN_PAIRS} items that have both {first!r} and {second!r}; {both.sum()} do."
        )
    return (first, second), inputs[first][both], inputs[second][both], both
