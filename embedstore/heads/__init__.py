"""Small models on cached features. They see arrays and masks, never a store."""

from __future__ import annotations

from typing import Any

from embedstore.errors import UsageError
from embedstore.heads.auto import AutoHead
from embedstore.heads.base import Head
from embedstore.heads.boosted import GbdtHead
from embedstore.heads.combine import EnsembleHead, LateHead
from embedstore.heads.fusion import AttentionHead, BilinearHead, GatedHead, WeightedHead
from embedstore.heads.kernel import KernelHead
from embedstore.heads.knn import KnnHead
from embedstore.heads.linear import LinearHead
from embedstore.heads.ridge import RidgeHead

__all__ = [
    "HEADS",
    "AttentionHead",
    "AutoHead",
    "BilinearHead",
    "EnsembleHead",
    "GatedHead",
    "GbdtHead",
    "Head",
    "KernelHead",
    "KnnHead",
    "LateHead",
    "LinearHead",
    "RidgeHead",
    "WeightedHead",
    "head_class",
    "make_head",
    "params_of",
]

HEADS: dict[str, type[Head]] = {
    head.kind: head
    for head in (
        LinearHead,
        RidgeHead,
        KnnHead,
        KernelHead,
        LateHead,
        WeightedHead,
        GatedHead,
        BilinearHead,
        AttentionHead,
        GbdtHead,
        EnsembleHead,
        AutoHead,
    )
}
"""Kind → class, in the order in which help lists them."""


def head_class(kind: str) -> type[Head]:
    """The class of heads called `kind`; `UsageError` lists those there are."""
    if kind not in HEADS:
        raise UsageError(f"No head is called {kind!r}. Known: {', '.join(HEADS)}.")
    return HEADS[kind]


def make_head(kind: str, **params: Any) -> Head:
    """A new head of `kind`; parameters that it does not have (a device, a seed) are left out."""
    known = head_class(kind)().get_params()
    return head_class(kind)(**{name: value for name, value in params.items() if name in known})


def params_of(head: Head) -> dict[str, Any]:
    """The constructor's arguments as JSON values."""
    return {name: list(v) if isinstance(v, tuple) else v for name, v in head.get_params().items()}
