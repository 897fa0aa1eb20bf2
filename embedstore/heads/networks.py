"""Fusion heads that are small networks: weighted, gated, bilinear, attention. Missing modalities are masks in all of them."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, ClassVar

from embedstore.heads.params import Tunable
from embedstore.heads.solvers.neural import NeuralHead

if TYPE_CHECKING:
    import torch


class WeightedHead(NeuralHead):
    """Per-modality linear logits, added with learned softmax weights: α·text + (1 - α)·image of the literature.

    An item without a modality shares its weight among the others.
    """

    kind = "weighted"
    tunable: ClassVar[Tunable] = {name: tried for name, tried in NeuralHead.tunable.items() if name != "width"}  # it has none

    def _module(self, dims: dict[str, int], classes: int) -> torch.nn.Module:
        from embedstore.heads.solvers.fusion_modules import Weighted

        return Weighted(dims, classes, self.dropout)

    @property
    def weights_(self) -> dict[str, float]:
        """Each modality's weight for an item that has all of them."""
        weights = self._net.get_parameter("weight_logits").detach().softmax(0).tolist()
        return dict(zip(self.dims_, weights, strict=True))


class GatedHead(NeuralHead):
    """A hidden vector per modality, mixed feature by feature by gates that see all of them (GMU, arXiv 1702.01992)."""

    kind = "gated"

    def _module(self, dims: dict[str, int], classes: int) -> torch.nn.Module:
        from embedstore.heads.solvers.fusion_modules import Gated

        return Gated(dims, classes, self.width, self.dropout)


class BilinearHead(NeuralHead):
    """Low-rank bilinear fusion: projections of each modality and the Hadamard products of all pairs.

    The products of Hate-CLIPper (arXiv 2210.05916); a missing modality has a learned projection.
    """

    kind = "bilinear"

    def _module(self, dims: dict[str, int], classes: int) -> torch.nn.Module:
        from embedstore.heads.solvers.fusion_modules import Bilinear

        return Bilinear(dims, classes, self.width, self.dropout, list(combinations(dims, 2)))


class AttentionHead(NeuralHead):
    """One token a modality and a CLS token through two pre-norm transformer blocks; absent modalities are masked keys.

    Several vectors of a modality, (n, f, d) such as the frames of a video, are as many tokens, without an order.
    """

    kind = "attention"
    takes_sequences = True

    def _module(self, dims: dict[str, int], classes: int) -> torch.nn.Module:
        from embedstore.heads.solvers.fusion_modules import Attention

        return Attention(dims, classes, self.width, self.dropout)
