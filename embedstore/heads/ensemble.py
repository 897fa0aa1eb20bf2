"""Heads made of heads: late fusion of single modalities, and ensembles. What they learn, they learn out of fold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from embedstore._core.distinct import distinct
from embedstore.errors import HeadError
from embedstore.heads.base import Array, Codes, Data, Float, Head, HeadState, class_folds, log_softmax, nll, set_aside
from embedstore.heads.linear import PENALTY, LinearHead
from embedstore.heads.make import head_class, make_head, params_of
from embedstore.heads.params import Tunable
from embedstore.heads.solvers.logistic import LogisticProblem

FOLDS = 5


class LateHead(Head):
    """Late fusion: a linear head per modality, their log-probabilities added with convex weights.

    The weights and one scale are fitted on out-of-fold predictions. An item without a modality shares its weight among
    the others.

    Parameters
    ----------
    seed : int
        Of the folds.
    device : str
    alpha : float, optional
        Penalty of every linear head; without it each chooses its own.

    Attributes
    ----------
    weights_ : dict of input to float
    scale_ : float
    members_ : dict of input to LinearHead
    """

    kind = "late"
    chooses_within = True
    tunable: ClassVar[Tunable] = {"alpha": PENALTY}

    weights_: dict[str, float]
    scale_: float
    members_: dict[str, Head]

    def __init__(self, seed: int = 0, device: str = "cpu", alpha: float | None = None) -> None:
        self.seed = seed
        self.device = device
        self.alpha = alpha

    def _fit(self, train: Data, validation: Data) -> None:
        data = train if validation is train else train + validation
        held_out, self.members_ = {}, {}
        for name in self.dims_:
            only = data.only([name])
            held_out[name], self.members_[name] = out_of_fold(self._member, only, self.classes_, seed=self.seed)
        self.weights_, self.scale_ = fit_pool(held_out, data)

    def learn_again(self, train: Data, validation: Data) -> None:
        learn_apart(self.members_.values(), train, validation)

    def _member(self, tuned: Head | None = None) -> Head:
        return LinearHead(**{"alpha": self.alpha, **as_tuned(tuned)}, device=self.device)

    def _logits(self, data: Data) -> Array:
        parts = {name: member.log_proba(data.only([name])) for name, member in self.members_.items()}
        return pool(parts, data.present, np.array([self.weights_[n] for n in parts]), self.scale_)

    def _state(self) -> HeadState:
        return pack({"weights": self.weights_, "scale": self.scale_}, list(self.members_.values()))

    def _restore(self, state: HeadState) -> None:
        self.weights_, self.scale_ = state.config["weights"], state.config["scale"]
        self.members_ = dict(zip(self.dims_, unpack(state), strict=True))


class EnsembleHead(Head):
    """Different heads together, by what they predict out of fold.

    Parameters
    ----------
    members : sequence of str
        Kinds of heads to choose from.
    method : str
        ``"greedy"``: a soft vote, selected with replacement by log-loss (Caruana et al. 2004); ``"vote"``: every member the
        same share; ``"stack"``: logistic regression on the members' log-probabilities (Wolpert 1992).
    rounds : int
        How many votes are given, if greedy.
    seed : int
    device : str

    Attributes
    ----------
    votes_ : dict of kind to float
        Shares of the vote (of the members used, if stacked: equal and without meaning).
    members_ : dict of kind to Head
        Those with a vote, fitted on everything.
    """

    kind = "ensemble"
    chooses_within = True

    votes_: dict[str, float]
    members_: dict[str, Head]
    stack_: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]] | None

    def __init__(
        self,
        members: Sequence[str] = ("linear", "kernel", "knn"),
        method: str = "greedy",
        rounds: int = 24,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        self.members = members
        self.method = method
        self.rounds = rounds
        self.seed = seed
        self.device = device

    def _fit(self, train: Data, validation: Data) -> None:
        if self.method not in ("greedy", "vote", "stack"):
            raise HeadError(f"method should be greedy, vote or stack. Got {self.method!r} instead.")
        data = train if validation is train else train + validation
        log_p, fitted = {}, {}
        for kind in self.members:

            def make(tuned: Head | None = None, kind: str = kind) -> Head:
                return make_head(kind, **as_tuned(tuned), device=self.device, seed=self.seed)

            log_p[kind], fitted[kind] = out_of_fold(make, data, self.classes_, seed=self.seed)
        equal = dict.fromkeys(self.members, 1 / len(self.members))
        self.votes_ = greedy_votes(log_p, data.codes, self.rounds) if self.method == "greedy" else equal
        self.members_ = {kind: fitted[kind] for kind in self.votes_}
        self.stack_ = _stack(log_p, data.codes, len(self.classes_), self.seed) if self.method == "stack" else None

    def learn_again(self, train: Data, validation: Data) -> None:
        learn_apart(self.members_.values(), train, validation)

    def _logits(self, data: Data) -> Array:
        log_p = {kind: member.log_proba(data) for kind, member in self.members_.items()}
        if self.stack_ is not None:
            weight, bias = self.stack_
            return np.asarray(_side_by_side(log_p) @ weight + bias)
        return vote(log_p, self.votes_)

    def _state(self) -> HeadState:
        state = pack({"votes": self.votes_}, list(self.members_.values()))
        if self.stack_ is not None:
            state.tensors.update({"stack.weight": self.stack_[0], "stack.bias": self.stack_[1]})
        return state

    def _restore(self, state: HeadState) -> None:
        self.votes_ = state.config["votes"]
        self.members_ = dict(zip(self.votes_, unpack(state), strict=True))
        stacked = "stack.weight" in state.tensors
        self.stack_ = (state.tensors["stack.weight"], state.tensors["stack.bias"]) if stacked else None


def out_of_fold(
    make: Callable[[Head | None], Head], data: Data, classes: Array, *, seed: int, k: int = FOLDS
) -> tuple[Float, Head]:
    """Log-probabilities (n, c) of items by heads that did not see them, and a head fitted on all.

    Hyperparameters are chosen once, on a head fitted with a part set aside; `make` gets it to copy from. A head that knows its
    leave-one-out predictions is fitted once.
    """
    tuned = make(None)
    if tuned.leaves_one_out:
        tuned.fit_data(data, data, classes)
        if (left_out := tuned.left_out(data)) is not None:
            return left_out, tuned
    else:
        tuned.fit_data(*set_aside(data, seed=seed), classes)
    folds = class_folds(data.codes, k, seed=seed + 1)
    out = np.full((len(data), len(classes)), -np.log(len(classes)))
    for fold in range(k):
        inside = data.take(folds != fold)
        if len(distinct(inside.codes)) < 2 or len(inside) == len(data):
            continue  # nothing to learn from, or nothing left out: such items stay undecided
        head = make(tuned).fit_data(*set_aside(inside, seed=seed), classes)
        out[folds == fold] = head.log_proba(data.take(folds == fold))
    return out, tuned


def learn_apart(members: Iterable[Head], train: Data, validation: Data) -> None:
    """`Head.learn_again` of each, from its own inputs."""
    for member in members:
        names = list(member.dims_)
        mine = train.only(names)
        member.learn_again(mine, mine if validation is train else validation.only(names))


def as_tuned(tuned: Head | None) -> dict[str, Any]:
    """What a head takes from one that chose its penalty already; fits that only serve to predict a fold may be coarse."""
    alpha = getattr(tuned, "alpha_", None)
    return {} if alpha is None else {"alpha": alpha, "tolerance": 1e-3}


def fit_pool(log_p: Mapping[str, Float], data: Data) -> tuple[dict[str, float], float]:
    """Convex weights and a scale of the log-linear pool with the lowest loss; modalities that say the same weigh the same."""
    from scipy.optimize import minimize

    names = list(log_p)

    def loss(theta: npt.NDArray[np.float64]) -> float:
        weights = np.exp(theta[:-1] - theta[:-1].max())
        logits = pool(log_p, data.present, weights / weights.sum(), float(np.exp(theta[-1])))
        return nll(log_softmax(logits), data.codes)

    theta = minimize(loss, np.zeros(len(names) + 1), method="L-BFGS-B").x
    weights = np.exp(theta[:-1] - theta[:-1].max())
    weights /= weights.sum()
    return dict(zip(names, weights.tolist(), strict=True)), float(np.exp(theta[-1]))


def pool(log_p: Mapping[str, Float], present: Mapping[str, Any], weights: Float, scale: float) -> Float:
    """scale · Σ w_m log p_m (n, c), weights shared among the modalities that are there."""
    share = np.stack([present[name] for name in log_p], axis=1) * weights
    total = share.sum(axis=1, keepdims=True)
    share = np.where(total > 0, share / np.maximum(total, 1e-12), 1 / len(weights))
    stacked = np.stack(list(log_p.values()), axis=1)
    return np.asarray(scale * len(weights) * np.einsum("nm,nmc->nc", share, stacked))


def vote(log_p: Mapping[str, Float], shares: Mapping[str, float]) -> Float:
    """Logarithm of the weighted mean of the members' probabilities (n, c)."""
    return np.asarray(np.log(np.maximum(sum(share * np.exp(log_p[kind]) for kind, share in shares.items()), 1e-12)))


def greedy_votes(log_p: Mapping[str, Float], codes: Codes, rounds: int) -> dict[str, float]:
    """Shares of the soft vote with the lowest log-loss, given one vote at a time."""
    own = {kind: np.exp(p[np.arange(len(codes)), codes]) for kind, p in log_p.items()}
    total = np.zeros(len(codes))
    votes: dict[str, int] = {}
    for step in range(1, rounds + 1):
        losses = {k: -np.log(np.maximum((total + p) / step, 1e-12)).mean() for k, p in own.items()}
        best = min(losses, key=lambda kind: losses[kind])
        votes[best] = votes.get(best, 0) + 1
        total += own[best]
    return {kind: count / rounds for kind, count in votes.items()}


def _side_by_side(log_p: Mapping[str, Float]) -> npt.NDArray[np.float32]:
    return np.concatenate([np.maximum(p, -12.0) for p in log_p.values()], axis=1).astype(np.float32)


def _stack(
    log_p: Mapping[str, Float], codes: Codes, n_classes: int, seed: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Weights (m·c, c) and intercept (c,) of a logistic regression on log-probabilities, its penalty by a split of them."""
    x = _side_by_side(log_p)
    held_out = class_folds(codes, 4, seed=seed + 2) == 0
    solutions = LogisticProblem(x[~held_out], codes[~held_out], n_classes).walk([1.0, 0.1, 0.01, 1e-3], tolerance=1e-4)
    losses = {s.alpha: nll(log_softmax(x[held_out] @ s.weight + s.bias), codes[held_out]) for s in solutions}
    chosen = LogisticProblem(x, codes, n_classes).solve(min(losses, key=lambda alpha: losses[alpha]), tolerance=1e-5)
    return chosen.weight, chosen.bias


def pack(config: dict[str, Any], members: Sequence[Head]) -> HeadState:
    """One state from `config` and the members' states, their names prefixed."""
    tensors, files, described = {}, {}, []
    for i, member in enumerate(members):
        state = member.state()
        described.append({"kind": member.kind, "params": params_of(member), "config": state.config})
        tensors.update({f"{i}.{name}": value for name, value in state.tensors.items()})
        files.update({f"{i}.{name}": value for name, value in state.files.items()})
    return HeadState({**config, "members": described}, tensors, files)


def unpack(state: HeadState) -> list[Head]:
    """The members of a packed state."""
    members = []
    for i, described in enumerate(state.config["members"]):
        prefix = f"{i}."
        tensors = {k.removeprefix(prefix): v for k, v in state.tensors.items() if k.startswith(prefix)}
        files = {k.removeprefix(prefix): v for k, v in state.files.items() if k.startswith(prefix)}
        kind = head_class(described["kind"])
        members.append(kind.from_state(described["params"], HeadState(described["config"], tensors, files)))
    return members
