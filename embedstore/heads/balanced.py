"""A head around another one that helps rare classes: by weights, by other training items, or by what it adds to the logits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore._core.balances import BALANCES
from embedstore.errors import HeadError, UsageError
from embedstore.heads.base import Array, Codes, Data, Float, Head, HeadState
from embedstore.heads.ensemble import out_of_fold, pack, unpack
from embedstore.heads.make import make_head
from embedstore.registry import HEADS, require

FOCAL = 2.0
"""γ of the focal loss, that of Lin et al. 2017."""
NEIGHBOURS = 5
"""Of SMOTE, as imbalanced-learn has it; fewer for a class of fewer items."""
WHOLE = 1 - 1e-6


class BalancedHead(Head):
    """Another kind of head, fitted so that rare classes count more.

    Parameters
    ----------
    head : str
        The kind.
    balance : str
        ``"weights"``: an item of class k counts n / (c · n_k). ``"oversample"``, ``"undersample"``: training items are drawn
        until classes are as many. ``"smote"``: new items between neighbours of a class (Chawla et al. 2002). Validation items
        stay as they are, and a head that chooses by leaving items out chooses on all items as they are. ``"logit-adjust"``:
        logits less the logarithm of the class's share (Menon et al. 2021). ``"threshold"``: of two classes, the threshold with
        the best balanced accuracy out of fold. ``"focal"``: the focal loss.
    seed : int
    device : str

    Attributes
    ----------
    member_ : Head
    offset_ : (c,) float64
        Added to the member's log-probabilities.
    """

    kind = "balanced"

    member_: Head
    offset_: Float

    def __init__(self, head: str = "linear", balance: str = "weights", seed: int = 0, device: str = "cpu") -> None:
        self.head = head
        self.balance = balance
        self.seed = seed
        self.device = device

    def _fit(self, train: Data, validation: Data) -> None:
        check_balance(self.head, self.balance)
        self.offset_ = np.zeros(len(self.classes_))
        every = train if validation is train else train + validation
        counts = np.bincount(every.codes, minlength=len(self.classes_))
        if self.balance == "threshold":
            self._tune_threshold(every)
            return
        if self.balance == "weights":
            weight = len(every) / (len(counts) * np.maximum(counts, 1))
            held_out = replace(validation, weights=weight[validation.codes])
            train = held_out if validation is train else replace(train, weights=weight[train.codes])
            validation = held_out
        elif self.balance == "logit-adjust":
            self.offset_ = -np.log(np.maximum(counts, 0.5) / counts.sum())
        elif self.balance != "focal":
            self.member_ = self._on_drawn(train, validation)
            return
        self.member_ = self._member().fit_data(train, validation, self.classes_)

    def _on_drawn(self, train: Data, validation: Data) -> Head:
        """A member that learns from items that are drawn or made, and chooses nothing by those that it has a twin of."""
        drawn = resampled(train, self.balance, seed=self.seed)
        held_out = drawn if validation is train else validation
        member = self._member()
        if not member.chooses_within or self.balance == "undersample":
            return member.fit_data(drawn, held_out, self.classes_)
        member.fit_data(train, validation, self.classes_)
        member.learn_again(drawn, held_out)
        return member

    def _member(self, tuned: Head | None = None) -> Head:
        alpha = getattr(tuned, "alpha_", None)
        known: dict[str, Any] = {} if alpha is None else {"alpha": alpha}
        if self.balance == "focal":
            known["focal"] = FOCAL
        return make_head(self.head, **known, seed=self.seed, device=self.device)

    def _tune_threshold(self, data: Data) -> None:
        if len(self.classes_) != 2:
            raise HeadError(
                f"balance 'threshold' is for two classes; there are {len(self.classes_)}. Others: logit-adjust, weights."
            )
        log_p, self.member_ = out_of_fold(self._member, data, self.classes_, seed=self.seed)
        self.offset_[1] = -best_threshold(log_p[:, 1] - log_p[:, 0], data.codes)

    def _logits(self, data: Data) -> Array:
        return self.member_.log_proba(data) + self.offset_

    def _state(self) -> HeadState:
        return pack({"offset": self.offset_.tolist()}, [self.member_])

    def _restore(self, state: HeadState) -> None:
        self.offset_ = np.asarray(state.config["offset"], np.float64)
        (self.member_,) = unpack(state)


def check_balance(head: str, balance: str) -> None:
    """Raise `UsageError` where there is no such balance, or none for that kind of head."""
    if balance not in BALANCES:
        raise UsageError(f"balance must be one of {', '.join(BALANCES)}. Got {balance!r} instead.")
    if not _takes(make_head(head), balance):
        others = [kind for kind in HEADS if _takes(make_head(kind), balance)]
        raise UsageError(f"balance {balance!r} is not for head {head!r}. Heads that take it: {', '.join(others)}.")
    if balance in ("oversample", "undersample", "smote"):
        require("imblearn", extra="imbalance")


def _takes(head: Head, balance: str) -> bool:
    if head.kept_in_state:  # it is made of more than a kind
        return False
    if balance == "focal":
        return "focal" in head.get_params()
    return balance != "weights" or head.takes_weights


def resampled(data: Data, how: str, *, seed: int = 0) -> Data:
    """Training items, drawn or made until the classes are as many as imbalanced-learn makes them.

    Parameters
    ----------
    how : str
        ``"oversample"``, ``"undersample"`` or ``"smote"``. A class of one item has no neighbour to make others with: it stays
        as it is. What SMOTE makes has an input where both items that it lies between have it.
    """
    if how == "smote":
        return _smote(data, seed)
    under = require("imblearn.under_sampling", extra="imbalance").RandomUnderSampler
    over = require("imblearn.over_sampling", extra="imbalance").RandomOverSampler
    sampler = (under if how == "undersample" else over)(random_state=seed)
    at, _ = sampler.fit_resample(np.arange(len(data))[:, None], data.codes)
    return data.take(at[:, 0])


def _smote(data: Data, seed: int) -> Data:
    counts = np.bincount(data.codes)
    wanted = {int(k): int(counts.max()) for k in np.flatnonzero((counts > 1) & (counts < counts.max()))}
    if not wanted:
        return data
    neighbours = min(NEIGHBOURS, *(int(counts[k]) - 1 for k in wanted))
    smote = require("imblearn.over_sampling", extra="imbalance").SMOTE
    sampler = smote(sampling_strategy=wanted, k_neighbors=neighbours, random_state=seed)
    columns = [np.where(data.present[name][:, None], x, 0).astype(np.float32) for name, x in data.inputs.items()]
    masks = np.stack(list(data.present.values()), axis=1).astype(np.float32)
    made, codes = sampler.fit_resample(np.concatenate([*columns, masks], axis=1), data.codes)
    present = made[:, -masks.shape[1] :] > WHOLE
    known = present.any(axis=1) | (np.arange(len(made)) < len(data))  # nothing is known of an item between image and text
    edges = np.cumsum([0, *(x.shape[1] for x in columns)])
    inputs = {name: made[known, lo:hi] for name, lo, hi in zip(data.inputs, edges[:-1], edges[1:], strict=True)}
    return Data(inputs, {name: present[known, i] for i, name in enumerate(data.inputs)}, codes[known])


def best_threshold(log_odds: npt.NDArray[Any], codes: Codes) -> float:
    """The log-odds (n,) of class 1, midway between two of them, from which on balanced accuracy is best."""
    order = np.argsort(-log_odds, kind="stable")
    score, hit = log_odds[order], codes[order] == 1
    positives, negatives = max(int(hit.sum()), 1), max(int((~hit).sum()), 1)
    gain = np.cumsum(np.where(hit, 1 / positives, -1 / negatives))
    ends = np.flatnonzero(np.append(np.diff(score) != 0, True))  # a cut takes all items that tie
    at = ends[int(gain[ends].argmax())]
    return float(score[at] - 1.0 if at + 1 == len(score) else (score[at] + score[at + 1]) / 2)
