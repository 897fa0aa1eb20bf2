"""Heads for several targets that share nothing: for each target the head that it would have alone, saved as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from embedstore.errors import HeadError
from embedstore.heads.base import Data, Float, Head, HeadState, set_aside
from embedstore.heads.ensemble import pack, unpack
from embedstore.heads.linear import ALPHAS
from embedstore.heads.make import make_head
from embedstore.heads.regressors import Regressor
from embedstore.heads.several_targets import CLASSES, TargetsHead, apart


class ApartTargets(TargetsHead):
    """Base class of heads that have a member for each target, fitted to the items that have it.

    Attributes
    ----------
    members_ : dict of target to Head
    """

    member: ClassVar[str]
    """The kind of the members."""

    members_: dict[str, Head]

    def _fit(self, train: Data, validation: Data) -> None:
        self.members_ = {}
        for k, (name, kind) in enumerate(self.targets_.items()):
            mine = _having(train, k, kind)
            held_out = mine if validation is train else _having(validation, k, kind)
            if not len(held_out):
                mine, held_out = set_aside(mine) if kind == CLASSES else apart(mine, np.zeros(len(mine), np.int64))
            try:
                member = make_head(self.member, task=kind, **self.get_params()).fit_data(mine, held_out, self.classes_[k])
            except HeadError as error:
                raise HeadError(f"Target {name!r}: {error}") from error
            self.members_[name] = member

    def values(self, data: Data) -> list[Float]:
        found = []
        for member in self.members_.values():
            found.append(member.values(data) if isinstance(member, Regressor) else member.log_proba(data))
        return found

    def _state(self) -> HeadState:
        return pack({}, list(self.members_.values()))

    def _restore(self, state: HeadState) -> None:
        self.members_ = dict(zip(self.targets_, unpack(state), strict=True))


class LinearTargets(ApartTargets):
    """Logistic regression for each target of classes, ridge for each of numbers, each with a penalty of its own.

    Parameters
    ----------
    alpha, alphas, device :
        Those of `LinearHead`.
    """

    kind = "linear_several"
    member = "linear"

    def __init__(self, alpha: float | None = None, alphas: Sequence[float] = ALPHAS, device: str = "cpu") -> None:
        self.alpha = alpha
        self.alphas = alphas
        self.device = device


class KnnTargets(ApartTargets):
    """The vote, or the mean, of each target's nearest training items.

    Parameters
    ----------
    ks, temperatures, weights :
        Those of `KnnHead`, for targets of classes.
    """

    kind = "knn_several"
    member = "knn"

    def __init__(
        self,
        ks: Sequence[int] = (1, 4, 8, 16, 32),
        temperatures: Sequence[float] = (0.05, 0.1, 0.2),
        weights: str = "tuned",
    ) -> None:
        self.ks = ks
        self.temperatures = temperatures
        self.weights = weights


class GbdtTargets(ApartTargets):
    """Gradient-boosted trees for each target.

    Parameters
    ----------
    components, rounds, seed, device :
        Those of `GbdtHead`.
    """

    kind = "gbdt_several"
    member = "gbdt"
    stochastic = True

    def __init__(self, components: int | None = 64, rounds: int = 300, seed: int = 0, device: str = "cpu") -> None:
        self.components = components
        self.rounds = rounds
        self.seed = seed
        self.device = device


class EachAlone(TargetsHead):
    """For each target a head like `like`, fitted to it alone: what sharing a trunk is judged by."""

    kind = "each_alone"  # lives for one fit and is never saved

    def __init__(self, like: TargetsHead) -> None:
        self.like = like

    def _fit(self, train: Data, validation: Data) -> None:
        self.members_ = []
        params = {name: value for name, value in self.like.get_params().items() if name != "target_weights"}
        for k, (name, kind) in enumerate(self.targets_.items()):
            member = type(self.like)(**params)
            member.targets_ = {name: kind}
            parts = (data.take(~np.isnan(data.codes[:, k])) for data in (train, validation))
            mine, held_out = (Data(some.inputs, some.present, some.codes[:, [k]]) for some in parts)
            self.members_.append(member.fit_data(mine, held_out if len(held_out) else mine, self.classes_[[k]]))

    def values(self, data: Data) -> list[Float]:
        return [member.values(data)[0] for member in self.members_]


def _having(data: Data, k: int, kind: str) -> Data:
    """The items that have target `k`, with its codes or numbers (m,) alone."""
    some = data.take(~np.isnan(data.codes[:, k]))
    codes = some.codes[:, k]
    return Data(some.inputs, some.present, codes.astype(np.int64) if kind == CLASSES else codes, some.weights)
