"""The fusion networks with an output of its own for each label: weighted, gated, bilinear, attention."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedstore.heads.label_sets import Labeller
from embedstore.heads.networks import AttentionHead, BilinearHead, GatedHead, WeightedHead
from embedstore.heads.solvers.neural import NeuralHead

if TYPE_CHECKING:
    import torch


class _LabelNetwork(Labeller, NeuralHead):
    """Binary cross-entropy of every label; `label_smoothing` moves its targets towards the label's share of the batch."""

    takes_weights = False

    def _loss(self, logits: torch.Tensor, codes: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        import torch

        targets = codes.to(logits.dtype)
        smooth = torch.lerp(targets, targets.mean(0).expand_as(targets), self.label_smoothing)
        losses = torch.nn.functional.binary_cross_entropy_with_logits(logits, smooth, reduction="none")
        if self.focal > 0:
            p = logits.sigmoid()
            losses = losses * torch.where(codes > 0, 1 - p, p) ** self.focal
        return losses.mean()

    def _checked(self, logits: torch.Tensor, codes: torch.Tensor, counts: torch.Tensor) -> list[torch.Tensor]:
        import torch

        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, codes.to(logits.dtype))
        return [loss, ((logits > 0) == (codes > 0)).float().mean()]


class WeightedLabeller(_LabelNetwork, WeightedHead):
    """`WeightedHead` with a probability for each label."""

    kind = "weighted_multilabel"


class GatedLabeller(_LabelNetwork, GatedHead):
    """`GatedHead` with a probability for each label."""

    kind = "gated_multilabel"


class BilinearLabeller(_LabelNetwork, BilinearHead):
    """`BilinearHead` with a probability for each label."""

    kind = "bilinear_multilabel"


class AttentionLabeller(_LabelNetwork, AttentionHead):
    """`AttentionHead` with a probability for each label."""

    kind = "attention_multilabel"
