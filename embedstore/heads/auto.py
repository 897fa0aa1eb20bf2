"""The ladder: from the best single modality upwards, climbing only where a paired interval says that it pays.

Complex fusion does not reliably beat the best single modality or late fusion (arXiv 2512.22991), so each has to prove itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from embedstore._core.distinct import distinct
from embedstore.errors import HeadError
from embedstore.evaluation.bootstrap import Bootstrap
from embedstore.evaluation.ladder import Step
from embedstore.heads.base import Array, Codes, Data, Float, Head, HeadState, class_folds, log_softmax, set_aside
from embedstore.heads.ensemble import fit_pool, greedy_votes, learn_apart, pack, pool, unpack, vote
from embedstore.heads.make import make_head

STEPS = ("linear", "late", "bilinear", "gated", "attention", "gbdt", "ensemble")
FUSION = ("late", "bilinear", "gated", "attention")
MORE_MEMBERS = ("kernel", "knn")
"""What only the ensemble uses: strong on small data, and unlike the others."""
SHORT = {"patience": 4, "epochs": 12}
"""How long networks and trees are trained while they are only compared."""
LEAST_LEAD = 0.5
"""Standard errors by which a head must lead after a fold to be fitted on the others: with less it hardly gets there."""
ROUNDS = 24
LEAST_VOTE = 0.1
"""Members with a smaller share of the vote are left out: they cost more than they give."""


@dataclass
class _Tried:
    """What is known of a rung while climbing: out-of-fold log-probabilities, and how to make it on everything."""

    log_p: Float
    finish: Callable[[], tuple[dict[str, Head], dict[str, float]]]
    hits: Array
    seconds: float = 0.0
    folds: list[int] = field(default_factory=list)


class AutoHead(Head):
    """The best head by a ladder of paired comparisons.

    Best single input (linear) → all inputs side by side → late fusion → bilinear → gated → attention → gbdt → ensemble, each
    judged by out-of-fold accuracy against the one held. A step is kept if the 95 % interval of its paired gain lies above
    zero; a head that does not lead after a fold could hardly get there, and is not fitted on the others.

    Parameters
    ----------
    steps : sequence of str
        Rungs above the single inputs.
    folds : int
    seed : int
    device : str

    Attributes
    ----------
    ladder_ : list of Step
    chosen_ : str
        The name of the rung kept.
    votes_ : dict of member to float
    members_ : dict of member to Head
        One, or several if the ensemble was kept.
    """

    kind = "auto"
    chooses_within = True

    ladder_: list[Step]
    chosen_: str
    votes_: dict[str, float]
    members_: dict[str, Head]

    def __init__(self, steps: Sequence[str] = STEPS, folds: int = 3, seed: int = 0, device: str = "cpu") -> None:
        self.steps = steps
        self.folds = folds
        self.seed = seed
        self.device = device

    def _fit(self, train: Data, validation: Data) -> None:
        unknown = [name for name in self.steps if name not in STEPS]
        if unknown:
            raise HeadError(f"steps should be among {', '.join(STEPS)}. Got {unknown[0]!r} instead.")
        data = train if validation is train else train + validation
        climb = _Climb(data, self.classes_, self.folds, self.seed, self.device)
        climb.single_inputs()
        for name in self.steps:
            if (name != "linear" and name not in FUSION) or len(data.inputs) > 1:
                climb.attempt(name)
        self.ladder_, self.chosen_ = climb.ladder, climb.held
        self.members_, self.votes_ = climb.tried[climb.held].finish()

    def learn_again(self, train: Data, validation: Data) -> None:
        learn_apart(self.members_.values(), train, validation)

    def _logits(self, data: Data) -> Array:
        log_p = {name: head.log_proba(data.only(list(head.dims_))) for name, head in self.members_.items()}
        return next(iter(log_p.values())) if len(log_p) == 1 else vote(log_p, self.votes_)

    def _state(self) -> HeadState:
        steps = [step.to_dict() for step in self.ladder_]
        return pack({"ladder": steps, "chosen": self.chosen_, "votes": self.votes_}, list(self.members_.values()))

    def _restore(self, state: HeadState) -> None:
        self.ladder_ = [Step.from_dict(step) for step in state.config["ladder"]]
        self.chosen_, self.votes_ = state.config["chosen"], state.config["votes"]
        self.members_ = dict(zip(self.votes_, unpack(state), strict=True))


class _Climb:
    """Fits rungs out of fold and compares them."""

    def __init__(self, data: Data, classes: Array, k: int, seed: int, device: str) -> None:
        self._data = data
        self._classes = classes
        self._k = k
        self._seed = seed
        self._device = device
        self._folds = class_folds(data.codes, k, seed=seed + 7)
        self._bootstrap = Bootstrap.of(len(data), seed=seed)
        self.tried: dict[str, _Tried] = {}
        self.ladder: list[Step] = []
        self.held = ""

    def single_inputs(self) -> None:
        """A linear head on each input alone; the best is held."""
        for name in self._data.inputs:
            label = f"{name} alone" if len(self._data.inputs) > 1 else "linear"
            self.tried[label] = self._fit_folds("linear", [name], None)
        self.held = max(self.tried, key=lambda label: self.tried[label].hits.mean())
        for label, found in self.tried.items():
            score = self._bootstrap.mean(found.hits)
            self.ladder.append(Step(label, score, None, round(found.seconds, 2), label == self.held))

    def attempt(self, name: str) -> None:
        """Try a rung against the one held, and hold it if it surely gains."""
        before = self.tried[self.held]
        if name == "late":
            found = self._late()
        elif name == "ensemble":
            found = self._ensemble()
        else:
            found = self._fit_folds(name, list(self._data.inputs), before)
        judged = np.isin(self._folds, found.folds)
        bootstrap = self._bootstrap if judged.all() else Bootstrap.of(int(judged.sum()), seed=self._seed)
        gain = bootstrap.mean(found.hits[judged] - before.hits[judged])
        note = "" if judged.all() else f"given up after {len(found.folds)} of {self._k} folds"
        kept = bool(judged.all()) and gain.certain_gain
        score = bootstrap.mean(found.hits[judged])
        self.ladder.append(Step(name, score, gain, round(found.seconds, 2), kept, note))
        if judged.all():
            self.tried[name] = found
        if kept:
            self.held = name

    def _fit_folds(self, kind: str, inputs: list[str], rival: _Tried | None) -> _Tried:
        """A kind of head out of fold, given up where it does not lead `rival` on the folds so far."""
        start = time.perf_counter()
        data = self._data.only(inputs)
        log_p = np.full((len(data), len(self._classes)), -np.log(len(self._classes)))
        hits = np.zeros(len(data))
        done: list[int] = []
        for fold in range(self._k):
            inside, outside = self._folds != fold, self._folds == fold
            if len(distinct(data.codes[inside])) > 1 and outside.any():
                head = self._make(kind, **SHORT)
                head.fit_data(*set_aside(data.take(inside), seed=self._seed), self._classes)
                log_p[outside] = head.log_proba(data.take(outside))
            hits[outside] = _hits(log_p[outside], data.codes[outside])
            done.append(fold)
            if rival is not None and fold + 1 < self._k:
                judged = np.isin(self._folds, done)
                difference = (hits - rival.hits)[judged]
                if len(difference) and difference.mean() < LEAST_LEAD * difference.std() / len(difference) ** 0.5:
                    break
        name = kind if len(inputs) > 1 else inputs[0]

        def finish() -> tuple[dict[str, Head], dict[str, float]]:
            return {name: self._make(kind).fit_data(*set_aside(data, seed=self._seed), self._classes)}, {name: 1.0}

        return _Tried(log_p, finish, hits, time.perf_counter() - start, done)

    def _late(self) -> _Tried:
        """Convex weights of the single inputs' predictions, found on the other folds."""
        start = time.perf_counter()
        parts = {name: self.tried[f"{name} alone"].log_p for name in self._data.inputs}

        def predict(fold: int) -> Float:
            inside, outside = self._data.take(self._folds != fold), self._data.take(self._folds == fold)
            weights, scale = fit_pool({n: p[self._folds != fold] for n, p in parts.items()}, inside)
            here = {n: p[self._folds == fold] for n, p in parts.items()}
            return log_softmax(pool(here, outside.present, np.array(list(weights.values())), scale))

        def finish() -> tuple[dict[str, Head], dict[str, float]]:
            return {"late": self._make("late").fit_data(self._data, self._data, self._classes)}, {"late": 1.0}

        return self._crossed(predict, finish, start)

    def _ensemble(self) -> _Tried:
        """Votes of the heads on all inputs that were tried so far, found on the other folds."""
        start = time.perf_counter()
        for kind in MORE_MEMBERS:
            self.tried[kind] = self._fit_folds(kind, list(self._data.inputs), None)
        parts = {name: found.log_p for name, found in self.tried.items() if name != "late" and not name.endswith(" alone")}

        def predict(fold: int) -> Float:
            inside = self._folds != fold
            votes = greedy_votes({n: p[inside] for n, p in parts.items()}, self._data.codes[inside], ROUNDS)
            return vote({n: parts[n][~inside] for n in votes}, votes)

        def finish() -> tuple[dict[str, Head], dict[str, float]]:
            votes = greedy_votes(parts, self._data.codes, ROUNDS)
            votes = {name: share for name, share in votes.items() if share >= LEAST_VOTE} or votes
            members: dict[str, Head] = {}
            for name in votes:
                members[name] = next(iter(self.tried[name].finish()[0].values()))
            return members, {name: share / sum(votes.values()) for name, share in votes.items()}

        return self._crossed(predict, finish, start)

    def _crossed(
        self, predict: Callable[[int], Float], finish: Callable[[], tuple[dict[str, Head], dict[str, float]]], start: float
    ) -> _Tried:
        """A rung made of others, each fold predicted by what was found on the other folds."""
        log_p = np.zeros((len(self._data), len(self._classes)))
        for fold in range(self._k):
            if (self._folds == fold).any() and (self._folds != fold).any():
                log_p[self._folds == fold] = predict(fold)
        hits = _hits(log_p, self._data.codes)
        return _Tried(log_p, finish, hits, time.perf_counter() - start, list(range(self._k)))

    def _make(self, kind: str, **params: Any) -> Head:
        return make_head(kind, seed=self._seed, device=self._device, **params)


def _hits(log_p: Float, codes: Codes) -> Float:
    return np.asarray(log_p.argmax(axis=1) == codes, np.float64)
