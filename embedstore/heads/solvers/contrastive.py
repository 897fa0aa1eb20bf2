"""Two linear maps trained so that pairs find one another among many: InfoNCE and the sigmoid loss, from a given start."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.evaluation.paired import Codes

Float32 = npt.NDArray[np.float32]
Maps = tuple[Float32, Float32]

LOSSES = ("infonce", "siglip")
"""InfoNCE in both directions (van den Oord et al. 2018, arXiv 1807.03748; CLIP, arXiv 2103.00020), and the sigmoid loss over
every pair (SigLIP, Zhai et al. 2023, arXiv 2303.15343)."""

BATCH = 1024
"""Pairs compared with one another in a step; all, where there are fewer."""
RATE = 0.03
"""Of Adam, relative to the root mean square of each map's start."""
DROPOUT = 0.3
PULL = 10.0
"""Weight of the squared distance from the start, relative to the start's own square, for each map."""
SCALE, BIAS, SCALE_RATE = 20.0, -10.0, 0.01
"""Where the learned scale and bias of logits begin (the bias as in SigLIP), and how fast they learn."""


@dataclass(frozen=True)
class PairedFeatures:
    """Features of both sides of n pairs, of about unit variance, and the contents of either side.

    Parameters
    ----------
    x, y : (n, r1), (n, r2) float32
    codes : (n,), (n,) int64
        Equal where a content is the same: a pair that shares one with another is no negative of it.
    """

    x: Float32
    y: Float32
    codes: tuple[Codes, Codes]


def contrastive(data: PairedFeatures, start: Maps, *, loss: str, steps: int, every: int, seed: int = 0) -> Iterator[Maps]:
    """The maps (r1, d) and (r2, d) after each `every` steps, of `steps`, of Adam from `start`.

    Parameters
    ----------
    loss : str
        One of `LOSSES`, of cosines times a learned scale.
    seed : int
        Of batches and dropout.
    """
    import torch

    generator, order = torch.Generator().manual_seed(seed), _batches(len(data.x), seed)
    sides = [torch.from_numpy(np.ascontiguousarray(side)) for side in (data.x, data.y)]
    begun = [torch.from_numpy(np.ascontiguousarray(side)) for side in start]
    maps = [side.clone().requires_grad_() for side in begun]
    logs = torch.tensor([np.log(SCALE), BIAS], dtype=torch.float32, requires_grad=True)
    rates = [{"params": [m], "lr": RATE * float(b.square().mean().sqrt())} for m, b in zip(maps, begun, strict=True)]
    adam = torch.optim.Adam([*rates, {"params": [logs], "lr": SCALE_RATE}])
    for step in range(1, steps + 1):
        at = next(order)
        kept = [torch.empty(len(at), side.shape[1]).bernoulli_(1 - DROPOUT, generator=generator) for side in sides]
        inputs = [side[at] * keep / (1 - DROPOUT) for side, keep in zip(sides, kept, strict=True)]
        u, v = (torch.nn.functional.normalize(z @ m, dim=1) for z, m in zip(inputs, maps, strict=True))
        value = _loss(loss, u @ v.T * logs[0].exp(), logs[1], torch.from_numpy(_copies(data.codes, at)))
        for moved, begin in zip(maps, begun, strict=True):
            value = value + PULL * (moved - begin).square().sum() / begin.square().sum()
        adam.zero_grad()
        value.backward()
        adam.step()
        if step % every == 0:
            first, second = (m.detach().numpy().copy() for m in maps)
            yield first, second


def _loss(kind: str, logits: Any, bias: Any, copies: Any) -> Any:
    """The loss of logits (b, b), whose diagonal are the pairs; `copies` (b, b) are no negatives."""
    import torch

    n = len(logits)
    if kind == "infonce":
        logits, pairs = logits.masked_fill(copies, -torch.inf), torch.arange(n)
        entropy = torch.nn.functional.cross_entropy
        return (entropy(logits, pairs) + entropy(logits.T, pairs)) / 2
    sign = 2 * torch.eye(n) - 1
    losses = -torch.nn.functional.logsigmoid(sign * (logits + bias))
    return losses.masked_fill(copies, 0).sum() / n


def _copies(codes: tuple[Codes, Codes], at: Codes) -> npt.NDArray[np.bool_]:
    """Which pairs (b, b), other than an item's own, share a content."""
    first, second = (side[at] for side in codes)
    same = np.asarray((first[:, None] == first) | (second[:, None] == second))
    np.fill_diagonal(same, False)
    return same


def _batches(n: int, seed: int) -> Iterator[Codes]:
    """Batches without end, every item once before any comes again."""
    rng, left = np.random.default_rng(seed), np.empty(0, np.int64)
    if n <= BATCH:
        while True:
            yield np.arange(n)
    while True:
        if len(left) < BATCH:
            left = rng.permutation(n)
        at, left = left[:BATCH], left[BATCH:]
        yield at
