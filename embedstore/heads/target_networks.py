"""The fusion networks as a trunk that several targets share, with an output for each: weighted, gated, bilinear, attention."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from embedstore.errors import HeadError
from embedstore.heads.base import Data, Float, HeadState, log_softmax
from embedstore.heads.networks import AttentionHead, BilinearHead, GatedHead, WeightedHead
from embedstore.heads.params import Tunable
from embedstore.heads.several_targets import TargetsHead
from embedstore.heads.solvers.neural import NeuralHead, Targets

if TYPE_CHECKING:
    import torch


LEAST_GAIN = 0.01
"""The share of what a target's frequencies, or its mean, cost that has to be saved for something to be learned of it."""


class _LetGoError(Exception):
    """Nothing is learned of the target that this names."""


class TargetNetwork(TargetsHead, NeuralHead):
    """One trunk; its loss is the weighted sum of the targets' losses, each over the items that have the target.

    The loss of a target of classes is cross-entropy, that of numbers the squared error of the standardised number.

    Parameters
    ----------
    target_weights : sequence of float, optional
        What each target's loss counts; 1, if None.
    width, dropout, epochs, patience, batch_size, learning_rate, seed, device :
        Those of `NeuralHead`.

    Attributes
    ----------
    units_ : list of (mean, deviation)
        Of each target of numbers, over the training items; (0, 1) of classes.
    constant_ : list of (c,) float64
        The logarithms of each target's class frequencies; 0 of numbers, in their units.
    unlearned_ : list of str
        Targets whose validation loss stopped falling before it was below that of saying their frequencies, or their mean:
        that is what the head says of them.
    """

    tunable: ClassVar[Tunable] = {}
    """Tuning is for heads of one target."""

    takes_weights = False
    takes_sequences = False
    """As the heads that each target would have alone, and those of other kinds, it gets the mean of several vectors."""

    units_: list[tuple[float, float]]
    constant_: list[Float]
    unlearned_: list[str]
    _weight: torch.Tensor
    _least: list[float]
    _waited: list[int]

    def __init__(
        self,
        target_weights: Sequence[float] | None = None,
        width: int = 256,
        dropout: float = 0.4,
        epochs: int = 40,
        patience: int = 5,
        batch_size: int = 256,
        learning_rate: float = 2e-3,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        super().__init__(
            width=width,
            dropout=dropout,
            epochs=epochs,
            patience=patience,
            batch_size=batch_size,
            learning_rate=learning_rate,
            seed=seed,
            device=device,
        )
        self.target_weights = target_weights

    @property
    def _width(self) -> int:
        return sum(max(1, len(known)) for known in self.classes_)

    def _fit(self, train: Data, validation: Data) -> None:
        import torch

        if self.target_weights is not None and len(self.target_weights) != len(self.classes_):
            raise HeadError(
                f"target_weights should be one for each of {', '.join(self.targets_)}. Got {len(self.target_weights)}."
            )
        columns = [column[~np.isnan(column)] for column in train.codes.T]
        self.units_, self.constant_, self.unlearned_ = [], [], []
        for known, column in zip(self.classes_, columns, strict=True):
            shares = np.maximum(np.bincount(column.astype(np.int64), minlength=len(known)), 0.5) if len(known) else np.ones(1)
            self.constant_.append(np.log(shares / shares.sum()))
            self.units_.append((0.0, 1.0) if len(known) else (float(column.mean()), float(column.std()) or 1.0))
        self._weight = torch.tensor(self.target_weights or [1.0] * len(columns), device=self.device)
        while True:
            self._least, self._waited = [np.inf] * len(columns), [0] * len(columns)
            try:
                return super()._fit(train, validation)
            except _LetGoError as error:
                self.unlearned_.append(str(error))

    def _targets(self, data: Data) -> Targets:
        import torch

        mean, deviation = np.array(self.units_).T
        codes = torch.from_numpy(((data.codes - mean) / deviation).astype(np.float32)).to(self.device)
        return codes, torch.ones(len(codes), device=self.device)

    def _loss(self, logits: torch.Tensor, codes: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        import torch

        learned = torch.tensor([name not in self.unlearned_ for name in self.targets_], device=logits.device)
        return (self._weight * learned * self._losses(self._split(logits), codes, self.label_smoothing)).sum()

    def _losses(self, logits: Iterable[torch.Tensor], codes: torch.Tensor, smoothing: float) -> torch.Tensor:
        """The mean loss of each target (t,), over the items that have it; 0 where none has."""
        import torch

        found = []
        for said, code in zip(logits, codes.T, strict=True):
            there, known = ~code.isnan(), code.nan_to_num()
            if said.shape[1] > 1:
                losses = torch.nn.functional.cross_entropy(said, known.long(), label_smoothing=smoothing, reduction="none")
            else:
                losses = (said[:, 0] - known) ** 2
            found.append((losses * there).sum() / there.sum().clamp(min=1))
        return torch.stack(found)

    def _checked(self, logits: torch.Tensor, codes: torch.Tensor, counts: torch.Tensor) -> list[torch.Tensor]:
        """The loss, and the mean over targets of the accuracy, or of what is explained of the variance.

        A target that is let go of counts what its frequencies, or its mean, cost.
        """
        import torch

        constants = (logits.new_tensor(c).expand(len(logits), -1) for c in self.constant_)
        losses, constant = self._losses(self._split(logits), codes, 0.0), self._losses(constants, codes, 0.0)
        self._let_go(losses.tolist(), constant.tolist())
        for k, name in enumerate(self.targets_):
            if name in self.unlearned_:
                losses[k] = constant[k]
        hits = []
        for said, code in zip(self._split(logits), codes.T, strict=True):
            there = ~code.isnan()
            right = (said.argmax(1) == code).float() if said.shape[1] > 1 else 1 - (said[:, 0] - code.nan_to_num()) ** 2
            hits.append((right * there).sum() / there.sum().clamp(min=1))
        return [(self._weight * losses).sum(), torch.stack(hits).mean()]

    def _let_go(self, losses: Sequence[float], constant: Sequence[float]) -> None:
        """Begin again without a target of which nothing is learned: it would end training early, and pull on the trunk."""
        for k, (name, loss) in enumerate(zip(self.targets_, losses, strict=True)):
            self._waited[k] = 0 if loss < self._least[k] - 1e-4 else self._waited[k] + 1
            self._least[k] = min(loss, self._least[k])
            learned = self._least[k] < (1 - LEAST_GAIN) * constant[k]
            if self._waited[k] >= self.patience and not learned and constant[k] > 0 and name not in self.unlearned_:
                raise _LetGoError(name)

    def _split(self, logits: Any) -> Iterator[Any]:
        """The logits (b, c) of each target, of a tensor or an array; (b, 1) of numbers."""
        ends = np.cumsum([0, *(max(1, len(known)) for known in self.classes_)]).tolist()
        yield from (logits[:, lo:hi] for lo, hi in pairwise(ends))

    def values(self, data: Data) -> list[Float]:
        found: list[Float] = []
        logits = self._split(self._logits(data))
        for name, said, constant, (mean, deviation) in zip(self.targets_, logits, self.constant_, self.units_, strict=True):
            if name in self.unlearned_:
                said = np.tile(constant, (len(said), 1))
            found.append(log_softmax(said) if len(constant) > 1 else said[:, 0].astype(np.float64) * deviation + mean)
        return found

    def _state(self) -> HeadState:
        own = super()._state()
        constant = [values.tolist() for values in self.constant_]
        learned = {"units": [list(pair) for pair in self.units_], "constant": constant, "unlearned": self.unlearned_}
        return HeadState({**own.config, **learned}, own.tensors, own.files)

    def _restore(self, state: HeadState) -> None:
        self.units_ = [(float(mean), float(deviation)) for mean, deviation in state.config["units"]]
        self.constant_ = [np.asarray(values, np.float64) for values in state.config["constant"]]
        self.unlearned_ = [str(name) for name in state.config["unlearned"]]
        super()._restore(state)


class WeightedTargets(TargetNetwork, WeightedHead):
    """`WeightedHead` with logits, or a number, for each target; the weights of the modalities are shared."""

    kind = "weighted_several"


class GatedTargets(TargetNetwork, GatedHead):
    """`GatedHead` with an output for each target."""

    kind = "gated_several"


class BilinearTargets(TargetNetwork, BilinearHead):
    """`BilinearHead` with an output for each target."""

    kind = "bilinear_several"


class AttentionTargets(TargetNetwork, AttentionHead):
    """`AttentionHead` with an output for each target."""

    kind = "attention_several"
