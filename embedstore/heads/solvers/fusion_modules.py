"""The torch modules of the fusion heads. Imported only when one is made, because it imports torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

HEADS, LAYERS = 4, 2


class Dropout(nn.Module):
    """Dropout that on a CPU draws eight masks from one random number: `torch.nn.Dropout` spent a quarter of the time.

    There the chance is rounded to 1/256.
    """

    def __init__(self, chance: float) -> None:
        super().__init__()
        self.chance = chance

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.chance <= 0:
            return x
        limit = round(self.chance * 256)
        if x.is_cuda or limit >= 256:
            return nn.functional.dropout(x, self.chance)
        words = torch.randint(-(2**63), 2**63 - 1, (-(-x.numel() // 8),))
        keep = words.view(torch.uint8)[: x.numel()].view_as(x) >= limit
        return x * (keep.to(x.dtype) * (256 / (256 - limit)))


class Weighted(nn.Module):
    """Σ softmax(a)_m · (W_m x_m + b_m) over the modalities that are there."""

    def __init__(self, dims: Mapping[str, int], classes: int, dropout: float) -> None:
        super().__init__()
        self.names = list(dims)
        self.layers = nn.ModuleList(nn.Linear(d, classes) for d in dims.values())
        self.weight_logits = nn.Parameter(torch.zeros(len(dims)))
        self.drop = Dropout(dropout)

    def forward(self, inputs: dict[str, Tensor], masks: dict[str, Tensor]) -> Tensor:
        logits = torch.stack([layer(self.drop(inputs[n])) for n, layer in zip(self.names, self.layers, strict=True)], 1)
        present = torch.stack([masks[n] for n in self.names], 1)
        weights = self.weight_logits.expand(len(present), -1).masked_fill(~present, -1e4).softmax(1)
        return (weights[:, :, None] * logits).sum(1)


class _Project(nn.Module):
    """x (b, d) → (b, width); a learned vector where the modality is absent."""

    def __init__(self, dim: int, width: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(Dropout(dropout), nn.Linear(dim, width), nn.LayerNorm(width))
        self.absent = nn.Parameter(torch.randn(width) * 0.02)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return torch.where(mask[:, None], self.layers(x), self.absent)


class Gated(nn.Module):
    """Vector gates over hidden vectors."""

    def __init__(self, dims: Mapping[str, int], classes: int, width: int, dropout: float) -> None:
        super().__init__()
        self.names = list(dims)
        self.projections = nn.ModuleList(_Project(d, width, dropout) for d in dims.values())
        self.gate = nn.Linear(len(dims) * width, len(dims) * width)
        self.out = nn.Sequential(Dropout(dropout), nn.Linear(width, classes))

    def forward(self, inputs: dict[str, Tensor], masks: dict[str, Tensor]) -> Tensor:
        hidden = [nn.functional.gelu(p(inputs[n], masks[n])) for n, p in zip(self.names, self.projections, strict=True)]
        stacked = torch.stack(hidden, 1)
        present = torch.stack([masks[n] for n in self.names], 1)
        gates = self.gate(stacked.flatten(1)).view_as(stacked).masked_fill(~present[:, :, None], -1e4).softmax(1)
        return self.out((gates * stacked).sum(1))  # type: ignore[no-any-return]


class Bilinear(nn.Module):
    """Projections and their pairwise Hadamard products."""

    def __init__(
        self, dims: Mapping[str, int], classes: int, width: int, dropout: float, pairs: Sequence[tuple[str, str]]
    ) -> None:
        super().__init__()
        self.names, self.pairs = list(dims), list(pairs)
        self.projections = nn.ModuleList(_Project(d, width, dropout) for d in dims.values())
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in pairs)
        self.out = nn.Sequential(Dropout(dropout), nn.Linear((len(dims) + len(pairs)) * width, classes))

    def forward(self, inputs: dict[str, Tensor], masks: dict[str, Tensor]) -> Tensor:
        p = {n: project(inputs[n], masks[n]) for n, project in zip(self.names, self.projections, strict=True)}
        products = [norm(p[a] * p[b]) for (a, b), norm in zip(self.pairs, self.norms, strict=True)]
        return self.out(torch.cat([*p.values(), *products], 1))  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Tokens with modality embeddings and a CLS token, masks for what is absent; several vectors are several tokens.

    The blocks begin at zero beside the mean of the tokens, which carries what needs no interaction: without it the head was
    four points below a linear one on items with an image alone.
    """

    def __init__(self, dims: Mapping[str, int], classes: int, width: int, dropout: float) -> None:
        super().__init__()
        self.names = list(dims)
        self.projections = nn.ModuleList(
            nn.Sequential(Dropout(dropout), nn.Linear(d, width), nn.LayerNorm(width)) for d in dims.values()
        )
        self.modality = nn.Parameter(torch.randn(len(dims), width) * 0.02)
        self.cls = nn.Parameter(torch.randn(width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            width, HEADS, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        layer.dropout, layer.dropout1, layer.dropout2 = (Dropout(0.1) for _ in range(3))  # type: ignore[assignment]
        self.encoder = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.out = nn.Sequential(nn.LayerNorm(width), Dropout(dropout), nn.Linear(width, classes))
        for block in self.encoder.layers:  # begin as the mean of the tokens
            nn.init.zeros_(block.self_attn.out_proj.weight)
            nn.init.zeros_(block.linear2.weight)

    def forward(self, inputs: dict[str, Tensor], masks: dict[str, Tensor]) -> Tensor:
        several = {n: x if x.ndim == 3 else x[:, None] for n, x in inputs.items()}
        tokens = [p(several[n]) + e for n, p, e in zip(self.names, self.projections, self.modality, strict=True)]
        cls = self.cls.expand(len(tokens[0]), 1, -1)
        sequence = torch.cat([cls, *tokens], 1)
        absent = ~torch.cat([masks[n] if masks[n].ndim == 2 else masks[n][:, None] for n in self.names], 1)
        absent = nn.functional.pad(absent, (1, 0), value=False)
        there = (~absent[:, 1:, None]).to(sequence.dtype)
        mean = (nn.functional.gelu(sequence[:, 1:]) * there).sum(1) / there.sum(1).clamp(min=1)
        hidden = self.encoder(sequence, src_key_padding_mask=absent)[:, 0]
        return self.out(hidden + mean)  # type: ignore[no-any-return]
