"""The fusion networks as a trunk that several targets share, with an output for each: weighted, gated, bilinear, attention."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from embedstore.errors import HeadError
from embedstore.heads.base import Data, Float, HeadState, log_softmax
from embedstore.heads.networks import AttentionHead, BilinearHead, GatedHead, WeightedHead
from embedstore.heads.several_targets import TargetsHead
from embedstore.heads.solvers.neural import NeuralHead, Targets

if TYPE_CHECKING:
    import torch


class _TargetNetwork(TargetsHead, NeuralHead):
    """One trunk; its loss is the weighted sum of the targets' losses, each over the items that have the target.

    The loss of a target of classes is cross-entropy, that of numbers the squared error of the standardised number.

    Parameters
    ----------
    weights : sequence of float, optional
        What each target's loss counts; 1, if None.
    width, dropout, epochs, patience, batch_size, learning_rate, seed, device :
        Those of `NeuralHead`.

    Attributes
    ----------
    units_ : list of (mean, deviation)
        Of each target of numbers, over the training items; (0, 1) of classes.
    """

    takes_weights = False

    units_: list[tuple[float, float]]

    def __init__(
        self,
        weights: Sequence[float] | None = None,
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
        self.weights = weights

    @property
    def _width(self) -> int:
        return sum(max(1, len(known)) for known in self.classes_)

    def _fit(self, train: Data, validation: Data) -> None:
        if self.weights is not None and len(self.weights) != len(self.classes_):
            raise HeadError(f"weights should be one for each of {', '.join(self.targets_)}. Got {len(self.weights)}.")
        self.units_ = [
            (0.0, 1.0) if len(known) else (float(np.nanmean(column)), float(np.nanstd(column)) or 1.0)
            for known, column in zip(self.classes_, train.codes.T, strict=True)
        ]
        super()._fit(train, validation)

    def _targets(self, data: Data) -> Targets:
        import torch

        mean, deviation = np.array(self.units_).T
        codes = torch.from_numpy(((data.codes - mean) / deviation).astype(np.float32)).to(self.device)
        return codes, torch.ones(len(codes), device=self.device)

    def _loss(self, logits: torch.Tensor, codes: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        return self._summed(logits, codes, self.label_smoothing)

    def _summed(self, logits: torch.Tensor, codes: torch.Tensor, smoothing: float) -> torch.Tensor:
        """Σ weight · mean loss of each target, over the items that have it."""
        import torch

        total = logits.new_zeros(())
        for weight, said, code in zip(self.weights or [1.0] * codes.shape[1], self._split(logits), codes.T, strict=True):
            there = ~code.isnan()
            count = there.sum().clamp(min=1)
            if said.shape[1] > 1:
                losses = torch.nn.functional.cross_entropy(
                    said, code.nan_to_num().long(), label_smoothing=smoothing, reduction="none"
                )
            else:
                losses = (said[:, 0] - code.nan_to_num()) ** 2
            total = total + weight * (losses * there).sum() / count
        return total

    def _checked(self, logits: torch.Tensor, codes: torch.Tensor, counts: torch.Tensor) -> list[torch.Tensor]:
        """The loss, and the mean over targets of the accuracy, or of what is explained of the variance."""
        import torch

        hits = []
        for said, code in zip(self._split(logits), codes.T, strict=True):
            there = ~code.isnan()
            right = (said.argmax(1) == code).float() if said.shape[1] > 1 else 1 - (said[:, 0] - code.nan_to_num()) ** 2
            hits.append((right * there).sum() / there.sum().clamp(min=1))
        return [self._summed(logits, codes, 0.0), torch.stack(hits).mean()]

    def _split(self, logits: torch.Tensor) -> Iterator[torch.Tensor]:
        """The logits (b, c) of each target; (b, 1) of numbers."""
        ends = np.cumsum([0, *(max(1, len(known)) for known in self.classes_)]).tolist()
        yield from (logits[:, lo:hi] for lo, hi in pairwise(ends))

    def values(self, data: Data) -> list[Float]:
        ends = np.cumsum([max(1, len(known)) for known in self.classes_])[:-1]
        found = []
        for said, known, (mean, deviation) in zip(
            np.split(self._logits(data), ends, 1), self.classes_, self.units_, strict=True
        ):
            found.append(log_softmax(said) if len(known) else said[:, 0].astype(np.float64) * deviation + mean)
        return found

    def _state(self) -> HeadState:
        own = super()._state()
        return HeadState({**own.config, "units": [list(pair) for pair in self.units_]}, own.tensors, own.files)

    def _restore(self, state: HeadState) -> None:
        self.units_ = [(float(mean), float(deviation)) for mean, deviation in state.config["units"]]
        super()._restore(state)


class WeightedTargets(_TargetNetwork, WeightedHead):
    """`WeightedHead` with logits, or a number, for each target; the weights of the modalities are shared."""

    kind = "weighted_several"


class GatedTargets(_TargetNetwork, GatedHead):
    """`GatedHead` with an output for each target."""

    kind = "gated_several"


class BilinearTargets(_TargetNetwork, BilinearHead):
    """`BilinearHead` with an output for each target."""

    kind = "bilinear_several"


class AttentionTargets(_TargetNetwork, AttentionHead):
    """`AttentionHead` with an output for each target."""

    kind = "attention_several"
