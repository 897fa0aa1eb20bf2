"""A head around another one that says whether two vectors belong together: it weighs what `PairFeatures` makes of them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from embedstore.errors import HeadError
from embedstore.evaluation.paired import content_codes
from embedstore.heads.balanced import best_threshold
from embedstore.heads.base import Array, Data, Float, Head, HeadState, set_aside
from embedstore.heads.ensemble import pack, unpack
from embedstore.heads.make import make_head
from embedstore.heads.pair_features import NEIGHBOURS, PairFeatures, Pairs

AGREEMENT = "agreement"
"""The input of the head inside."""
PREFIX = "pair."


class Matcher(Head):
    """Whether the two inputs of an item belong together: the second of two classes. Pairs are given as items.

    Parameters
    ----------
    head : str
        The kind of head that weighs the numbers of a pair.
    neighbours : sequence of int
        See `PairFeatures`; none: the cosine through an alignment alone.
    seed : int
    device : str

    Attributes
    ----------
    features_ : PairFeatures
    member_ : Head
    offset_ : float
        Added to the member's log-odds: pairs above 0 are said to belong together. It is chosen on the validation pairs, where
        those that do and those that do not count alike.

    Notes
    -----
    The member is fitted to numbers of pairs that were left out; see `PairFeatures.left_out`. What predicts is learned from all
    pairs that belong together.
    """

    kind = "matcher"

    features_: PairFeatures
    member_: Head
    offset_: float

    def __init__(
        self, head: str = "linear", neighbours: tuple[int, ...] = NEIGHBOURS, seed: int = 0, device: str = "cpu"
    ) -> None:
        self.head = head
        self.neighbours = neighbours
        self.seed = seed
        self.device = device

    @property
    def stochastic(self) -> bool:  # type: ignore[override]
        """Whether the head inside is."""
        return make_head(self.head).stochastic

    def _fit(self, train: Data, validation: Data) -> None:
        if len(self.dims_) != 2 or len(self.classes_) != 2:
            raise HeadError(
                f"Matching takes two inputs and says yes or no. Got inputs {', '.join(self.dims_)} and classes "
                f"{self.classes_.tolist()}."
            )
        if validation is train:
            train, validation = set_aside(train)
        every = train if validation is train else train + validation
        at = np.flatnonzero(_whole(every))
        pairs, belong = _sides(every, at), every.codes[at] == 1
        self.features_ = PairFeatures(self.neighbours, self.seed).fit(_distinct(pairs, belong))
        found, kept = self.features_.left_out(pairs, belong)
        numbers = Data({AGREEMENT: found}, {AGREEMENT: kept}, every.codes[at])
        first = at < len(train)
        fit, held = (numbers.take(np.flatnonzero(kept & of)) for of in (first, ~first if len(every) > len(train) else first))
        self.member_ = make_head(self.head, seed=self.seed, device=self.device).fit_data(fit, held, self.classes_)
        self.offset_ = -best_threshold(log_odds(self.member_.log_proba(held)), held.codes)

    def _logits(self, data: Data) -> Array:
        numbers = np.zeros((len(data.codes), self.features_.width), np.float32)
        whole = _whole(data)
        if whole.any():
            numbers[whole] = self.features_.of(_sides(data, np.flatnonzero(whole)))
        log_p = self.member_.log_proba(Data({AGREEMENT: numbers}, {AGREEMENT: whole}, data.codes))
        log_p[:, 1] += self.offset_
        return np.where(whole[:, None], log_p, 0.0)

    def _state(self) -> HeadState:
        own, packed = self.features_.state(), pack({"offset": self.offset_}, [self.member_])
        tensors = {**packed.tensors, **{PREFIX + name: value for name, value in own.tensors.items()}}
        return HeadState({**packed.config, "features": own.config}, tensors, packed.files)

    def _restore(self, state: HeadState) -> None:
        own = {name.removeprefix(PREFIX): value for name, value in state.tensors.items() if name.startswith(PREFIX)}
        self.features_ = PairFeatures.from_state(state.config["features"], own)
        self.offset_ = float(state.config["offset"])
        (self.member_,) = unpack(state)


def _whole(data: Data) -> npt.NDArray[np.bool_]:
    """The pairs (n,) that have both sides."""
    return np.asarray(np.logical_and.reduce(list(data.present.values())), bool)


def _sides(data: Data, at: Array) -> Pairs:
    first, second = data.inputs.values()
    return first[at], second[at]


def _distinct(pairs: Pairs, belong: npt.NDArray[np.bool_]) -> Pairs:
    """The pairs that belong together, each once."""
    first, second = (side[belong] for side in pairs)
    codes = np.stack([content_codes(first), content_codes(second)], axis=1)
    once = np.sort(np.unique(codes, axis=0, return_index=True)[1])
    return first[once], second[once]


def log_odds(log_p: Float) -> Float:
    """The log-odds (n,) of the second of two classes."""
    return np.asarray(log_p[:, 1] - log_p[:, 0])
