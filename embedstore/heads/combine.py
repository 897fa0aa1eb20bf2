"""Heads made of heads: late fusion of single modalities, and ensembles. What they learn, they learn out of fold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.heads.base import Array, Codes, Data, Float, Head, HeadState, class_folds, log_softmax, nll, set_aside

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

    Attributes
    ----------
    weights_ : dict of input to float
    scale_ : float
    members_ : dict of input to LinearHead
    """

    kind = "late"

    weights_: dict[str, float]
    scale_: float
    members_: dict[str, Head]

    def __init__(self, seed: int = 0, device: str = "cpu") -> None:
        self.seed = seed
        self.device = device

    def _fit(self, train: Data, validation: Data) -> None:
        data = train if validation is train else train + validation
        held_out, self.members_ = {}, {}
        for name in self.dims_:
            only = data.only([name])
            held_out[name], self.members_[name] = out_of_fold(self._member, only, self.classes_, seed=self.seed)
        self.weights_, self.scale_ = _fit_pool(held_out, data)

    def _member(self, tuned: Head | None = None) -> Head:
        from embedstore.heads.linear import LinearHead

        return LinearHead(alpha=getattr(tuned, "alpha_", None), device=self.device)

    def _logits(self, data: Data) -> Array:
        parts = {name: member.log_proba(data.only([name])) for name, member in self.members_.items()}
        return _pool(parts, data.present, np.array([self.weights_[n] for n in parts]), self.scale_)

    def _state(self) -> HeadState:
        return pack({"weights": self.weights_, "scale": self.scale_}, list(self.members_.values()))

    def _restore(self, state: HeadState) -> None:
        self.weights_, self.scale_ = state.config["weights"], state.config["scale"]
        self.members_ = dict(zip(self.dims_, unpack(state), strict=True))


class EnsembleHead(Head):
    """A vote of different heads, selected greedily with replacement (Caruana et al. 2004) by out-of-fold log-loss.

    Parameters
    ----------
    members : sequence of str
        Kinds of heads to choose from.
    rounds : int
        How many votes are given.
    seed : int
    device : str

    Attributes
    ----------
    votes_ : dict of kind to float
        Shares of the vote.
    members_ : dict of kind to Head
        Those with a vote, fitted on everything.
    """

    kind = "ensemble"

    votes_: dict[str, float]
    members_: dict[str, Head]

    def __init__(
        self,
        members: Sequence[str] = ("linear", "ridge", "knn", "bilinear", "gbdt"),
        rounds: int = 24,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        self.members = members
        self.rounds = rounds
        self.seed = seed
        self.device = device

    def _fit(self, train: Data, validation: Data) -> None:
        from embedstore.heads import make_head

        data = train if validation is train else train + validation
        log_p, fitted = {}, {}
        for kind in self.members:

            def make(tuned: Head | None = None, kind: str = kind) -> Head:
                return make_head(kind, alpha=getattr(tuned, "alpha_", None), device=self.device, seed=self.seed)

            log_p[kind], fitted[kind] = out_of_fold(make, data, self.classes_, seed=self.seed)
        self.votes_ = _greedy(log_p, data.codes, self.rounds)
        self.members_ = {kind: fitted[kind] for kind in self.votes_}

    def _logits(self, data: Data) -> Array:
        votes = sum(share * np.exp(self.members_[kind].log_proba(data)) for kind, share in self.votes_.items())
        return np.asarray(np.log(np.maximum(votes, 1e-12)))

    def _state(self) -> HeadState:
        return pack({"votes": self.votes_}, list(self.members_.values()))

    def _restore(self, state: HeadState) -> None:
        self.votes_ = state.config["votes"]
        self.members_ = dict(zip(self.votes_, unpack(state), strict=True))


def out_of_fold(
    make: Callable[[Head | None], Head], data: Data, classes: Array, *, seed: int, k: int = FOLDS
) -> tuple[Float, Head]:
    """Log-probabilities (n, c) of items by heads that did not see them, and a head fitted on all.

    Hyperparameters are chosen once, on a head fitted with a part set aside; `make` gets it to copy from.
    """
    fit, val = set_aside(data, seed=seed)
    tuned = make(None).fit_data(fit, val, classes)
    folds = class_folds(data.codes, k, seed=seed + 1)
    out = np.full((len(data), len(classes)), -np.log(len(classes)))
    for fold in range(k):
        inside = data.take(folds != fold)
        if len(np.unique(inside.codes)) < 2 or len(inside) == len(data):
            continue  # nothing to learn from, or nothing left out: such items stay undecided
        head = make(tuned).fit_data(*set_aside(inside, seed=seed), classes)
        out[folds == fold] = head.log_proba(data.take(folds == fold))
    return out, tuned


def _fit_pool(log_p: Mapping[str, Float], data: Data) -> tuple[dict[str, float], float]:
    """Convex weights and a scale of the log-linear pool with the lowest loss, by exponentiated coordinate search."""
    from scipy.optimize import minimize

    names = list(log_p)

    def loss(theta: npt.NDArray[np.float64]) -> float:
        weights = np.exp(theta[:-1] - theta[:-1].max())
        logits = _pool(log_p, data.present, weights / weights.sum(), float(np.exp(theta[-1])))
        return nll(log_softmax(logits), data.codes)

    theta = minimize(loss, np.zeros(len(names) + 1), method="Nelder-Mead", options={"xatol": 1e-3, "fatol": 1e-6}).x
    weights = np.exp(theta[:-1] - theta[:-1].max())
    weights /= weights.sum()
    return dict(zip(names, weights.tolist(), strict=True)), float(np.exp(theta[-1]))


def _pool(log_p: Mapping[str, Float], present: Mapping[str, Any], weights: Float, scale: float) -> Float:
    """scale · Σ w_m log p_m (n, c), weights shared among the modalities that are there."""
    share = np.stack([present[name] for name in log_p], axis=1) * weights
    total = share.sum(axis=1, keepdims=True)
    share = np.where(total > 0, share / np.maximum(total, 1e-12), 1 / len(weights))
    stacked = np.stack(list(log_p.values()), axis=1)
    return np.asarray(scale * len(weights) * np.einsum("nm,nmc->nc", share, stacked))


def _greedy(log_p: Mapping[str, Float], codes: Codes, rounds: int) -> dict[str, float]:
    probabilities = {kind: np.exp(p) for kind, p in log_p.items()}
    total = np.zeros_like(next(iter(probabilities.values())))
    votes: dict[str, int] = {}
    for step in range(1, rounds + 1):
        losses = {k: nll(np.log(np.maximum((total + p) / step, 1e-12)), codes) for k, p in probabilities.items()}
        best = min(losses, key=lambda kind: losses[kind])
        votes[best] = votes.get(best, 0) + 1
        total += probabilities[best]
    return {kind: count / rounds for kind, count in votes.items()}


def pack(config: dict[str, Any], members: Sequence[Head]) -> HeadState:
    """One state from `config` and the members' states, their names prefixed."""
    from embedstore.heads import params_of

    tensors, files, described = {}, {}, []
    for i, member in enumerate(members):
        state = member.state()
        described.append({"kind": member.kind, "params": params_of(member), "config": state.config})
        tensors.update({f"{i}.{name}": value for name, value in state.tensors.items()})
        files.update({f"{i}.{name}": value for name, value in state.files.items()})
    return HeadState({**config, "members": described}, tensors, files)


def unpack(state: HeadState) -> list[Head]:
    """The members of a packed state."""
    from embedstore.heads import head_class

    members = []
    for i, described in enumerate(state.config["members"]):
        prefix = f"{i}."
        tensors = {k.removeprefix(prefix): v for k, v in state.tensors.items() if k.startswith(prefix)}
        files = {k.removeprefix(prefix): v for k, v in state.files.items() if k.startswith(prefix)}
        kind = head_class(described["kind"])
        members.append(kind.from_state(described["params"], HeadState(described["config"], tensors, files)))
    return members
