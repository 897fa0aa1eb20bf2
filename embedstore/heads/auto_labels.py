"""The ladder for several labels: a step up only where a paired interval of the items' F1 says that it pays."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from embedstore.errors import HeadError
from embedstore.evaluation.bootstrap import Bootstrap
from embedstore.evaluation.label_metrics import item_f1
from embedstore.evaluation.ladder import Step
from embedstore.heads.base import Array, Data, Float, HeadState, class_folds
from embedstore.heads.ensemble import pack, unpack
from embedstore.heads.label_sets import Labeller, log_odds_of, rarest
from embedstore.heads.make import make_head

STEPS = ("linear", "knn", "gated", "gbdt")
SHORT = {"patience": 4, "epochs": 12}
"""How long networks and trees are trained while they are only compared."""


class AutoLabeller(Labeller):
    """The best head by a ladder of paired comparisons, for items with any number of labels.

    Best single input (linear) → all inputs side by side → kNN → gated → gbdt, each judged by the out-of-fold F1 of the items'
    labels against the one held, and kept if the 95 % interval of its paired gain lies above zero.

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
    members_ : dict of member to Labeller
        One.
    """

    kind = "auto_multilabel"

    ladder_: list[Step]
    chosen_: str
    members_: dict[str, Labeller]

    def __init__(self, steps: Sequence[str] = STEPS, folds: int = 3, seed: int = 0, device: str = "cpu") -> None:
        self.steps = steps
        self.folds = folds
        self.seed = seed
        self.device = device

    def _fit(self, train: Data, validation: Data) -> None:
        if unknown := [name for name in self.steps if name not in STEPS]:
            raise HeadError(f"steps should be among {', '.join(STEPS)}. Got {unknown[0]!r} instead.")
        data = train if validation is train else train + validation
        folds = class_folds(rarest(data.codes), self.folds, seed=self.seed)
        bootstrap = Bootstrap.of(len(data), seed=self.seed)
        names = list(data.inputs)
        rungs = {f"{name} alone": ("linear", [name]) for name in names}
        alone = {label: self._out_of_fold(*rung, data, folds) for label, rung in rungs.items()}
        self.chosen_ = max(alone, key=lambda label: float(alone[label][0].mean()))
        held = alone[self.chosen_][0]
        self.ladder_ = [
            Step(label, bootstrap.mean(worth), None, round(seconds, 2), label == self.chosen_)
            for label, (worth, seconds) in alone.items()
        ]
        for kind in self.steps:
            if kind == "linear" and len(names) == 1:
                continue
            worth, seconds = self._out_of_fold(kind, names, data, folds)
            gain = bootstrap.mean(worth - held)
            self.ladder_.append(Step(kind, bootstrap.mean(worth), gain, round(seconds, 2), gain.certain_gain))
            rungs[kind] = (kind, names)
            if gain.certain_gain:
                self.chosen_, held = kind, worth
        kind, inputs = rungs[self.chosen_]
        parts = train.only(inputs), validation.only(inputs)
        member = self._member(kind).fit_data(parts[0], parts[validation is not train], self.classes_)
        self.members_ = {self.chosen_: member}

    def _out_of_fold(self, kind: str, inputs: list[str], data: Data, folds: Array) -> tuple[Float, float]:
        """Each item's F1 (n,) by a head that did not see it, and the seconds it took."""
        started, data = time.perf_counter(), data.only(inputs)
        given = np.zeros(data.codes.shape, bool)
        for fold in np.unique(folds):
            inside, outside = data.take(folds != fold), data.take(folds == fold)
            if len(inside) < 2 or not inside.codes.any():
                continue  # nothing to learn from
            aside = class_folds(rarest(inside.codes), 7, seed=self.seed) == 0
            parts = (
                (inside.take(~aside), inside.take(aside)) if aside.any() and inside.codes[~aside].any() else (inside, inside)
            )
            head = self._member(kind, **SHORT).fit_data(*parts, self.classes_)
            given[folds == fold] = head.log_odds(outside) >= log_odds_of(head.thresholds_)
        return item_f1(data.codes > 0, given), time.perf_counter() - started

    def _member(self, kind: str, **params: int) -> Labeller:
        made = make_head(kind, task=self.task, seed=self.seed, device=self.device, **params)
        assert isinstance(made, Labeller)  # the registry's, for this task
        return made

    def _thresholds(self, train: Data, validation: Data) -> Float:
        return self.members_[self.chosen_].thresholds_

    def _logits(self, data: Data) -> Array:
        (member,) = self.members_.values()
        return member.log_odds(data.only(list(member.dims_)))

    def _state(self) -> HeadState:
        steps = [step.to_dict() for step in self.ladder_]
        return pack({"ladder": steps, "chosen": self.chosen_}, list(self.members_.values()))

    def _restore(self, state: HeadState) -> None:
        self.ladder_ = [Step.from_dict(step) for step in state.config["ladder"]]
        self.chosen_ = state.config["chosen"]
        (member,) = unpack(state)
        assert isinstance(member, Labeller)
        self.members_ = {self.chosen_: member}
