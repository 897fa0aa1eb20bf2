"""The k-nearest-neighbour head: a cosine vote of the training items, modality by modality.

Similarities of the modalities that both items have are averaged with weights chosen by leave-one-out.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from embedstore._core.unit import unit_rows
from embedstore.heads.base import Array, Codes, Data, Float, Head, HeadState, log_softmax, nll
from embedstore.heads.params import Choice, Real, Tunable, Whole
from embedstore.heads.solvers.design_matrix import Standardizer

BLOCK = 2048
"""Items that are asked about at once."""
SCORES = 1 << 24
"""Similarities that are held at once, whatever the number of training items."""
SAMPLE = 2048
"""Items that k, temperature and weights are chosen on, by leave-one-out."""
ALL_PAIRS = 20_000
"""Items up to which every one may be predicted from all others."""
NEIGHBOURS = Whole(1, 64, log=True, listed=True, levels=7)
"""Those that tuning tries."""


class KnnHead(Head):
    """Weighted cosine k-nearest neighbours on standardised inputs.

    Parameters
    ----------
    ks : sequence of int
        Numbers of neighbours tried.
    temperatures : sequence of float
        A neighbour of similarity s votes with exp(s / temperature).
    weights : str
        ``"tuned"``, or ``"equal"`` for the same weight of every modality.

    Attributes
    ----------
    k_ : int
    temperature_ : float
    weights_ : dict of input to float
        Each modality's share of the similarity.
    vectors_ : dict of input to (n, d) float16
        The training items, of unit norm; zeros where absent.
    """

    kind = "knn"
    leaves_one_out = True
    chooses_within = True
    tunable: ClassVar[Tunable] = {
        "ks": NEIGHBOURS,
        "temperatures": Real(0.02, 0.5, log=True, listed=True),
        "weights": Choice(("tuned", "equal")),
    }

    k_: int
    temperature_: float
    weights_: dict[str, float]
    vectors_: dict[str, npt.NDArray[np.float16]]
    codes_: npt.NDArray[np.int64]
    standardizer_: Standardizer

    def __init__(
        self,
        ks: Sequence[int] = (1, 4, 8, 16, 32),
        temperatures: Sequence[float] = (0.05, 0.1, 0.2),
        weights: str = "tuned",
    ) -> None:
        self.ks = ks
        self.temperatures = temperatures
        self.weights = weights

    def _fit(self, train: Data, validation: Data) -> None:
        data = train if validation is train else train + validation
        self._remember(data)
        names = list(self.vectors_)
        tried = weightings(len(names)) if self.weights == "tuned" else [(1 / len(names),) * len(names)]
        candidates = list(product(tried, self.ks, self.temperatures))
        if len(candidates) > 1:
            candidates = [self._choose(data, tried)]
        weights, self.k_, self.temperature_ = candidates[0]
        self.weights_ = dict(zip(names, weights, strict=True))

    def learn_again(self, train: Data, validation: Data) -> None:
        self._remember(train if validation is train else train + validation)

    def _choose(self, data: Data, tried: Sequence[tuple[float, ...]]) -> tuple[tuple[float, ...], int, float]:
        """Weights, k and temperature with the lowest leave-one-out loss on a sample."""
        sample = np.sort(np.random.default_rng(0).permutation(len(data))[:SAMPLE])
        queries = data.take(sample)
        losses = {}
        for weights in tried:
            found = self._nearest(queries, dict(zip(self.vectors_, weights, strict=True)), max(self.ks), never=sample)
            for k, temperature in product(self.ks, self.temperatures):
                votes = self._vote(*found, int(k), float(temperature))
                losses[weights, int(k), float(temperature)] = self._vote_loss(votes, queries.codes)
        return min(losses, key=lambda candidate: losses[candidate])

    def _vote_loss(self, votes: Float, codes: Codes) -> float:
        return nll(log_softmax(votes), codes)

    def left_out(self, data: Data) -> Float | None:
        return log_softmax(self._neighbours_vote(data, others=True)) if len(data) <= ALL_PAIRS else None

    def _remember(self, data: Data) -> None:
        self.standardizer_ = Standardizer(balance=False).fit(data)
        self.vectors_ = {name: x.astype(np.float16) for name, x in self._unit(data).items()}
        self.codes_ = data.codes

    def _unit(self, data: Data) -> dict[str, npt.NDArray[np.float32]]:
        blocks = self.standardizer_.blocks(data)
        return {name: unit_rows(x) for name, x in blocks.items()}

    def _nearest(
        self, data: Data, weights: dict[str, float], k: int, *, never: Codes | None = None
    ) -> tuple[Codes, npt.NDArray[np.float32]]:
        """The k nearest training items (q, k) and their similarities, over the modalities that the item itself has.

        A training item without one scores zero there; `never` (q,) is each one's own number among them.
        """
        unit = self._unit(data)
        asked = np.concatenate([weights[name] * x for name, x in unit.items()], axis=1, dtype=np.float32)
        near, total = nearest([self.vectors_[name] for name in unit], asked, k, never=never)
        share = np.asarray(sum(weights[name] * data.present[name] for name in unit))
        similarity = total / np.maximum(share, 1e-6)[:, None]
        similarity[share <= 0] = -np.inf  # nothing is known of such an item: nobody votes
        return near, similarity.astype(np.float32)

    def _vote(self, near: Codes, similarity: npt.NDArray[np.float32], k: int, temperature: float) -> Float:
        """Log of the first k neighbours' votes (q, c), with a little of every class so that none is impossible."""
        weight = vote_weights(similarity[:, :k], temperature)
        n, c = len(near), len(self.classes_)
        cells = np.arange(n)[:, None] * c + self.codes_[near[:, :k]]
        votes = np.bincount(cells.ravel(), weight.ravel(), n * c).reshape(n, c)
        prior = np.bincount(self.codes_, minlength=c) / len(self.codes_)
        total = votes.sum(axis=1, keepdims=True)
        shares = np.where(total > 0, votes / np.maximum(total, 1e-300), prior)
        return np.asarray(np.log(shares * 0.95 + 0.05 * (prior + 1e-4)))

    def _logits(self, data: Data) -> Array:
        return self._neighbours_vote(data)

    def _neighbours_vote(self, data: Data, *, others: bool = False) -> Float:
        """Votes (n, c) for `data`; with `others` it is the training items, and none votes for itself."""
        out = []
        for lo in range(0, len(data), BLOCK):
            block = data.take(np.arange(lo, min(lo + BLOCK, len(data))))
            never = lo + np.arange(len(block)) if others else None
            found = self._nearest(block, self.weights_, self.k_, never=never)
            out.append(self._vote(*found, self.k_, self.temperature_))
        return np.concatenate(out)

    def _state(self) -> HeadState:
        vectors = {f"vectors.{name}": x for name, x in self.vectors_.items()}
        config = {"k": self.k_, "temperature": self.temperature_, "weights": self.weights_}
        return HeadState(config, {**vectors, "codes": self.codes_, **self.standardizer_.tensors()})

    def _restore(self, state: HeadState) -> None:
        self.k_, self.temperature_ = state.config["k"], state.config["temperature"]
        self.weights_ = state.config["weights"]
        self.vectors_ = {name: state.tensors[f"vectors.{name}"] for name in self.dims_}
        self.codes_ = state.tensors["codes"]
        self.standardizer_ = Standardizer.from_tensors(state.tensors, list(self.dims_))


def vote_weights(similarity: npt.NDArray[np.float32], temperature: float) -> Float:
    """What neighbours' votes weigh (q, k), the nearest one's 1; 0 where nothing is known of an item."""
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(np.exp((similarity - similarity[:, :1]).astype(np.float64) / temperature))


def nearest(
    known: Sequence[npt.NDArray[np.float16]], asked: npt.NDArray[np.float32], k: int, *, never: Codes | None = None
) -> tuple[Codes, npt.NDArray[np.float32]]:
    """The k training items with the largest inner products, and these, best first; in little memory, however many there are.

    Parameters
    ----------
    known : sequence of (n, d)
        Side by side they are the training items.
    asked : (q, Σd)
    never : (q,) int64, optional
        A training item that scores -inf.

    Returns
    -------
    near : (q, k') int64
        k' = min(k, n).
    products : (q, k') float32
    """
    q, n = len(asked), len(known[0])
    k = min(k, n)
    size = max(k, SCORES // max(q, 1))
    near, best = np.empty((q, 0), np.int64), np.empty((q, 0), np.float32)
    for lo in range(0, n, size):
        products = asked @ np.concatenate([x[lo : lo + size] for x in known], axis=1, dtype=np.float32).T
        if never is not None:
            inside = np.flatnonzero((never >= lo) & (never < lo + size))
            products[inside, never[inside] - lo] = -np.inf
        if best.shape[1] < k:
            near, best = _first(products, k)
            near += lo
        else:
            near, best = _better(near, best, products, lo)
    return near, best


def _first(products: npt.NDArray[np.float32], k: int) -> tuple[Codes, npt.NDArray[np.float32]]:
    """Columns (q, k) of the largest `products` (q, m), best first, and these; of those that tie the first ones."""
    if products.shape[1] > k:
        near = np.argpartition(-products, k - 1, axis=1)[:, :k]
        last = np.take_along_axis(products, near, axis=1).min(axis=1, keepdims=True)
        for row in np.flatnonzero((products >= last).sum(axis=1) > k):  # more tie for the last place than there is room for
            near[row] = np.argsort(-products[row], kind="stable")[:k]
    else:
        near = np.tile(np.arange(k), (len(products), 1))
    found = np.take_along_axis(products, near, axis=1)
    order = np.lexsort((near, -found), axis=1)
    return np.take_along_axis(near, order, axis=1), np.take_along_axis(found, order, axis=1)


def _better(
    near: Codes, best: npt.NDArray[np.float32], products: npt.NDArray[np.float32], start: int
) -> tuple[Codes, npt.NDArray[np.float32]]:
    """`near` and `best` (q, k), best first, after a look at `products` (q, m) of those from `start` on: few are better."""
    q, k = best.shape
    row, column = np.divmod(np.flatnonzero(products > best[:, -1:]), products.shape[1])
    if not len(row):
        return near, best
    rows = np.concatenate([np.repeat(np.arange(q), k), row])
    scores = np.concatenate([best.ravel(), products[row, column]])
    labels = np.concatenate([near.ravel(), start + column])
    order = np.lexsort((labels, -scores, rows))
    starts = np.searchsorted(rows[order], np.arange(q))
    kept = order[(starts[:, None] + np.arange(k)).ravel()]
    return labels[kept].reshape(q, k), scores[kept].reshape(q, k)


def weightings(m: int) -> list[tuple[float, ...]]:
    """Convex weights of m modalities, none zero, on a grid of quarters (all equal beyond three modalities)."""
    if m == 1:
        return [(1.0,)]
    if m > 3:
        return [(1 / m,) * m]
    grid = [w for w in product((0.25, 0.5, 0.75), repeat=m) if abs(sum(w) - 1) < 1e-9]
    return [tuple(float(x) for x in w) for w in grid]
